"""Where the learner stands: one file on this machine, and nothing in it about a person.

The file is `runs/progress.json` in the folder of the project (where the package is installed
without it: in the current folder), or what the environment variable MCLIP_PROGRESS names. For each
exercise it counts what checks found: which kind, which known mistake, how often, and on which days
first and last. Answers are not in it, nor names, nor the time of day.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from .. import files
from .findings import Kind

VERSION = 1
WAIT = 2.0  # seconds for another notebook that writes at this moment


@dataclass(frozen=True)
class Record:
    """So many checks of one exercise found the same. Days are in ISO form: "2026-11-27"."""

    exercise: str
    kind: str
    mistake: str
    count: int
    first: str
    last: str


class DamagedRecords(ValueError):
    """A file that holds no records."""


def path() -> Path:
    """Where the file is, or will be."""
    chosen = os.environ.get("MCLIP_PROGRESS")
    if chosen:
        return Path(chosen)
    project = Path(__file__).parents[2]
    home = project if (project / "notebooks").is_dir() else Path.cwd()
    return home / "runs" / "progress.json"


def read(file: Path | None = None) -> list[Record]:
    """The records of a file; none if there is no file.

    DamagedRecords if it holds something else, OSError if it can't be read.
    """
    file = path() if file is None else file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        rows = content["checks"]
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}")
        return [_record(row) for row in rows]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedRecords(f"{file} holds no records of exercises ({error})") from error


def note(exercise: str, kind: Kind, mistake: str = "") -> str:
    """Count one more check. Returns "" or, in a sentence, why it could not be written down.

    A damaged file is put aside under another name, and a new one begun.
    """
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock"), timeout=WAIT):
            try:
                records, aside = read(file), ""
            except DamagedRecords:
                records, aside = [], _put_aside(file)
            _write(file, _counted(records, exercise, kind.value, mistake))
    except Timeout:
        return f"another notebook holds {file}; check again to have it counted."
    except OSError as error:
        return f"{error}"
    return f"{file.name} was damaged; it is now {aside}, and a new one has begun." if aside else ""


def _counted(records: list[Record], exercise: str, kind: str, mistake: str) -> list[Record]:
    """The records with one check more."""
    today = datetime.date.today().isoformat()
    key = (exercise, kind, mistake)
    known = {(r.exercise, r.kind, r.mistake): r for r in records}
    old = known.get(key, Record(*key, 0, today, today))
    known[key] = Record(*key, old.count + 1, old.first, today)
    return [known[k] for k in sorted(known)]


def _write(file: Path, records: Sequence[Record]) -> None:
    content = {"version": VERSION, "checks": [asdict(record) for record in records]}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    files.replace(file, _writer(text), refuse=lambda _: None)


def _writer(text: str) -> Callable[[Path], None]:
    def write(place: Path) -> None:
        place.write_text(text, encoding="utf-8")

    return write


def _put_aside(file: Path) -> str:
    """Rename a damaged file to the first free name; returns that name."""
    number = 1
    while (new := file.with_name(f"{file.stem}-damaged-{number}{file.suffix}")).exists():
        number += 1
    file.rename(new)
    return new.name


def _record(row: dict) -> Record:
    record = Record(**row)
    texts = (record.exercise, record.kind, record.mistake, record.first, record.last)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"a record is {row!r:.80}")
    if isinstance(record.count, bool) or not isinstance(record.count, int) or record.count < 1:
        raise ValueError(f"a count is {record.count!r:.80}")
    return record
