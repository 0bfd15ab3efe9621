"""Whether a file is still the one that was read before."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from .images import kind_of_file
from .pairs import DataError

Stamp: TypeAlias = tuple[str | None, int, int]


def stamp(path: Path) -> Stamp:
    """What changes when a file does: what it is, its size, and the time of its last change."""
    found = path.stat()
    return kind_of_file(found.st_mode), found.st_size, found.st_mtime_ns


def require_unchanged(path: Path, before: Stamp, again: str) -> None:
    """DataError unless the file has the stamp that it had; `again` says how to read it anew."""
    try:
        if stamp(path) == before:
            return
        change = "was changed"
    except FileNotFoundError:
        change = "was removed"
    except OSError as error:
        change = f"can't be opened any more ({error.strerror})"
    raise DataError(path.parent, [f"{path.name} {change} since it was read; {again}"])
