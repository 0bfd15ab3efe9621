"""Captioned pictures as a dataset, and which of them are equally good answers to each other.

Two pairs are *equally good* if they show the same pixels or share a caption. Training keeps them
out of one batch, where each would count as a wrong answer to the other; evaluation counts either of
them as a hit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

SHOWN_PROBLEMS = 50


class DataError(ValueError):
    """What is wrong with a dataset: `problems` has one line for each problem, with file and row."""

    def __init__(self, where: str | Path, problems: Sequence[str]):
        self.problems = list(problems)
        shown = "\n".join(f"  - {problem}" for problem in self.problems[:SHOWN_PROBLEMS])
        more = len(self.problems) - SHOWN_PROBLEMS
        tail = f"\n  … and {more} more" if more > 0 else ""
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"{count} in {where}:\n{shown}{tail}")


@dataclass(frozen=True)
class Pair:
    """A picture and its captions, at least one.

    `load()` returns the picture as RGB. `digest` is `images.digest` of it, and `perceptual_hash`
    is `duplicates.perceptual_hash` of it, or None if it has not been computed.
    """

    name: str
    captions: tuple[str, ...]
    digest: str
    load: Callable[[], Image.Image]
    perceptual_hash: bytes | None = None


class PictureDataset(Dataset[tuple[Image.Image, str]]):
    """A dataset of N pairs.

    `dataset[i]` is picture i (RGB) with its first caption, `dataset[i, k]` the same picture with
    caption k. `groups[i]` numbers the group of pair i: pairs that are equally good, or connected by
    a chain of pairs that are, are one group. `credit` is the attribution that must stand wherever
    the pictures are shown.
    """

    def __init__(self, pairs: Sequence[Pair], credit: str = ""):
        self.pairs = list(pairs)
        self.credit = credit
        self.groups = _groups(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int | tuple[int, int]) -> tuple[Image.Image, str]:
        i, k = index if isinstance(index, tuple) else (index, 0)
        pair = self.pairs[i]
        return pair.load(), pair.captions[k]

    def __add__(self, other: PictureDataset) -> PictureDataset:  # type: ignore[override]
        credits = dict.fromkeys(c for c in (self.credit, other.credit) if c)
        return PictureDataset(self.pairs + other.pairs, "; ".join(credits))

    @property
    def captions(self) -> list[str]:
        """The first caption of each pair: N."""
        return [pair.captions[0] for pair in self.pairs]

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
        """The pairs at `indices`, in that order."""
        return PictureDataset([self.pairs[i] for i in indices], self.credit)

    def head(self, count: int | None) -> PictureDataset:
        """The first `count` pairs, or as many as there are; all of them for None."""
        return self.subset(range(len(self))[:count])

    def find(self, *captions: str) -> PictureDataset:
        """The first pair with each of `captions`. KeyError names the captions that are missing."""
        first: dict[str, int] = {}
        for i, pair in enumerate(self.pairs):
            for caption in pair.captions:
                first.setdefault(caption, i)
        missing = [caption for caption in captions if caption not in first]
        if missing:
            raise KeyError(f"no picture with caption {missing} among these {len(self)}")
        return self.subset(first[caption] for caption in captions)


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
