"""A Hugging Face dataset, your own or one on the hub; and Crossmodal-3600, which is one."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import snapshot_download
from PIL import Image

from .images import open_picture
from .pairs import DataError, PictureDataset
from .reader import Reader, missing_columns, optional_package

if TYPE_CHECKING:
    import datasets

XM3600 = "floschne/xm3600_1k"
XM3600_LANGUAGES = (
    *("ar", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fil", "fr", "he", "hi", "hr"),
    *("hu", "id", "it", "ja", "ko", "mi", "nl", "no", "pl", "pt", "quz", "ro", "ru", "sv", "sw"),
    *("te", "th", "tr", "uk", "vi", "zh"),
)
XM3600_CREDIT = (
    "Crossmodal-3600 (Thapliyal et al. 2022) in the copy floschne/xm3600_1k on the Hugging Face "
    "hub, CC-BY 4.0; pictures from Open Images"
)


def hub_dataset(
    source: str | datasets.Dataset, image: str = "image", text: str = "text", split: str = "train"
) -> PictureDataset:
    """A Hugging Face dataset with a column of pictures and a column of captions.

    `source` is a name on the hub ("owner/name": all splits are downloaded, and `split` is used), or
    a `datasets.Dataset` that you loaded yourself, with whatever options it needs. A cell of `text`
    holds a caption or a list of captions. The pictures stay in the dataset's files until they are
    needed.

    Raises DataError for a dataset that can't be loaded, missing columns and broken rows (counted
    from 0, as in `source[row]`), TypeError for several splits or a stream, and ModuleNotFoundError
    without the package `datasets`.
    """
    reader = Reader(source if isinstance(source, str) else "this dataset")
    table = _one_split(_download(source, split) if isinstance(source, str) else source)
    missing = missing_columns((image, text), table.column_names)
    if missing:
        raise DataError(reader.source, [missing])
    try:
        encoded = _encoded(table, image)
    except Exception as error:  # pyarrow has a type for each way in which a cast can fail
        problem = f"column {image} holds no pictures but {table.features[image]} ({error})"
        raise DataError(reader.source, [problem]) from error
    return reader.dataset(
        reader.pair(
            f"row {row}",
            f"row {row}",
            record[text],
            functools.partial(_open_cell, encoded, image, row),
        )
        for row, record in enumerate(table.select_columns([text]))
    )


def _download(name: str, split: str) -> datasets.Dataset:
    datasets = optional_package("datasets")
    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:  # of the hub, of the network, of the dataset's own files
        problem = (
            f"the split {split!r} can't be loaded: {type(error).__name__}: {error}. If it needs "
            f"more options, call datasets.load_dataset(…) with them, and pass what it returns"
        )
        raise DataError(name, [problem]) from error


def _one_split(source: object) -> datasets.Dataset:
    """`source` without the format that the user gave it. TypeError unless it is one split."""
    datasets = optional_package("datasets")
    if not isinstance(source, datasets.Dataset):
        splits = f" (it has the splits {', '.join(source)})" if isinstance(source, dict) else ""
        raise TypeError(
            f"source is a {type(source).__name__}{splits}; it must be a name on the hub or a "
            f"datasets.Dataset, which is one split and not streamed"
        )
    return source.with_format(None)


def _encoded(table: datasets.Dataset, image: str) -> datasets.Dataset:
    """The column of pictures, not decoded: a broken one must not raise before its row is known."""
    datasets = optional_package("datasets")
    return table.select_columns([image]).cast_column(image, datasets.Image(decode=False))


def _open_cell(encoded: datasets.Dataset, image: str, row: int) -> Image.Image:
    cell = encoded[row][image]
    if cell is None:
        raise ValueError("the cell is empty")
    return open_picture(Path(cell["path"]) if cell["bytes"] is None else cell["bytes"])


def xm3600(language: str = "en") -> PictureDataset:
    """1,000 photographs with captions in one of 36 languages ("en", "ko", …), mostly two or more.

    Crossmodal-3600 (Thapliyal et al. 2022, arXiv:2205.12522), from a copy on the hub that holds
    1,000 of its 3,600 pictures. Downloads the file of this language, once. Raises ValueError for an
    unknown language, DataError if the file can't be loaded, and ModuleNotFoundError without the
    package `datasets`.
    """
    if language not in XM3600_LANGUAGES:
        raise ValueError(f"language {language!r} is not one of {', '.join(XM3600_LANGUAGES)}")
    datasets = optional_package("datasets")
    pattern = f"data/{language}-*.parquet"
    try:
        copy = Path(snapshot_download(XM3600, repo_type="dataset", allow_patterns=pattern))
    except Exception as error:
        problem = (
            f"{pattern} can't be loaded from the Hugging Face hub, and is not in the cache either: "
            f"{type(error).__name__}: {error}"
        )
        raise DataError(XM3600, [problem]) from error
    files = sorted(str(path) for path in copy.glob(pattern))
    if not files:
        raise DataError(XM3600, [f"there is no file {pattern} in {copy}; connect once to load it"])
    dataset = hub_dataset(datasets.Dataset.from_parquet(files), text="captions")
    dataset.credit = XM3600_CREDIT
    return dataset
