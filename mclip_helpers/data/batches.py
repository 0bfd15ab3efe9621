"""Batches for training: shuffled without false negatives, one caption of each picture, resumable.

Every random choice depends on the seed and the epoch alone, so that a resumed run sees what it
would have seen without the interruption.
"""

from __future__ import annotations

import functools
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch.utils.data import DataLoader, Sampler

from .pairs import PictureDataset


class DistinctBatches(Sampler[list[int]]):
    """Shuffled batches in which no two pairs share a group.

    Two equally good pairs in one batch are *false negatives*: the loss would push apart what
    belongs together. The second one waits for the next batch. The order depends on `seed` and
    `epoch` alone. The last pairs are dropped when they no longer fill a batch.
    """

    def __init__(self, groups: Sequence[int], batch_size: int, seed: int = 0):
        distinct = len(set(groups))
        if not 2 <= batch_size <= distinct:
            raise ValueError(
                f"batch_size is {batch_size}; it must be at least 2 (a pair needs another one to "
                f"be told apart from) and at most {distinct}, the number of pairs that differ"
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
    """The batches of `DistinctBatches` as keys (i, k) of a dataset: picture i with its caption k.

    k is drawn from `seed`, `epoch` and i alone, so that it is the same whatever the batches are and
    whichever worker loads them.
    """

    def __init__(self, dataset: PictureDataset, batch_size: int, seed: int = 0):
        super().__init__(dataset.groups, batch_size, seed)
        self.counts = [len(pair.captions) for pair in dataset.pairs]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:  # type: ignore[override]
        for batch in super().__iter__():
            yield [(i, self._draw(i)) for i in batch]

    def _draw(self, i: int) -> int:
        bits = hashlib.sha256(f"{self.seed} {self.epoch} {i}".encode()).digest()[:8]
        return int.from_bytes(bits, "big") % self.counts[i]


@dataclass(frozen=True)
class Collate:
    """Turn a list of (picture, caption) into tensors. Unlike a closure, it can be pickled."""

    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    augment: Callable[[Image.Image], Image.Image] | None = None

    def __call__(
        self, items: Sequence[tuple[Image.Image, str]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pictures = [picture for picture, _ in items]
        if self.augment is not None:
            pictures = [self.augment(picture) for picture in pictures]
        images = torch.stack([self.preprocess(picture) for picture in pictures])
        return images, self.tokenizer([caption for _, caption in items])


class Preprocessing(Protocol):
    """What `loader` needs of a `Clip`."""

    @property
    def preprocess(self) -> Callable[[Image.Image], torch.Tensor]: ...

    @property
    def tokenizer(self) -> Callable[[list[str]], torch.Tensor]: ...


def loader(
    dataset: PictureDataset,
    clip: Preprocessing,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    augment: Callable[[Image.Image], Image.Image] | None = None,
    workers: int = 0,
) -> DataLoader:
    """Batches (images, tokens) of shapes (N, 3, H, W) and (N, context), as `clip` takes them.

    `clip` is what `load_model` returns. With `shuffle`, the batches are those of `DistinctBatches`,
    with one drawn caption of each picture, and `set_epoch` chooses the epoch. Without, all pairs
    come in order, each with its first caption. `augment` changes a picture before the model's own
    transform. `workers` is the number of processes that load ahead; they need an `augment` that can
    be pickled, so no lambda.
    """
    # A DataLoader draws a number whenever it starts. With a generator of its own it leaves the
    # global one alone, so that an evaluation between two epochs doesn't change the training.
    batches = functools.partial(
        DataLoader,
        dataset,
        collate_fn=Collate(clip.preprocess, clip.tokenizer, augment),
        num_workers=workers,
        generator=torch.Generator().manual_seed(seed),
    )
    if shuffle:
        return batches(batch_sampler=DrawnCaptions(dataset, batch_size, seed))
    return batches(batch_size=batch_size)


def set_epoch(batches: DataLoader, epoch: int) -> None:
    """Let a shuffling `loader` give the batches of `epoch`, counted from 0, when it next starts.

    This also seeds the loader's generator, and with it the random numbers of its workers: what an
    augmentation draws there depends on the seed and the epoch, not on the epochs before. Raises
    ValueError for a loader without `shuffle`.
    """
    sampler = batches.batch_sampler
    if not isinstance(sampler, DistinctBatches):
        raise ValueError("only a loader with shuffle=True has epochs that differ")
    sampler.epoch = epoch
    batches.generator.manual_seed(sampler.random_seed)
