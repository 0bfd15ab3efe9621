"""Batches for training: shuffled without false negatives, one caption of each picture, resumable.

Every random choice depends on the seed and the epoch alone, so that a resumed run sees what it
would have seen without the interruption.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from ..checks import seed_number, true_or_false, whole_number
from .pairs import PictureDataset, require_dataset

EPOCHS_PER_SEED = 1_000_003  # from there on, two seeds would share epochs
NOTEWORTHY = 0.1  # the share of the pairs that repeats may cost an epoch before it is said


class DistinctBatches(Sampler[list[int]]):
    """Shuffled batches in which no two pairs share a group.

    Two equally good pairs in one batch are *false negatives*: the loss would push apart what
    belongs together. The second one waits for the next batch. The order depends on `seed` and
    `epoch` alone. The last pairs are dropped when they no longer fill a batch.
    """

    def __init__(self, groups: Sequence[int], batch_size: int, seed: int = 0):
        self.groups = _group_list(groups)
        self.batch_size = whole_number("batch_size", batch_size)
        self.seed, self.epoch = seed_number(seed), 0
        self.kinds = Counter(self.groups)
        if len(self.kinds) < 2:
            raise ValueError(
                f"of {len(self.groups)} pairs no two differ in picture and caption, and a batch "
                f"needs at least two that do: take other pictures, or give them other captions"
            )
        if not 2 <= self.batch_size <= len(self.kinds):
            raise ValueError(
                f"batch_size is {batch_size}; it must be at least 2 (a pair needs another one to "
                f"be told apart from) and at most {len(self.kinds)}, the number of pairs that "
                f"differ"
            )

    @property
    def random_seed(self) -> int:
        """One number for `seed` and `epoch`."""
        return EPOCHS_PER_SEED * self.seed + self.epoch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.random_seed)
        order = torch.randperm(len(self.groups), generator=generator).tolist()
        waiting: dict[Hashable, deque[int]] = defaultdict(deque)  # for each group, its places
        for place, index in enumerate(order):
            waiting[self.groups[index]].append(place)
        # A batch takes the first places that are left, but only the first one of each group.
        first = [(places.popleft(), group) for group, places in waiting.items()]  # in order: a heap
        while len(first) >= self.batch_size:
            batch = [heapq.heappop(first) for _ in range(self.batch_size)]
            yield [order[place] for place, _ in batch]
            for _, group in batch:
                if waiting[group]:
                    heapq.heappush(first, (waiting[group].popleft(), group))

    def __len__(self) -> int:
        if len(self.kinds) == len(self.groups):
            return len(self.groups) // self.batch_size
        return sum(1 for _ in DistinctBatches.__iter__(self))

    @property
    def lost(self) -> int:
        """The pairs that repeats cost this epoch, beside those that don't fill a last batch."""
        return (len(self.groups) // self.batch_size - len(self)) * self.batch_size


class DrawnCaptions(DistinctBatches):
    """The batches of `DistinctBatches` as keys (i, k) of a dataset: picture i with its caption k.

    With `classes`, any pairs may meet in a batch, and the loss has to know (`contrastive_loss`).
    k is drawn from `seed`, `epoch` and i alone, so that it is the same whatever the batches are and
    whichever worker loads them. `share` = (r, R) gives part r of R equal parts of each batch: what
    one of several processes loads.
    """

    def __init__(
        self,
        dataset: PictureDataset,
        batch_size: int,
        seed: int = 0,
        classes: bool = False,
        share: tuple[int, int] = (0, 1),
    ):
        require_dataset(dataset)
        groups = range(len(dataset)) if classes else dataset.groups
        super().__init__(groups, batch_size, seed)
        self.counts = [len(pair.captions) for pair in dataset.pairs]
        self.share = share
        if self.batch_size % share[1]:
            raise ValueError(
                f"batch_size is {batch_size}, of all processes together; it must be a multiple of "
                f"their number, {share[1]}"
            )

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:  # type: ignore[override]
        part, parts = self.share
        size = self.batch_size // parts
        for batch in super().__iter__():
            yield [(i, self._draw(i)) for i in batch[part * size : (part + 1) * size]]

    def _draw(self, i: int) -> int:
        bits = hashlib.sha256(f"{self.seed} {self.epoch} {i}".encode()).digest()[:8]
        return int.from_bytes(bits, "big") % self.counts[i]


@dataclass(frozen=True)
class Collate:
    """Turn a list of (picture, caption) into tensors. Unlike a closure, it can be pickled."""

    preprocess: Callable[[Any], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    augment: Callable[[Image.Image], Image.Image] | None = None

    def __call__(
        self, items: Sequence[tuple[Image.Image, str]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pictures = [picture for picture, _ in items]
        if self.augment is not None:
            pictures = [_require_picture(self.augment(picture)) for picture in pictures]
        images = torch.stack([self.preprocess(picture) for picture in pictures])
        return images, self.tokenizer([caption for _, caption in items])


def _require_picture(value: object) -> Image.Image:
    if not isinstance(value, Image.Image):
        raise TypeError(
            f"augment gave a {type(value).__name__}; it must give the changed picture (it comes "
            f"before the model's own transform)"
        )
    return value


class Tensors(Protocol):
    """Tensors of one shape, by the number of the pair that they belong to."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> torch.Tensor: ...


class _Given(Dataset):
    """The pairs of a dataset, with tensors in the place of their pictures."""

    def __init__(self, dataset: PictureDataset, images: Tensors):
        if len(images) != len(dataset):
            raise ValueError(
                f"there are {len(images)} tensors for {len(dataset)} pictures: they were made of "
                f"another dataset; make them of this one"
            )
        self.dataset, self.images = dataset, images

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[torch.Tensor, str]:
        i, k = key if isinstance(key, tuple) else (key, 0)
        return self.images[i], self.dataset.pairs[i].captions[k]


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


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
    classes: bool = False,
    images: Tensors | None = None,
    share: tuple[int, int] = (0, 1),
) -> DataLoader:
    """Batches (images, tokens) of shapes (N, 3, H, W) and (N, context), as `clip` takes them.

    `clip` is what `load_model` returns. With `shuffle`, the batches are those of `DistinctBatches`,
    with one drawn caption of each picture, and `set_epoch` chooses the epoch. Without, all pairs
    come in order, each with its first caption. `augment` changes a picture before the model's own
    transform. `workers` is the number of processes that load ahead; they need an `augment` that can
    be pickled, so no lambda. With `classes`, equally good pairs may meet in a batch: then no pair
    is left out because its caption repeats, and the loss has to count all of them as right.
    `images[i]` is a tensor to take in the place of picture i, of which then no file is opened.
    `share` = (r, R), of several processes: only part r of R equal parts of each shuffled batch.

    Raises TypeError for another kind of object, ValueError for a number that can't work. Warns
    where pairs repeat so often that a shuffled epoch leaves more than a tenth of them out.
    """
    require_dataset(dataset)
    _require_preprocessing(clip)
    if augment is not None and images is not None:
        raise ValueError(
            "augment changes pictures, and the tensors that were given in their place stay as they "
            "are; leave augment out here, and give it to what makes the tensors"
        )
    if augment is not None and not callable(augment):
        raise TypeError(
            f"augment is a {type(augment).__name__}; it must be a function from a picture to a "
            f"picture, or None"
        )
    whole_number("batch_size", batch_size, least=1)
    whole_number("workers", workers, least=0)
    true_or_false("classes", classes)
    # A DataLoader draws a number whenever it starts. With a generator of its own it leaves the
    # global one alone, so that an evaluation between two epochs doesn't change the training.
    batches = functools.partial(
        DataLoader,
        dataset if images is None else _Given(dataset, images),
        collate_fn=Collate(
            clip.preprocess if images is None else _as_it_is, clip.tokenizer, augment
        ),
        num_workers=workers,
        generator=torch.Generator().manual_seed(seed_number(seed)),
    )
    if not shuffle:
        return batches(batch_size=batch_size)
    sampler = DrawnCaptions(dataset, batch_size, seed, classes, share)
    _warn_of_repeats(sampler)
    return batches(batch_sampler=sampler)


def set_epoch(batches: DataLoader, epoch: int) -> None:
    """Let a shuffling `loader` give the batches of `epoch`, counted from 0, when it next starts.

    This also seeds the loader's generator, and with it the random numbers of its workers: what an
    augmentation draws there depends on the seed and the epoch, not on the epochs before. Raises
    ValueError for a loader without `shuffle`.
    """
    sampler = getattr(batches, "batch_sampler", None)
    if not isinstance(sampler, DistinctBatches):
        raise ValueError("only a loader with shuffle=True has epochs that differ")
    sampler.epoch = whole_number("epoch", epoch, least=0, most=EPOCHS_PER_SEED - 1)
    batches.generator.manual_seed(sampler.random_seed)


def _require_preprocessing(clip: object) -> None:
    for part in ("preprocess", "tokenizer"):
        if not callable(getattr(clip, part, None)):
            raise TypeError(
                f"this is a {type(clip).__name__}; pass the Clip that load_model returned: it has "
                f"the transform and the tokenizer"
            )


def _group_list(groups: object) -> list[Hashable]:
    """`groups` as a list. TypeError unless it holds one value for each pair."""
    if hasattr(groups, "tolist"):  # a tensor's elements would all count as different
        groups = groups.tolist()
    if isinstance(groups, str) or not isinstance(groups, Sequence):
        raise TypeError(
            f"groups is a {type(groups).__name__}; it must be a list with one number for each "
            f"pair: dataset.groups"
        )
    odd = next((group for group in groups if not isinstance(group, Hashable)), None)
    if odd is not None:
        raise TypeError(
            f"groups holds a {type(odd).__name__}; it must be a list with one number for each "
            f"pair: dataset.groups"
        )
    return list(groups)


def _warn_of_repeats(sampler: DistinctBatches) -> None:
    """Say how much of an epoch is lost where pairs repeat, and what would use it."""
    pairs, lost = len(sampler.groups), sampler.lost
    if lost <= NOTEWORTHY * pairs:
        return
    # The most frequent kind needs as many batches as it has pairs.
    enough = max(2, pairs // max(sampler.kinds.values()))
    warnings.warn(
        f"{lost} of {pairs} pairs ({lost / pairs:.0%}) are left out of every epoch: captions or "
        f"pictures repeat (there are {len(sampler.kinds)} different ones), and no batch of "
        f"{sampler.batch_size} holds the same one twice. If the captions are names of classes, "
        f"pass classes=True to train, and all are used; else give pictures captions of their own, "
        f"or take batch_size={enough}, with which nearly all are used",
        stacklevel=3,
    )
