"""What the sources of your own pictures (folder, hub, shards) share.

A source opens each picture once, several at a time. So everything that is wrong with it is known,
and reported together, before training starts.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from PIL import Image

from .duplicates import perceptual_hash
from .images import digest
from .pairs import DataError, Pair, PictureDataset, shown

THREADS = 8  # pictures that are opened at a time
AHEAD = 4 * THREADS  # entries that are taken from a source before their turn

LONGEST_CAPTION = 10_000  # characters; CLIP reads some 300 of them

# What programs and people write into an empty cell, in small letters.
FOR_NOTHING = frozenset(
    ("nan", "null", "none", "nil", "na", "n/a", "#n/a", "<na>", "undefined", "-", "--", "–", "—")
)
Seen: TypeAlias = tuple[str, bytes]  # digest and perceptual hash
T = TypeVar("T")

FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and a pattern that are blank


@dataclass(frozen=True)
class Entry:
    """What a source has found, and not yet opened.

    `cell` holds the captions, `load` opens the picture, and `where` begins each problem.
    """

    name: str
    where: str
    cell: object
    load: Callable[[], Image.Image]


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

        A cell holds one text or a list of texts. An empty one of a list is left out. No caption is
        what stands for an empty cell ("nan", "N/A"), has nothing visible, holds control characters
        or half characters, or is longer than LONGEST_CAPTION.
        """
        texts = [cell] if isinstance(cell, str) or cell is None else cell
        if not isinstance(texts, list) or not all(isinstance(text, str | None) for text in texts):
            problem = f"the caption is {cell!r:.60}, neither a text nor a list of texts"
            self.problems.append(f"{where}: {problem}")
            return ()
        captions = tuple(dict.fromkeys(text.strip() for text in texts if text and text.strip()))
        faults = [fault for caption in captions if (fault := _fault(caption))]
        if not captions:
            faults.append("is empty")
        self.problems += [f"{where}: the caption (text) {fault}" for fault in faults]
        return () if faults else captions

    def pairs(self, entries: Iterable[Entry]) -> Iterator[Pair | None]:
        """The pair of each entry, in order, or None if there is a problem.

        Threads open the pictures that come next (Pillow decodes without Python's lock). Problems
        come in the order of the entries all the same: what a source adds on its way to an entry
        stands before the problems of that entry.
        """
        with ThreadPoolExecutor(THREADS) as pool:
            for before, entry, seen in _ahead(self._opening(entries, pool), AHEAD):
                self.problems += before
                if entry is not None and seen is not None:
                    yield self._pair(entry, seen)

    def _opening(
        self, entries: Iterable[Entry], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[list[str], Entry | None, Future[Seen] | None]]:
        """Each entry, while its picture is being opened, with the problems found before it.

        The last one is no entry, and has those found after all of them.
        """
        source = iter(entries)
        while True:
            known = len(self.problems)
            entry = next(source, None)
            before = self.problems[known:]
            del self.problems[known:]
            if entry is None:
                yield before, None, None
                return
            yield before, entry, pool.submit(_look_at, entry.load)

    def _pair(self, entry: Entry, seen: Future[Seen]) -> Pair | None:
        captions = self.captions(entry.where, entry.cell)
        try:
            digest, perceptual_hash = seen.result()
        except FileNotFoundError:
            self.problems.append(f"{entry.where}: there is no such file")
            return None
        except Exception as error:  # Pillow's decoders raise many types for a broken file
            self.problems.append(f"{entry.where}: not a readable picture ({error})")
            return None
        if not captions:
            return None
        return Pair(entry.name, captions, digest, entry.load, perceptual_hash)

    def dataset(self, pairs: Iterable[Pair | None]) -> PictureDataset:
        """The dataset of all pairs. Raises DataError if there was a problem, or no pair."""
        readable = [pair for pair in pairs if pair is not None]
        if not readable and not self.problems:
            self.problems.append("there is nothing in it")
        if self.problems:
            raise DataError(self.source, self.problems)
        return PictureDataset(readable)


def _look_at(load: Callable[[], Image.Image]) -> Seen:
    picture = load()
    return digest(picture), perceptual_hash(picture)


def _ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """The items, `count` of which are taken from their source before their turn."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _fault(caption: str) -> str | None:
    """What is wrong with a caption, if anything."""
    if len(caption) > LONGEST_CAPTION:
        return f"has {len(caption):,} characters; {LONGEST_CAPTION:,} are the most"
    if caption.casefold() in FOR_NOTHING:
        return f"is {caption!r}, which stands for an empty cell; if you mean it, say more"
    # Cc: a control character. Cs: half of a character, which no encoding can hold.
    bad = [c for c in caption if unicodedata.category(c) in ("Cc", "Cs") and not c.isspace()]
    if bad:
        return f"holds {bad[0]!a}, which is no character that can be read"
    if not any(map(_is_visible, caption)):
        return f"has nothing visible, only {caption!a:.60}"
    return None


def _is_visible(character: str) -> bool:
    """Whether it leaves ink: no space, no mark without a letter, no format character, no filler."""
    category = unicodedata.category(character)
    return category != "Cf" and category[0] not in "ZM" and character not in FILLERS


def missing_columns(needed: Sequence[str], present: Iterable[str]) -> str | None:
    """The problem that columns are missing, with the names of those present; None if all are."""
    present = list(present)
    missing = [column for column in needed if column not in present]
    if not missing:
        return None
    has = shown(", ".join(present), 200) or "nothing"
    return f"column {' and '.join(missing)} missing (it has: {has})"
