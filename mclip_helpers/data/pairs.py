"""Captioned pictures as a dataset, and which of them are equally good answers to each other.

Two pairs are *equally good* if they show the same pixels or share a caption. Training keeps them
out of one batch, where each would count as a wrong answer to the other; evaluation counts either of
them as a hit.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

from ..checks import whole_number
from ..progress_bar import progress_bar
from .images import digest, on_white
from .shifts import Shift

SHOWN_PROBLEMS = 50
LONGEST_PROBLEM = 600  # characters


class DataError(ValueError):
    """What is wrong with a dataset: `problems` has one line for each problem, with file and row.

    `DataError(message)` alone is what a DataLoader makes of one that a worker raised.
    """

    def __init__(self, where: str | Path, problems: Sequence[str] = ()):
        self.where, self.problems = where, [shown(problem) for problem in problems]
        lines = [f"  - {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        more = len(self.problems) - SHOWN_PROBLEMS
        if more > 0:
            lines.append(f"  … and {more} more")
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{count} in {where}:", *lines]) if problems else str(where))

    def __reduce__(self) -> tuple:
        return DataError, (self.where, self.problems)


def shown(text: str, most: int = LONGEST_PROBLEM) -> str:
    """`text` on one line of at most `most` characters, with every invisible character escaped."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    if len(text) <= most:
        return text
    start = 2 * most // 3
    return f"{text[:start]} … {text[start + 3 - most :]}"


@dataclass(frozen=True)
class Pair:
    """A picture and its captions, at least one.

    `load()` returns the picture as RGB. `digest` is `images.digest` of it, and `perceptual_hash`
    is `duplicates.perceptual_hash` of it, or None if it has not been computed. Raises TypeError or
    ValueError for parts of another kind.
    """

    name: str
    captions: tuple[str, ...]
    digest: str
    load: Callable[[], Image.Image]
    perceptual_hash: bytes | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.captions, tuple):  # a text, too, has items: its letters
            raise TypeError(
                f"captions of {self.name!r:.60} is of the type {type(self.captions).__name__}; it "
                f"must be a tuple of texts, ('a cat',)"
            )
        if not self.captions or not all(isinstance(c, str) and c.strip() for c in self.captions):
            raise ValueError(
                f"captions of {self.name!r:.60} is {self.captions!r:.60}; a pair needs at least "
                f"one, and each must be a text that is not empty"
            )
        if not isinstance(self.digest, str):
            raise TypeError(f"digest is a {type(self.digest).__name__}; it must be a str")
        if not callable(self.load):
            raise TypeError(
                f"load is a {type(self.load).__name__}; it must be a function without arguments "
                f"that returns the picture"
            )


class PictureDataset(Dataset[tuple[Image.Image, str]]):
    """A dataset of N pairs.

    `dataset[i]` is picture i (RGB) with its first caption, `dataset[i, k]` the same picture with
    caption k. `groups[i]` numbers the group of pair i: pairs that are equally good, or connected by
    a chain of pairs that are, are one group. `credit` is the attribution that must stand wherever
    the pictures are shown. Raises TypeError for anything but pairs.
    """

    def __init__(self, pairs: Iterable[Pair], credit: str | tuple[str, ...] = ""):
        self.pairs = _pairs(pairs)
        credits = credit if isinstance(credit, tuple) else (credit,)
        if not all(isinstance(text, str) for text in credits):
            raise TypeError(f"credit is a {type(credit).__name__}; it must be a text")
        self.credits = tuple(dict.fromkeys(text for text in credits if text))
        self.groups = _groups(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int | tuple[int, int]) -> tuple[Image.Image, str]:
        if isinstance(index, tuple) and len(index) != 2:
            raise TypeError(f"dataset[i, k] is picture i with its caption k; {index!r:.60} is not")
        i, k = index if isinstance(index, tuple) else (index, 0)
        pair = self.pairs[_position(i, self.pairs, "pair")]
        caption = pair.captions[_position(k, pair.captions, "caption")]
        return pair.load(), caption

    def __add__(self, other: PictureDataset) -> PictureDataset:  # type: ignore[override]
        if not isinstance(other, PictureDataset):
            raise TypeError(
                f"a {type(other).__name__} can't be added to a PictureDataset, only another one can"
            )
        return PictureDataset(self.pairs + other.pairs, self.credits + other.credits)

    @property
    def credit(self) -> str:
        """The attribution; that of a sum has each of its parts once."""
        return "; ".join(self.credits)

    @property
    def captions(self) -> list[str]:
        """The first caption of each pair: N."""
        return [pair.captions[0] for pair in self.pairs]

    @property
    def digests(self) -> list[str]:
        """The digest of each picture: N. Two datasets that agree in it have the same pictures."""
        return [pair.digest for pair in self.pairs]

    @property
    def all_captions(self) -> list[str]:
        """All captions, pair by pair: M ≥ N."""
        return [caption for pair in self.pairs for caption in pair.captions]

    @property
    def caption_groups(self) -> list[int]:
        """The group of each of `all_captions`: M numbers."""
        grouped = zip(self.groups, self.pairs, strict=True)
        return [group for group, pair in grouped for _ in pair.captions]

    def subset(self, indices: Iterable[int]) -> PictureDataset:
        """The pairs at `indices`, in that order; −1 is the last, as in a list.

        Raises IndexError for one that is not there, and TypeError for a mask of True and False.
        """
        if isinstance(indices, str) or not isinstance(indices, Iterable):
            raise TypeError(
                f"indices is of the type {type(indices).__name__}; it must be a list of positions, "
                f"[0, 5]"
            )
        return PictureDataset(
            [self.pairs[_position(i, self.pairs, "pair")] for i in indices], self.credits
        )

    def shifted(self, shift: Shift, credit: str = "") -> PictureDataset:
        """The same pairs, with `shift(picture)` in place of each picture; RGB in, RGB out.

        Every picture is made once now, because two that differ may look the same afterwards, and
        again each time that it is loaded. `credit` says how the pictures were changed. TypeError if
        `shift` is no function, or DataError, with all pictures that failed, if it raises an error
        or returns anything but a picture.
        """
        if not callable(shift):
            raise TypeError(
                f"shift is a {type(shift).__name__}; it must be a function from a picture to a "
                f"picture, such as mh.thermal"
            )
        pairs, problems = [], []
        for pair in progress_bar(self.pairs, "changing pictures", "pictures"):
            load = functools.partial(_load_shifted, pair.load, shift)
            try:
                pairs.append(replace(pair, load=load, digest=digest(load()), perceptual_hash=None))
            except Exception as error:
                problems.append(f"{pair.name}: {type(error).__name__}: {error}")
        if problems:
            raise DataError("the pictures that shift was to change", problems)
        return PictureDataset(pairs, (*self.credits, credit))

    def head(self, count: int | None) -> PictureDataset:
        """The first `count` pairs, or as many as there are; all of them for None.

        Raises ValueError if `count` is no whole number, or negative.
        """
        if count is not None:
            count = whole_number("count", count, least=0)
        return PictureDataset(self.pairs[:count], self.credits)

    def find(self, *captions: str) -> PictureDataset:
        """The first pair with each of `captions`.

        KeyError names the captions that are missing; TypeError for what is no text.
        """
        for caption in captions:
            if not isinstance(caption, str):
                raise TypeError(
                    f"a caption is a {type(caption).__name__}; find takes texts: find('cat', 'dog')"
                )
        first: dict[str, int] = {}
        for i, pair in enumerate(self.pairs):
            for caption in pair.captions:
                first.setdefault(caption, i)
        missing = [caption for caption in captions if caption not in first]
        if missing:
            raise KeyError(shown(f"no picture with caption {missing} among these {len(self)}"))
        return self.subset(first[caption] for caption in captions)


def _load_shifted(load: Callable[[], Image.Image], shift: Shift) -> Image.Image:
    return on_white(shift(load()))


def require_dataset(value: object, name: str = "dataset", *, least: int = 1) -> PictureDataset:
    """`value`, if it is a dataset of at least `least` pairs; else TypeError or ValueError."""
    if not isinstance(value, PictureDataset):
        raise TypeError(
            f"{name} is a {type(value).__name__}; pass a dataset, as emoji_dataset, folder_dataset "
            f"and the other sources return it, or a part of one, as split returns it"
        )
    if len(value) < least:
        raise ValueError(f"{name} is empty: it has no pairs")
    return value


def _pairs(pairs: object) -> list[Pair]:
    """`pairs` as a list. TypeError unless they are pairs; a dataset would open every picture."""
    if isinstance(pairs, PictureDataset):
        raise TypeError("this is a PictureDataset already; its pairs are dataset.pairs")
    if not isinstance(pairs, Iterable):
        raise TypeError(f"pairs is a {type(pairs).__name__}; it must be a list of Pair")
    pairs = list(pairs)
    for i, pair in enumerate(pairs):
        if not isinstance(pair, Pair):
            raise TypeError(f"pair {i} is a {type(pair).__name__}; it must be a Pair")
    return pairs


def _position(index: object, items: Sequence, what: str) -> int:
    """`index` as an int. TypeError for what is none, and IndexError if nothing is there."""
    if isinstance(index, bool) or str(getattr(index, "dtype", "")) in ("bool", "torch.bool"):
        raise TypeError(
            f"{index} is no position; of a mask, take the positions where it is True: "
            f"[i for i, keep in enumerate(mask) if keep]"
        )
    try:
        position = operator.index(index)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{index!r:.60} is a {type(index).__name__}; a position is a whole number, as in "
            f"dataset[0], and dataset.subset([0, 1]) takes several"
        ) from None
    if not -len(items) <= position < len(items):
        raise IndexError(f"there is no {what} {position}: there are {len(items)}, counted from 0")
    return position


def _groups(pairs: Sequence[Pair]) -> list[int]:
    """Number the connected components of "same pixels or a shared caption" (union-find)."""
    parent = list(range(len(pairs)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, pair in enumerate(pairs):
        for key in (("pixels", pair.digest), *(("caption", text) for text in pair.captions)):
            parent[root(i)] = root(first.setdefault(key, i))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(pairs))]
