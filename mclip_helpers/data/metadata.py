"""The metadata of a folder of pictures: a .csv or a .jsonl with `file_name` and `text`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .pairs import DataError
from .reader import missing_columns

COLUMNS = ("file_name", "text")

# How files begin that are taken for a CSV.
OTHER_FILES = {
    b"PK\x03\x04": "an Excel, Numbers or LibreOffice file, or another ZIP",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"\x1f\x8b": "compressed by gzip",
    b"%PDF": "a PDF",
    b"{\\rtf": "formatted text (RTF)",
    b"PAR1": "a Parquet file",
}
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Row:
    """One row. They count from 1, and those of a CSV from below its header.

    `record` is what it says by column, names in small letters; None if that can't be known. `fault`
    is what is wrong with its form, if anything.
    """

    number: int
    record: dict[str, object] | None
    fault: str | None = None


def read_metadata(path: Path) -> list[Row]:
    """All rows of a `metadata.csv` or `metadata.jsonl`, at least one, and what is wrong with each.

    DataError if the file as a whole is of another kind, or lacks a column.
    """
    rows = _csv_rows if path.suffix == ".csv" else _jsonl_rows
    try:
        found = list(rows(_text(path.read_bytes())))
        if not found:
            raise ValueError("it has no rows")
    except OSError as error:
        raise DataError(
            path.parent, [f"{path.name}: it can't be read ({error.strerror})"]
        ) from error
    except ValueError as error:
        raise DataError(path.parent, [f"{path.name}: {error}"]) from error
    return found


def _text(data: bytes) -> str:
    """The text in the bytes of a file. ValueError says what it is, if it is none in UTF-8."""
    for start, kind in OTHER_FILES.items():
        if data.startswith(start):
            raise ValueError(f"it is {kind}; export it as CSV in UTF-8")
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise ValueError("it is HTML or XML; export it as CSV in UTF-8")
    if data.startswith(UTF_16) or data[:200].count(0) > len(data[:200]) // 4:
        raise ValueError("it is in UTF-16, and not in UTF-8; save it in that encoding")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"it is not in UTF-8 (in line {line}: {error.reason}); save it in that encoding"
        ) from error


def _column(name: str) -> str:
    return name.strip("\ufeff \t\r\n").lower()


def _csv_rows(text: str) -> Iterator[Row]:
    records = _csv_records(text)
    header = next(records, [])
    if isinstance(header, str):
        raise ValueError(f"in its header, {header}")
    columns = [_column(cell) for cell in header]
    for separator, word in SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            raise ValueError(f"its cells are separated by {word}; save it with commas")
    if missing := missing_columns(COLUMNS, columns):
        raise ValueError(missing)
    if twice := [name for name in COLUMNS if columns.count(name) > 1]:
        raise ValueError(f"its header has the column {' and '.join(twice)} more than once")
    for number, cells in enumerate(records, start=1):
        if isinstance(cells, str):
            yield Row(number, None, cells)
        else:
            many = 'more cells than columns; a caption with a comma needs quotes, "like, this"'
            record: dict[str, object] = dict(zip(columns, cells, strict=False))
            yield Row(number, record, many if len(cells) > len(columns) else None)


def _csv_records(text: str) -> Iterator[list[str] | str]:
    """The cells of each record of a CSV that is not blank, or what is wrong with it."""
    records: list[list[str] | str] = []
    limit = csv.field_size_limit(max(1, len(text)))  # else one long cell would end the reading
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
        while True:
            first = reader.line_num + 1
            try:
                records.append(next(reader))
            except StopIteration:
                break
            except csv.Error:
                lines = (
                    f"line {first} is"
                    if reader.line_num == first
                    else (f"lines {first} to {reader.line_num} are")
                )
                records.append(
                    f"a quote is not closed where its cell ends, so {lines} lost; a quote inside a "
                    f'caption must stand twice, "like ""this"""'
                )
    finally:
        csv.field_size_limit(limit)
    return (record for record in records if record)


def _jsonl_rows(text: str) -> Iterator[Row]:
    if text.lstrip().startswith("["):
        raise ValueError("it is one JSON array; write each object, {…}, on a line of its own")
    if text.lstrip().partition("\n")[0].strip() == "{":
        raise ValueError("an object goes over several lines; write each on a line of its own")
    # Not splitlines, which also splits at characters that may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            yield Row(number, None, f"not valid JSON ({error})")
            continue
        missing = [key for key in COLUMNS if not isinstance(record, dict) or key not in record]
        if missing:
            yield Row(number, None, f"{' and '.join(missing)} missing")
        else:
            yield Row(number, record)


def _object(items: list[tuple[str, object]]) -> dict[str, object]:
    record = {_column(name): value for name, value in items}
    if len(record) < len(items):
        raise ValueError("it has a key more than once")
    return record
