"""The form of a promise: what a person does, what comes back, and what is the same afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def _nothing(scene: Any) -> None:
    """Where nothing could change."""


@dataclass(frozen=True)
class Case:
    """One promise.

    `prepare(folder)` makes the scene in an empty folder, and `does(scene)` is the call. Either it
    is refused: an error of the class `refused` (or of one of several), whose message contains each
    of `says`. Or it is accepted, and `holds(scene, result)` is true. `keeps(scene)` gives a value
    that must be the same before and after.
    """

    name: str
    prepare: Callable[[Path], Any]
    does: Callable[[Any], Any]
    refused: type[BaseException] | tuple[type[BaseException], ...] | None = None
    says: tuple[str, ...] = ()
    holds: Callable[[Any, Any], bool] | None = None
    keeps: Callable[[Any], Any] = _nothing

    def __post_init__(self) -> None:
        if (self.refused is None) == (self.holds is None):
            raise ValueError(f"{self.name}: say how it is refused, or what holds when it is not")
        if self.refused is not None and not self.says:
            raise ValueError(f"{self.name}: say which words the message has")


def files_in(folder: Path) -> dict[str, bytes | str]:
    """Everything in a folder, hidden things too: the bytes of files, the targets of links."""
    return {
        str(path.relative_to(folder)): f"→ {path.readlink()}"
        if path.is_symlink()
        else "a folder"
        if path.is_dir()
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }
