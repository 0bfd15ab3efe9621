"""Your own pictures in a folder, with a metadata file beside them."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from PIL import Image

from .images import open_picture
from .pairs import DataError, Pair, PictureDataset
from .reader import Reader, missing_columns

METADATA_FILES = ("metadata.csv", "metadata.jsonl")
COLUMNS = ("file_name", "text")


def folder_dataset(folder: str | Path) -> PictureDataset:
    """Your own pictures: a folder with `metadata.csv` or `metadata.jsonl`.

    The metadata has the columns `file_name` (relative to the folder) and `text`: the *imagefolder*
    convention of Hugging Face datasets. Rows with the same `file_name` are one picture with several
    captions; in a .jsonl, `text` may be a list of them. Raises DataError with every problem, each
    with file and row; a picture without a row is one of them.
    """
    folder = Path(folder)
    metadata = _metadata_file(folder)
    reader = Reader(folder)
    pairs: dict[Path, Pair] = {}
    listed = set()
    for row, record in _rows(metadata, reader.problems):
        where = f"{metadata.name}, row {row}"
        file_name, text = record.get("file_name"), record.get("text")
        if not isinstance(file_name, str) or not file_name.strip():
            reader.problems.append(f"{where}: file_name is empty")
            continue
        path, where = folder / file_name, f"{where}: {file_name}"
        listed.add(path.resolve())
        if path in pairs:
            captions = pairs[path].captions + reader.captions(where, text)
            pairs[path] = replace(pairs[path], captions=tuple(dict.fromkeys(captions)))
        elif pair := reader.pair(file_name, where, text, functools.partial(open_picture, path)):
            pairs[path] = pair
    if listed:
        reader.problems += [
            f"{path.relative_to(folder)}: this picture has no row in {metadata.name}"
            for path in _other_pictures(folder, listed)
        ]
    elif not reader.problems:
        reader.problems.append(f"{metadata.name} has no rows")
    return reader.dataset(pairs.values())


def _metadata_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(folder, ["this folder does not exist"])
    existing = [folder / name for name in METADATA_FILES if (folder / name).exists()]
    if not existing:
        raise DataError(folder, [f"there is no metadata file: {' or '.join(METADATA_FILES)}"])
    if len(existing) > 1:
        raise DataError(folder, [f"both {' and '.join(METADATA_FILES)} are here; keep one of them"])
    return existing[0]


def _other_pictures(folder: Path, listed: Collection[Path]) -> Iterator[Path]:
    """The pictures anywhere in `folder`, by their suffix, that are not `listed`, sorted."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in Image.registered_extensions() and path.resolve() not in listed:
            yield path


def _rows(metadata: Path, problems: list[str]) -> Iterator[tuple[int, dict]]:
    """Yield (row, record). Rows count from 1, and those of a CSV from below its header."""
    try:
        text = metadata.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(f"{metadata.name} is not in UTF-8; save it in that encoding ({error})")
        return
    rows = _csv_rows if metadata.suffix == ".csv" else _jsonl_rows
    yield from rows(text, metadata.name, problems)


def _csv_rows(text: str, name: str, problems: list[str]) -> Iterator[tuple[int, dict]]:
    table = csv.DictReader(io.StringIO(text, newline=""))
    missing = missing_columns(COLUMNS, table.fieldnames or ())
    if missing:
        problems.append(f"{name}: {missing}")
        return
    for row, record in enumerate(table, start=1):
        if None in record:  # where DictReader puts the cells beyond the last column
            problems.append(
                f"{name}, row {row}: more cells than columns; "
                f'a caption with a comma needs quotes, "like, this"'
            )
        yield row, record


def _jsonl_rows(text: str, name: str, problems: list[str]) -> Iterator[tuple[int, dict]]:
    # Not splitlines, which also splits at characters that may stand inside a JSON string.
    for row, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(f"{name}, row {row}: not valid JSON ({error})")
            continue
        missing = [key for key in COLUMNS if not isinstance(record, dict) or key not in record]
        if missing:
            problems.append(f"{name}, row {row}: {' and '.join(missing)} missing")
            continue
        yield row, record
