"""A Hugging Face dataset, your own or one on the hub; and Crossmodal-3600, which is one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants as hub_constants
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id
from PIL import Image

from ..network import hub_or_cache
from ..packages import optional_package
from ..progress_bar import progress_bar
from .images import open_picture
from .pairs import DataError, PictureDataset
from .reader import Entry, Reader, missing_columns

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
    needed. A cell may also name a file: any in a dataset of your own, but in one from the hub only
    those that came with it.

    Raises TypeError and ValueError for other arguments than these, several splits or a stream,
    DataError for a dataset that can't be loaded, missing columns and broken rows (counted from 0,
    as in `source[row]`), and ModuleNotFoundError without the package `datasets`.
    """
    for name, value in (("image", image), ("text", text), ("split", split)):
        if not isinstance(value, str) or not value:
            raise TypeError(
                f"{name} is {value!r:.60}; it must be the name of one of those there are"
            )
    if isinstance(source, str):
        return _read(_download(source, split), image, text, source, _from_hub)
    return _read(_one_split(source), image, text, "this dataset", _from_anywhere)


def _read(
    table: datasets.Dataset, image: str, text: str, name: str, allowed: Callable[[Path], bool]
) -> PictureDataset:
    """All pairs of a table. Its cells may name those files that are `allowed`."""
    reader = Reader(name)
    missing = missing_columns((image, text), table.column_names)
    if missing:
        raise DataError(name, [missing])
    try:
        encoded = _encoded(table, image)
    except Exception as error:  # pyarrow has a type for each way in which a cast can fail
        problem = f"column {image} holds no pictures but {table.features[image]} ({error})"
        raise DataError(name, [problem]) from error
    entries = (
        Entry(
            f"row {row}",
            f"row {row}",
            record[text],
            functools.partial(_open_cell, encoded, image, row, allowed),
        )
        for row, record in enumerate(table.select_columns([text]))
    )
    pairs = reader.pairs(entries)
    return reader.dataset(progress_bar(pairs, f"Reading {name}", "pictures", total=len(table)))


def _from_anywhere(path: Path) -> bool:
    """A dataset that the user loaded may name any file."""
    return True


def _from_hub(path: Path) -> bool:
    """Whether a file is in the caches of the hub: a dataset must not reach for others."""
    from datasets import config

    caches = (
        hub_constants.HF_HUB_CACHE,
        config.HF_DATASETS_CACHE,
        config.DOWNLOADED_DATASETS_PATH,
        config.EXTRACTED_DATASETS_PATH,
    )
    return any(path.resolve().is_relative_to(Path(cache).resolve()) for cache in caches)


def _download(name: str, split: str) -> datasets.Dataset:
    datasets = optional_package("datasets")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(
            f"{name!r:.200} is no name on the hub, which is 'owner/name'; for a folder of pictures "
            f"there is mh.folder_dataset(…), for other files datasets.load_dataset(…), whose "
            f"result can be passed"
        ) from error
    if Path(name).exists():
        raise ValueError(
            f"{name!r} is a folder here, and would be taken for the dataset of this name on the "
            f"hub; mh.folder_dataset(…) reads a folder"
        )
    try:
        with hub_or_cache(name, "README.md", "dataset") as unreachable:
            return datasets.load_dataset(name, split=split)
    except (ConnectionError, LocalEntryNotFoundError) as error:
        problem = (
            f"it is not in the cache {datasets.config.HF_DATASETS_CACHE}, and the hub can't be "
            f"reached from here ({unreachable or error}). Load it once with a network; offline, "
            f"your own pictures work (mh.folder_dataset, mh.shard_dataset)"
        )
        raise DataError(name, [problem]) from error
    except Exception as error:  # of the hub, and of the dataset's own files
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


def _open_cell(
    encoded: datasets.Dataset, image: str, row: int, allowed: Callable[[Path], bool]
) -> Image.Image:
    cell: dict[str, Any] | None = encoded[row][image]
    if cell is None or (cell["bytes"] is None and cell["path"] is None):
        raise ValueError("the cell is empty")
    if cell["bytes"] is not None:
        return open_picture(cell["bytes"])
    if not allowed(Path(cell["path"])):
        raise ValueError(f"it is the file {cell['path']!r:.200}, which did not come with it")
    return open_picture(Path(cell["path"]))


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
        with hub_or_cache(XM3600, "README.md", "dataset") as unreachable:
            copy = Path(snapshot_download(XM3600, repo_type="dataset", allow_patterns=pattern))
    except (ConnectionError, LocalEntryNotFoundError) as error:
        problem = (
            f"{pattern} is not in the cache {hub_constants.HF_HUB_CACHE}, and the hub can't be "
            f"reached from here ({unreachable or error}). Load it once with a network"
        )
        raise DataError(XM3600, [problem]) from error
    except Exception as error:
        problem = f"{pattern} can't be loaded from the hub: {type(error).__name__}: {error}"
        raise DataError(XM3600, [problem]) from error
    files = sorted(str(path) for path in copy.glob(pattern))
    if not files:
        raise DataError(XM3600, [f"there is no file {pattern} in {copy}; connect once to load it"])
    table = datasets.Dataset.from_parquet(files)
    pairs = _read(table, "image", "captions", XM3600, _from_hub).pairs
    return PictureDataset(pairs, XM3600_CREDIT)
