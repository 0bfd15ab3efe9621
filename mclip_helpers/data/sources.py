"""Your own pictures as a dataset: a folder, a Hugging Face dataset, WebDataset shards.

Every source opens each picture once, so that all that is wrong is known before training starts:
DataError lists it, each line with file and row. What a source gives is a `PictureDataset`, and runs
wherever the emoji run.
"""

from __future__ import annotations

import csv
import functools
import importlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from huggingface_hub import snapshot_download
from PIL import Image

from .images import digest, look, open_picture
from .pairs import DataError, Pair, PictureDataset

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


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(
            f"this source needs the Python package {name!r}, which is not installed; "
            f"run: pip install {name}",
            name=name,
        ) from error


def _captions(value: object) -> tuple[str, ...]:
    """The captions in a cell that holds one or a list of them, each once, without outer spaces."""
    texts = [value] if isinstance(value, str) or value is None else value
    if not isinstance(texts, list) or not all(isinstance(text, str | None) for text in texts):
        raise TypeError(f"the caption is {value!r:.60}, neither a text nor a list of texts")
    found = tuple(dict.fromkeys(text.strip() for text in texts if text and text.strip()))
    if not found:
        raise ValueError("the caption (text) is empty")
    return found


def _pair(
    name: str,
    where: str,
    captions: object,
    load: Callable[[], Image.Image],
    problems: list[str],
    known: Pair | None = None,
) -> Pair | None:
    """The pair of one picture, or None and what is wrong with it, each line beginning `where`.

    `known`: what is already known of the same picture, which gets these captions as well.
    """
    before = len(problems)
    try:
        captions = _captions(captions)
    except (TypeError, ValueError) as error:
        problems.append(f"{where}: {error}")
    if known is None:
        try:
            picture = load()
        except FileNotFoundError:
            problems.append(f"{where}: there is no such file")
        except Exception as error:  # Pillow's decoders raise many types for a broken file
            problems.append(f"{where}: not a readable picture ({error})")
    if len(problems) > before:
        return None
    if known is not None:
        return replace(known, captions=tuple(dict.fromkeys(known.captions + captions)))
    return Pair(name, captions, digest(picture), load, look(picture))


def _dataset(
    where: str | Path, pairs: Iterable[Pair | None], problems: Sequence[str]
) -> PictureDataset:
    pairs = list(pairs)
    if not problems and not pairs:
        problems = ["there is nothing in it"]
    if problems:
        raise DataError(where, problems)
    return PictureDataset(pairs)


# ------------------------------------------------------------------------------------------ folder


def folder_dataset(folder: str | Path) -> PictureDataset:
    """Your own pictures: a folder with `metadata.csv` or `metadata.jsonl`.

    The metadata has the columns `file_name` (relative to the folder) and `text`: the *imagefolder*
    convention of Hugging Face datasets. Rows with the same `file_name` are one picture with several
    captions; in a .jsonl, `text` may be a list of them. DataError lists all that is wrong.
    """
    folder = Path(folder)
    metadata = _metadata_file(folder)
    problems, listed = [], set()
    pairs: dict[Path, Pair] = {}
    for row, record in _read_metadata(metadata, problems):
        where = f"{metadata.name}, row {row}"
        file_name = record.get("file_name")
        if not isinstance(file_name, str) or not file_name.strip():
            problems.append(f"{where}: file_name is empty")
            continue
        path = folder / file_name
        listed.add(path.resolve())
        known = pairs.get(path)
        load = functools.partial(open_picture, path)
        pair = _pair(file_name, f"{where}: {file_name}", record.get("text"), load, problems, known)
        if pair is not None:
            pairs[path] = pair
    for path in sorted(folder.rglob("*")) if listed else ():
        if path.suffix.lower() in Image.registered_extensions() and path.resolve() not in listed:
            name = path.relative_to(folder)
            problems.append(f"{name}: this picture has no row in {metadata.name}")
    if not problems and not pairs:
        problems.append(f"{metadata.name} has no rows")
    return _dataset(folder, pairs.values(), problems)


def _metadata_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(folder, ["this folder does not exist"])
    found = [folder / f"metadata.{kind}" for kind in ("csv", "jsonl")]
    found = [path for path in found if path.exists()]
    if len(found) != 1:
        wrong = "both metadata.csv and metadata.jsonl are" if found else "no metadata file is"
        raise DataError(
            folder, [f"{wrong} here; exactly one of metadata.csv, metadata.jsonl must be"]
        )
    return found[0]


def _read_metadata(path: Path, problems: list[str]) -> Iterator[tuple[int, dict]]:
    """Yield `(row, record)`; rows count from 1, as a person counts them below a CSV's header."""
    needed = ("file_name", "text")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(f"{path.name} is not in UTF-8; save it in that encoding ({error})")
        return
    if path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        missing = [column for column in needed if column not in (reader.fieldnames or [])]
        if missing:
            has = ", ".join(reader.fieldnames or []) or "nothing"
            problems.append(f"{path.name}: column {' and '.join(missing)} missing (it has: {has})")
            return
        for row, record in enumerate(reader, start=1):
            if None in record:  # where DictReader puts the cells that have no column
                problems.append(
                    f"{path.name}, row {row}: more cells than columns; "
                    f'a caption with a comma needs quotes, "like, this"'
                )
            yield row, record
        return
    # Not splitlines, which also splits at characters that may stand inside a JSON string.
    for row, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(f"{path.name}, row {row}: not valid JSON ({error})")
            continue
        missing = [key for key in needed if not isinstance(record, dict) or key not in record]
        if missing:
            problems.append(f"{path.name}, row {row}: {' and '.join(missing)} missing")
            continue
        yield row, record


# -------------------------------------------------------------------------- a Hugging Face dataset


def hub_dataset(
    source: str | datasets.Dataset, image: str = "image", text: str = "text", split: str = "train"
) -> PictureDataset:
    """A Hugging Face dataset with a column of pictures and a column of captions.

    `source` is a name on the hub ("owner/name"; all its splits are downloaded, and `split` is
    taken), or a `datasets.Dataset` that you loaded yourself, with whatever options it needed. The
    cells of `text` hold a caption or a list of captions. Pictures stay in the dataset, which reads
    them from its file when they are wanted.

    Raises DataError for a dataset that can't be had, missing columns, and broken rows (counted from
    0, as in `source[row]`); ModuleNotFoundError without the package `datasets`.
    """
    datasets = _package("datasets")
    where = source if isinstance(source, str) else "this dataset"
    if isinstance(source, str):
        try:
            source = datasets.load_dataset(source, split=split)
        except Exception as error:  # of the hub, of the network, of the dataset's own files
            raise DataError(
                where,
                [
                    f"the split {split!r} can't be loaded: {type(error).__name__}: {error}. If it "
                    f"needs more options, pass what datasets.load_dataset(…) gives with them"
                ],
            ) from error
    if not isinstance(source, datasets.Dataset):
        parts = f" (it has the splits {', '.join(source)})" if isinstance(source, dict) else ""
        raise TypeError(
            f"source is a {type(source).__name__}{parts}; it must be a name on the hub or a "
            f"datasets.Dataset, which is one split and not streamed"
        )
    missing = [column for column in (image, text) if column not in source.column_names]
    if missing:
        has = ", ".join(source.column_names) or "nothing"
        raise DataError(where, [f"column {' and '.join(missing)} missing (it has: {has})"])
    plain = source.with_format(None)
    try:
        # Not decoded: a broken picture is to be reported with its row, and not raised on the way.
        encoded = plain.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    except Exception as error:  # pyarrow has a type for each way in which a cast can fail
        kind = source.features[image]
        raise DataError(
            where, [f"column {image} holds no pictures but {kind} ({error})"]
        ) from error
    problems: list[str] = []
    pairs = [
        _pair(
            f"row {row}",
            f"row {row}",
            record[text],
            functools.partial(_open_cell, encoded, image, row),
            problems,
        )
        for row, record in enumerate(plain.select_columns([text]))
    ]
    return _dataset(where, pairs, problems)


def _open_cell(encoded: datasets.Dataset, image: str, row: int) -> Image.Image:
    cell = encoded[row][image]
    if cell is None:
        raise ValueError("the cell is empty")
    return open_picture(Path(cell["path"]) if cell["bytes"] is None else cell["bytes"])


def xm3600(language: str = "en") -> PictureDataset:
    """Real photographs with captions in any of 36 languages ("en", "ko", …), usually two or more.

    Crossmodal-3600 (Thapliyal et al. 2022, arXiv:2205.12522), of which a copy on the hub holds
    1,000 pictures. Only this language's file is downloaded, once. ValueError for another language,
    DataError where the file can't be had, ModuleNotFoundError without the package `datasets`.
    """
    if language not in XM3600_LANGUAGES:
        raise ValueError(f"language {language!r} is not one of {', '.join(XM3600_LANGUAGES)}")
    datasets = _package("datasets")
    pattern = f"data/{language}-*.parquet"
    try:
        copy = Path(snapshot_download(XM3600, repo_type="dataset", allow_patterns=pattern))
    except Exception as error:
        raise DataError(
            XM3600,
            [
                f"{pattern} can't be loaded from the Hugging Face hub, and is not in the cache "
                f"either: {type(error).__name__}: {error}"
            ],
        ) from error
    files = sorted(str(path) for path in copy.glob(pattern))
    if not files:
        raise DataError(XM3600, [f"there is no file {pattern} in {copy}; connect once to load it"])
    found = hub_dataset(datasets.Dataset.from_parquet(files), image="image", text="captions")
    found.credit = XM3600_CREDIT
    return found


# ---------------------------------------------------------------------------------------- shards


def shard_dataset(
    shards: str | Path | Sequence[str | Path],
    image: Sequence[str] = ("jpg", "jpeg", "png", "webp"),
    text: Sequence[str] = ("txt", "caption", "text"),
) -> PictureDataset:
    """WebDataset shards: tar files in which the files of one sample share the start of their name.

    `shards` is a path, a pattern with braces ("train-{000..012}.tar"), or a list of either. Of each
    sample the first file whose ending is in `image` is the picture, and the first whose ending is
    in `text` the caption; where there is none, the sample's .json has it under one of these names,
    as a text or as a list of texts.

    The files are read once, from first to last, and the pictures are held in memory as they are
    encoded there: as many bytes as the shards have, and again for each worker where the system
    starts workers afresh (Windows, macOS). DataError lists what is wrong by shard and sample;
    ModuleNotFoundError without the package `webdataset`.
    """
    _package("webdataset")
    problems: list[str] = []
    pairs = []
    for shard in _shard_paths(shards):
        try:
            _check_whole(shard)
            for sample in _samples(shard):
                pairs.append(_sample_pair(sample, shard, image, text, problems))
        except FileNotFoundError:
            problems.append(f"{shard}: there is no such file")
        except Exception as error:  # tarfile and the decompressors have a type for each defect
            problems.append(f"{shard}: not a readable shard ({_first_line(error)})")
    where = ", ".join(map(str, shards)) if isinstance(shards, list | tuple) else shards
    return _dataset(where, pairs, problems)


def _shard_paths(shards: str | Path | Sequence[str | Path]) -> list[Path]:
    from braceexpand import braceexpand  # of webdataset

    patterns = [shards] if isinstance(shards, str | Path) else shards
    return [Path(path) for p in patterns for path in braceexpand(str(p), escape=False)]


def _first_line(error: Exception) -> str:
    """What the error says, without the streams that webdataset adds to its arguments."""
    said = str(error.args[0] if error.args and isinstance(error.args[0], str) else error)
    return said.partition("\n")[0] or type(error).__name__


def _check_whole(shard: Path) -> None:
    """Raise ReadError unless the archive ends with its mark.

    Without this, reading would end quietly at a damaged header, as if the archive ended there.
    """
    with tarfile.open(shard) as archive:
        archive.getmembers()
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no end mark after {len(archive.getmembers())} files")


def _samples(shard: Path) -> Iterator[dict]:
    # Opened here and not by webdataset, for which a name may also be a command to run ("pipe:…").
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with open(shard, "rb") as stream:
        yield from group_by_keys(tar_file_expander([{"url": str(shard), "stream": stream}]))


def _sample_pair(
    sample: dict, shard: Path, image: Sequence[str], text: Sequence[str], problems: list[str]
) -> Pair | None:
    key = sample["__key__"]
    where = f"{shard.name}, sample {key}"
    endings = [ending for ending in sample if not ending.startswith("__")]
    picture = next((sample[ending] for ending in image if ending in sample), None)
    if picture is None:
        has, wanted = ", ".join(endings), ", ".join(image)
        problems.append(f"{where}: no picture (it has {has}; a picture would be one of {wanted})")
        return None
    try:
        captions = _text_of(sample, text)
    except ValueError as error:  # not UTF-8, or not JSON
        problems.append(f"{where}: the caption can't be read ({error})")
        return None
    load = functools.partial(open_picture, picture)
    return _pair(f"{shard.name}/{key}", where, captions, load, problems)


def _text_of(sample: dict, names: Sequence[str]) -> object:
    for name in names:
        if name in sample:
            return sample[name].decode("utf-8-sig")
    fields = json.loads(sample.get("json", b"{}"))
    if not isinstance(fields, dict):
        raise ValueError("the .json holds no object, {…}")
    return next((fields[name] for name in names if name in fields), None)
