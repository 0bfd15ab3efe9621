"""Files: those that the project brings along, and how new ones are written.

A writer here replaces what the package wrote itself, and nothing else; and it does so as a whole.
Until the new file or folder is complete, the old one stands; a process that is killed at the worst
moment leaves the old one beside its place, and `settle` puts it back.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

# What a path is called, hidden beside its place, while it is written or replaced.
NEW, OLD = "mclip-new", "mclip-old"


class ImpossibleName(OSError):
    """No file can have this name: it holds a zero, or half of a character."""


def data_folder() -> Path:
    """Where the project's own files are: `data/` in the repository, or in the installed package.

    They are `nano`, its architecture, and an adapter for it.
    """
    installed = Path(__file__).parent / "_data"
    return installed if installed.exists() else Path(__file__).parent.parent / "data"


def replace(
    path: str | Path, write: Callable[[Path], None], refuse: Callable[[Path], None]
) -> Path:
    """Let `write(place)` make a file or a folder, and put it at `path`. Returns its real path.

    If something is at `path`, `refuse(path)` is asked before anything is written: it raises
    FileExistsError unless the package wrote it. A symbolic link stays, and what it points to is
    replaced. OSError, in one sentence, where it can't be written. Whatever fails, and also after
    Ctrl-C, what was there before is there again, and nothing else is.
    """
    with _one_sentence(path):
        path = _ready(path, refuse)
        new, old = _beside(path, NEW), _beside(path, OLD)
        try:
            write(new)
            _to_disk(new)
            if new.is_dir() and path.exists():  # a folder can't take the place of another at once
                path.rename(old)
            new.replace(path)
        finally:
            settle(path)
            _remove(new)
    return path


def under_key(
    folder: str | Path, name: str, parts: Iterable[str], write: Callable[[Path], None]
) -> Path:
    """The file in `folder` for what `parts` decide: `name` with their hash in the place of {key}.

    If there is none, `write(place)` makes it. OSError as of `replace`.
    """
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    path = Path(folder) / name.format(key=key)
    if not path.exists():
        replace(path, write, lambda same: None)  # who has written it meanwhile, wrote the same
    return path


def require_place(path: str | Path, refuse: Callable[[Path], None]) -> Path:
    """Raise now what `replace` would raise later. Returns the real path.

    For what is written after hours of work. Makes the folders that are missing on the way there.
    """
    with _one_sentence(path):
        path = _ready(path, refuse)
        new = _beside(path, NEW)
        try:
            new.touch()
        finally:
            _remove(new)
    return path


def _ready(path: str | Path, refuse: Callable[[Path], None]) -> Path:
    """The real path, after all that comes before writing there."""
    path = resolved(path)
    settle(path)
    if path.exists():
        refuse(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(_beside(path, NEW))
    return path


def settle(path: Path) -> None:
    """Finish or undo a replacement that was cut short: `path` is then the old one or the new one.

    Every reader and writer of a folder calls it first.
    """
    old = _beside(path, OLD)
    if not old.exists():
        return
    if path.exists():
        _remove(old)
    else:
        old.rename(path)


def resolved(path: str | Path) -> Path:
    """The absolute path without symbolic links. OSError if they form a circle, or it can't be one.

    TypeError if `path` is neither a text nor a Path.
    """
    if not isinstance(path, str | Path):
        raise TypeError(f"path is {path!r} (a {type(path).__name__}); it must be a text or a Path")
    try:
        real = Path(path).resolve()
        circle = real.is_symlink()
    except RuntimeError:  # what Python 3.12 and older raise for a circle
        circle = True
    except ValueError as error:
        raise ImpossibleName(f"{path!r} can't be a path: {error}") from error
    if circle:
        raise OSError(f"{path} is a symbolic link that leads back to itself")
    if not real.name:
        raise OSError(f"{path} is the root of all folders")
    return real


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file anywhere in `folder`, by its path relative to it."""
    return {
        path.relative_to(folder).as_posix(): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


def file_hash(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def foreign(folder: Path, written: Mapping[str, str]) -> list[str]:
    """What is in `folder` and not as `written` (`hashes`) has it: other files, changed ones.

    Other things, too: links, pipes, and empty folders.
    """

    def known(path: Path, name: str) -> bool:
        if path.is_symlink():
            return False
        if path.is_dir():
            return any(path.iterdir())
        return path.is_file() and name in written and file_hash(path) == written[name]

    inside = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return [name for name, path in inside.items() if not known(path, name)]


def notes_hash(notes: Mapping[str, Any]) -> str:
    """The SHA-256 of what `notes` about a folder say, without the one that they end with."""
    said = {key: value for key, value in notes.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def some_of(names: Sequence[str]) -> str:
    """The first five of `names` in a sentence, and how many more there are."""
    shown = [name if name.isprintable() else repr(name) for name in names[:5]]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{suffix}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until a file, or each file of a folder, is on the disk."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            with open(file, "r+b") as stream:
                os.fsync(stream.fileno())


@contextmanager
def _one_sentence(path: str | Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        if error.errno is None:  # from `refuse`, which has said all
            raise
        raise _not_written(path, error) from error
    except (OSError, SafetensorError) as error:
        raise _not_written(path, error) from error


def _not_written(path: str | Path, error: Exception) -> OSError:
    why = getattr(error, "strerror", None) or error
    return OSError(
        f"{path} can't be written ({why}). What was there before is unchanged; free some space, or "
        f"take a path that you may write to"
    )
