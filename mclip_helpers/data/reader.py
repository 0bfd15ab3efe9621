"""What the sources of your own pictures (folder, hub, shards) share.

A source opens each picture once. So everything that is wrong with it is known, and reported
together, before training starts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image

from .duplicates import perceptual_hash
from .images import digest
from .pairs import DataError, Pair, PictureDataset, shown

LONGEST_CAPTION = 10_000  # characters; CLIP reads some 300 of them

# What programs and people write into an empty cell, in small letters.
FOR_NOTHING = frozenset(
    ("nan", "null", "none", "nil", "na", "n/a", "#n/a", "<na>", "undefined", "-", "--", "–", "—")
)
FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and a pattern that are blank


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
