"""What the sources of your own pictures (folder, hub, shards) share.

A source opens each picture once. So everything that is wrong with it is known, and reported
together, before training starts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

from PIL import Image

from .duplicates import perceptual_hash
from .images import digest
from .pairs import DataError, Pair, PictureDataset


class Reader:
    """Reads the pairs of one source, and collects its problems instead of raising the first one.

    `problems` has a line for each, with file and row; a source appends its own. `source` is how
    DataError names the source.
    """

    def __init__(self, source: str | Path):
        self.source = source
        self.problems: list[str] = []

    def captions(self, where: str, cell: object) -> tuple[str, ...]:
        """The captions in a cell, stripped, each once; none if there is a problem.

        A cell holds one text or a list of texts.
        """
        texts = [cell] if isinstance(cell, str) or cell is None else cell
        if not isinstance(texts, list) or not all(isinstance(text, str | None) for text in texts):
            problem = f"the caption is {cell!r:.60}, neither a text nor a list of texts"
            self.problems.append(f"{where}: {problem}")
            return ()
        captions = tuple(dict.fromkeys(text.strip() for text in texts if text and text.strip()))
        if not captions:
            self.problems.append(f"{where}: the caption (text) is empty")
        return captions

    def pair(
        self, name: str, where: str, cell: object, load: Callable[[], Image.Image]
    ) -> Pair | None:
        """The pair called `name`, or None if there is a problem.

        `cell` holds its captions, `load` opens its picture, and `where` begins each problem.
        """
        captions = self.captions(where, cell)
        try:
            picture = load()
        except FileNotFoundError:
            self.problems.append(f"{where}: there is no such file")
            return None
        except Exception as error:  # Pillow's decoders raise many types for a broken file
            self.problems.append(f"{where}: not a readable picture ({error})")
            return None
        if not captions:
            return None
        return Pair(name, captions, digest(picture), load, perceptual_hash(picture))

    def dataset(self, pairs: Iterable[Pair | None]) -> PictureDataset:
        """The dataset of all pairs. Raises DataError if there was a problem, or no pair."""
        readable = [pair for pair in pairs if pair is not None]
        if not readable and not self.problems:
            self.problems.append("there is nothing in it")
        if self.problems:
            raise DataError(self.source, self.problems)
        return PictureDataset(readable)


def missing_columns(needed: Sequence[str], present: Iterable[str]) -> str | None:
    """The problem that columns are missing, with the names of those present; None if all are."""
    present = list(present)
    missing = [column for column in needed if column not in present]
    if not missing:
        return None
    return f"column {' and '.join(missing)} missing (it has: {', '.join(present) or 'nothing'})"


def optional_package(name: str) -> ModuleType:
    """Import a package that only some sources need. ModuleNotFoundError says how to install it."""
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
