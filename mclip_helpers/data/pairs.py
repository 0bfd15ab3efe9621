"""Pictures with captions, however many each: what belongs together, splits, and batches.

A `PictureDataset` knows which pairs are *equally good*: pictures with the same pixels, or pictures
that share a caption. Training keeps such pairs out of one batch, where each would be called the
other's wrong answer, and evaluation counts each as a hit. `emojis` and `sources` make datasets.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from .images import LOOK_BYTES, look

# Two pictures whose looks differ in no more bits are taken for copies of one. Measured on 243
# photographs of things in a shop: a copy of another size, re-encoded as JPEG down to quality 20, or
# made a tenth brighter or darker differs from its original in at most 22 bits (a quarter brighter:
# 43), while different photographs differ in 58 at least, and 99.9 % of their pairs in 124 or more.
SAME_LOOK = 40


class DataError(ValueError):
    """Everything that is wrong with a dataset, one line per file and row."""

    def __init__(self, where: str | Path, problems: Sequence[str]):
        self.problems = list(problems)
        shown = "\n".join(f"  - {problem}" for problem in self.problems[:50])
        more = len(self.problems) - 50
        tail = f"\n  … and {more} more" if more > 0 else ""
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"{count} in {where}:\n{shown}{tail}")


@dataclass(frozen=True)
class Pair:
    """One picture and what it is called: at least one caption.

    `load()` gives the picture as RGB, and `digest` names its pixels. `look` is `pictures.look` of
    it, or None where nobody has needed it yet.
    """

    name: str
    captions: tuple[str, ...]
    digest: str
    load: Callable[[], Image.Image]
    look: bytes | None = None


class PictureDataset(Dataset):
    """Pairs of picture and captions, N of them.

    `dataset[i]` is `(RGB picture, its first caption)`, and `dataset[i, k]` has caption k instead.
    `groups[i]` is the same number for all pairs that are equally good answers to each other: they
    show the same pixels or share a caption (or are linked by a chain of such pairs). `credit` is
    the attribution line that must stand wherever the pictures are shown.
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

    def __add__(self, other: PictureDataset) -> PictureDataset:
        credits = dict.fromkeys(c for c in (self.credit, other.credit) if c)
        return PictureDataset(self.pairs + other.pairs, "; ".join(credits))

    @property
    def captions(self) -> list[str]:
        """The first caption of each pair: N."""
        return [pair.captions[0] for pair in self.pairs]

    @property
    def all_captions(self) -> list[str]:
        """Every caption, those of the first pair first: M, at least N."""
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
        """The first `count` pairs, or as many as there are; None: all of them."""
        return self.subset(range(len(self))[:count])

    def find(self, *captions: str) -> PictureDataset:
        """The first pair with each of `captions`. KeyError names the captions that are not here."""
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

    seen: dict[tuple[str, str], int] = {}
    for i, pair in enumerate(pairs):
        for key in (("pixels", pair.digest), *(("caption", text) for text in pair.captions)):
            parent[root(i)] = root(seen.setdefault(key, i))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(pairs))]


# ------------------------------------------------------------------------------------------- split


def split(
    dataset: PictureDataset, val: float = 0.1, test: float = 0.2, seed: int = 0
) -> dict[str, PictureDataset]:
    """Cut a dataset into "train", "val" and "test", `val` and `test` being shares of its pairs.

    Pairs that share pixels or a caption, or that look the same (a photograph and its resized,
    re-encoded or slightly brightened copy), stay on one side, with all that they are linked to by a
    chain of such pairs: what is tested was not trained. The order within each part is that of
    the dataset; who goes where depends on `seed`.

    Raises ValueError for shares that leave nothing to train on, and DataError where so many pairs
    hang together that a part would stay empty or get less than half of its share.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise ValueError(f"val is {val} and test is {test}; both are shares, with a sum below 1")
    linked: dict[int, list[int]] = {}
    for i, number in enumerate(_linked(dataset)):
        linked.setdefault(number, []).append(i)
    together = list(linked.values())
    wanted = {n: max(1, round(s * len(dataset))) for n, s in (("test", test), ("val", val)) if s}
    wanted["train"] = len(dataset) - sum(wanted.values())
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for at in torch.randperm(len(together), generator=torch.Generator().manual_seed(seed)).tolist():
        fits = (n for n in wanted if len(parts[n]) + len(together[at]) <= wanted[n])
        parts[next(fits, "train")] += together[at]
    short = [n for n in wanted if not parts[n] or len(parts[n]) < wanted[n] / 2]
    if short:
        raise DataError("split", [_why_short(dataset, together, short)])
    return {name: dataset.subset(sorted(part)) for name, part in parts.items()}


def _linked(dataset: PictureDataset, rows: int = 256) -> list[int]:
    """For each pair the number of what it is linked to: its group, and all that look the same.

    `rows` pictures are compared with all later ones at a time: memory grows with rows · N.
    """
    looks = b"".join(p.look or look(p.load()) for p in dataset.pairs)
    words = np.frombuffer(looks, np.uint64).reshape(-1, LOOK_BYTES // 8)
    numbers = np.array(dataset.groups)
    for start in range(0, len(words), rows):
        later = words[start:]
        differing = np.zeros((min(rows, len(later)), len(later)), np.uint16)
        for word in range(words.shape[1]):
            differing += np.bitwise_count(later[:rows, None, word] ^ later[None, :, word])
        for same in differing <= SAME_LOOK:
            near = np.unique(numbers[start:][same])
            if len(near) > 1:
                numbers[np.isin(numbers, near)] = near[0]
    return numbers.tolist()


def _why_short(
    dataset: PictureDataset, together: Sequence[Sequence[int]], short: Sequence[str]
) -> str:
    """Why the parts `short` can't be filled: what links the largest group, and what to do."""
    largest = max(together, key=len, default=[])
    said = Counter(caption for i in largest for caption in dataset.pairs[i].captions)
    caption, times = max(said.items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        why = (
            f"The caption {caption!r} links {times} of these: give them captions of their own, or "
            f"leave them out with dataset.subset(…)"
        )
    elif len(largest) > 1:
        why = "They look the same: leave copies out with dataset.subset(…)"
    else:
        why = "It takes more pictures, or a share of 0"
    return (
        f"too little is left for {' and '.join(short)}: the {len(dataset)} pairs fall into "
        f"{len(together)} groups that have to stay on one side, the largest of {len(largest)}. "
        f"{why}"
    )


# ----------------------------------------------------------------------------------------- batches


class DistinctBatches(Sampler[list[int]]):
    """Shuffled batches in which no two pairs share a group.

    Two equally good pairs in one batch are *false negatives*: the loss would push apart what
    belongs together. A pair that would collide waits for the next batch. The order depends on
    `seed` and `epoch` alone, so that a resumed run sees the batches it would have seen. What is
    left over at the end is dropped: fewer than `batch_size` groups, so no full batch.
    """

    def __init__(self, groups: Sequence[int], batch_size: int, seed: int = 0):
        distinct = len(set(groups))
        if not 2 <= batch_size <= distinct:
            raise ValueError(
                f"batch_size is {batch_size}; it must be at least 2 (a pair needs something to be "
                f"told apart from) and at most {distinct}, the number of pairs that differ"
            )
        self.groups, self.batch_size, self.seed, self.epoch = groups, batch_size, seed, 0

    @property
    def random_seed(self) -> int:
        """One number for `seed` and `epoch`."""
        return 1_000_003 * self.seed + self.epoch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.random_seed)
        waiting = deque(torch.randperm(len(self.groups), generator=generator).tolist())
        while waiting:
            batch: dict[int, int] = {}
            postponed = []
            while waiting and len(batch) < self.batch_size:
                index = waiting.popleft()
                if self.groups[index] in batch:
                    postponed.append(index)
                else:
                    batch[self.groups[index]] = index
            waiting.extendleft(reversed(postponed))
            if len(batch) < self.batch_size:
                return
            yield list(batch.values())

    def __len__(self) -> int:
        return sum(1 for _ in self)


class DrawnCaptions(DistinctBatches):
    """The batches of `DistinctBatches` as keys `(i, k)` of a dataset: one caption of each picture.

    Which one depends on `seed`, `epoch` and i alone, not on the batches or on who loads them.
    """

    def __init__(self, dataset: PictureDataset, batch_size: int, seed: int = 0):
        super().__init__(dataset.groups, batch_size, seed)
        self.counts = [len(pair.captions) for pair in dataset.pairs]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in super().__iter__():
            yield [(i, self._draw(i)) for i in batch]

    def _draw(self, i: int) -> int:
        bits = hashlib.sha256(f"{self.seed} {self.epoch} {i}".encode()).digest()[:8]
        return int.from_bytes(bits, "big") % self.counts[i]


@dataclass(frozen=True)
class Collate:
    """From a list of (picture, caption) to tensors. A class, so that it travels to workers."""

    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    augment: Callable[[Image.Image], Image.Image] | None = None

    def __call__(
        self, items: Sequence[tuple[Image.Image, str]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pictures, captions = zip(*items, strict=True)
        if self.augment is not None:
            pictures = [self.augment(picture) for picture in pictures]
        images = torch.stack([self.preprocess(picture) for picture in pictures])
        return images, self.tokenizer(list(captions))


def loader(
    dataset: PictureDataset,
    clip,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    augment: Callable[[Image.Image], Image.Image] | None = None,
    workers: int = 0,
) -> DataLoader:
    """Batches `(images, tokens)`, shapes (N, 3, H, W) and (N, context), as `clip` wants them.

    `clip` is what `load_model` returns: its own `preprocess` and `tokenizer` are used. With
    `shuffle`, batches come from `DistinctBatches`, each picture with one of its captions, and
    `set_epoch` makes the next epoch another; without, all pairs come in order, each with its first
    caption. `augment` changes the picture before the model's own transform. With `workers`
    (processes that load ahead), it must be something that pickle can send: no lambda.
    """
    # A DataLoader draws a number whenever it starts. With a generator of its own it leaves the
    # global one alone, so that an evaluation between two epochs doesn't change the training.
    options = {
        "collate_fn": Collate(clip.preprocess, clip.tokenizer, augment),
        "num_workers": workers,
        "generator": torch.Generator().manual_seed(seed),
    }
    if shuffle:
        return DataLoader(
            dataset, batch_sampler=DrawnCaptions(dataset, batch_size, seed), **options
        )
    return DataLoader(dataset, batch_size=batch_size, **options)


def set_epoch(batches: DataLoader, epoch: int) -> None:
    """Make a shuffling `loader` give the batches of `epoch`, counted from 0, when it next starts.

    Its generator, from which each worker's random numbers come, is seeded anew: what an
    augmentation draws in a worker depends on seed and epoch, and not on the epochs before. So a
    resumed run goes on as an uninterrupted one would. ValueError for a loader without `shuffle`.
    """
    sampler = batches.batch_sampler
    if not isinstance(sampler, DistinctBatches):
        raise ValueError("only a loader with shuffle=True has epochs that differ")
    sampler.epoch = epoch
    batches.generator.manual_seed(sampler.random_seed)
