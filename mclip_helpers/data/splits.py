"""Train, val and test without leaks: what is tested was not trained, not even as a copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..checks import finite_number, seed_number, true_or_false
from .duplicates import duplicate_groups
from .pairs import DataError, PictureDataset, require_dataset

SPLITS = ("train", "val", "test")


def split(
    dataset: PictureDataset,
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    *,
    classes: bool = False,
) -> dict[str, PictureDataset]:
    """Split a dataset into "train", "val" and "test"; `val` and `test` are shares of its pairs.

    Pairs that share pixels or a caption, near-duplicates, and all that a chain of these connects,
    go into the same part. `seed` decides into which; each part keeps the order of the dataset.

    With `classes`, captions are names of classes: pictures that share one may come into different
    parts, and the test is whether a *new picture* of a class is recognised. Without, no caption of
    the test has been trained.

    Raises TypeError for anything but a `PictureDataset`, ValueError for shares that leave nothing
    to train on, and DataError if so many pairs are connected that a part would stay empty or get
    less than half of its share.
    """
    require_dataset(dataset, least=0)
    val, test = finite_number("val", val, least=0), finite_number("test", test, least=0)
    if val + test >= 1:
        raise ValueError(f"val is {val} and test is {test}; both are shares, with a sum below 1")
    seed = seed_number(seed)
    true_or_false("classes", classes)
    linked = _without_captions(dataset) if classes else dataset
    clusters = _clusters(linked)
    sizes = {n: max(1, round(s * len(dataset))) for n, s in (("test", test), ("val", val)) if s}
    sizes["train"] = len(dataset) - sum(sizes.values())
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    generator = torch.Generator().manual_seed(seed)
    for at in torch.randperm(len(clusters), generator=generator).tolist():
        fitting = (n for n in sizes if len(parts[n]) + len(clusters[at]) <= sizes[n])
        parts[next(fitting, "train")] += clusters[at]
    short = [n for n in sizes if not parts[n] or len(parts[n]) < sizes[n] / 2]
    if short:
        raise DataError("split", [_why_short(linked, clusters, short)])
    return {name: dataset.subset(sorted(part)) for name, part in parts.items()}


def _without_captions(dataset: PictureDataset) -> PictureDataset:
    """The same pictures, each with a caption of its own, so that none of them links two."""
    return PictureDataset(replace(pair, captions=(str(i),)) for i, pair in enumerate(dataset.pairs))


def _clusters(dataset: PictureDataset) -> list[list[int]]:
    """The positions of the pairs that have to stay together, in the order of the dataset."""
    clusters: dict[int, list[int]] = {}
    for position, group in enumerate(duplicate_groups(dataset)):
        clusters.setdefault(group, []).append(position)
    return list(clusters.values())


def _why_short(
    dataset: PictureDataset, clusters: Sequence[Sequence[int]], short: Sequence[str]
) -> str:
    """Why the parts `short` can't be filled: what connects the largest cluster, and what to do."""
    largest = max(clusters, key=len, default=())
    counts = Counter(caption for i in largest for caption in dataset.pairs[i].captions)
    [(caption, times)] = counts.most_common(1) or [("", 0)]
    if times > 1:
        why = (
            f"The caption {caption!r} links {times} of these: if it is the name of a class, pass "
            f"classes=True; else give them captions of their own, or leave them out with "
            f"dataset.subset(…)"
        )
    elif len(largest) > 1:
        why = "They look the same: leave copies out with dataset.subset(…)"
    else:
        why = "It takes more pictures, or a share of 0"
    return (
        f"too little is left for {' and '.join(short)}: the {len(dataset)} pairs fall into "
        f"{len(clusters)} groups that have to stay on one side, the largest of {len(largest)}. "
        f"{why}"
    )
