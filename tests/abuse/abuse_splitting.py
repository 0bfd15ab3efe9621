"""Promises about `mh.split`: what it takes, and that no copy ever comes onto two sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from cases import Case
from PIL import Image

import mclip_helpers as mh
from mclip_helpers.data import Pair

BITS = 448


def pairs_of(hashes: np.ndarray) -> mh.PictureDataset:
    """A pair for each perceptual hash; nothing else links them."""
    return mh.PictureDataset(
        [Pair(str(i), (str(i),), str(i), Image.new, row.tobytes()) for i, row in enumerate(hashes)]
    )


def strangers(count: int) -> mh.PictureDataset:
    return pairs_of(np.random.default_rng(0).integers(0, 256, (count, BITS // 8), dtype=np.uint8))


def twenty(folder: Path) -> mh.PictureDataset:
    return strangers(20)


def captions(dataset: mh.PictureDataset) -> list[str]:
    return dataset.captions


def with_arguments(name: str, says: str, **arguments: object) -> Case:
    return Case(
        f"split({', '.join(f'{k}={v!r}' for k, v in arguments.items())}) {name}",
        prepare=twenty,
        does=lambda dataset: mh.split(dataset, **arguments),
        refused=ValueError,
        says=(says,),
        keeps=captions,
    )


WRONG_SHARES = [
    with_arguments("is refused", name, **{name: value})
    for name in ("val", "test")
    for value in (None, "0.1", True, -0.1, float("nan"), float("inf"), [0.1], 0.1 + 0.2j)
]
TOO_LARGE_SHARES = [
    with_arguments("leaves nothing to train on", "sum below 1", val=val, test=test)
    for val, test in [(0.5, 0.5), (1, 0), (0, 1), (0.9, 0.2), (10, 20)]
]
WRONG_SEEDS = [
    with_arguments("is refused", "seed is", seed=seed)
    for seed in (None, "0", 0.5, 1.0, True, -1, 2**64, [0], float("nan"))
]
WRONG_CLASSES = [
    with_arguments("is refused", "classes is", classes=value)
    for value in (None, 1, "yes", ["cat", "dog"], float("nan"))
]


def ten_classes(count: int) -> mh.PictureDataset:
    """Pictures that have nothing in common but one of ten captions."""
    return mh.PictureDataset(
        replace(pair, captions=(f"class {i % 10}",))
        for i, pair in enumerate(strangers(count).pairs)
    )


CLASSES = [
    Case(
        "a folder of ten class names is split with classes=True, and no picture is lost",
        prepare=lambda folder: ten_classes(500),
        does=lambda dataset: mh.split(dataset, classes=True),
        holds=lambda dataset, parts: (
            sorted(p.name for part in parts.values() for p in part.pairs)
            == sorted(pair.name for pair in dataset.pairs)
        ),
    ),
    Case(
        "without it, where one name is frequent, the error names it and says what to do",
        prepare=lambda folder: ten_classes(10) + ten_classes(500).subset(range(10, 500, 10)),
        does=lambda dataset: mh.split(dataset, 0.1, 0.2),
        refused=mh.DataError,
        says=("class", "classes=True"),
    ),
]
NO_DATASETS = [
    Case(
        f"split takes a dataset, not {name}",
        prepare=lambda folder, value=value: value,
        does=mh.split,
        refused=TypeError,
        says=("pass a dataset",),
    )
    for name, value in {
        "None": None,
        "a list": [1, 2, 3],
        "a path": "pictures",
        "its pairs": strangers(5).pairs,
        "a dict of parts": {"train": strangers(5)},
        "its class": mh.PictureDataset,
    }.items()
]
TOO_FEW = [
    Case(
        f"{count} pairs are too few for three parts, and this is said",
        prepare=lambda folder, count=count: strangers(count),
        does=mh.split,
        refused=mh.DataError,
        says=("too little is left", "more pictures"),
    )
    for count in (0, 1, 2)
]


def sides(parts: dict[str, mh.PictureDataset]) -> dict[str, str]:
    return {name: side for side, part in parts.items() for name in part.captions}


def together(parts: dict[str, mh.PictureDataset], family: int) -> bool:
    """Whether each `family` pairs that follow each other are on one side, and none is lost."""
    side = sides(parts)
    count = len(side)
    return all(
        len({side[str(i)] for i in range(start, start + family)}) == 1
        for start in range(0, count, family)
    )


def copies(bits: int, family: int = 5, count: int = 5_000) -> mh.PictureDataset:
    """Families whose members differ from their first one in `bits` bits."""
    rng = np.random.default_rng(bits)
    rows = []
    for first in rng.integers(0, 2, (count // family, BITS), dtype=np.uint8):
        rows.append(first)
        for _ in range(family - 1):
            other = first.copy()
            other[rng.choice(BITS, bits, replace=False)] ^= 1
            rows.append(other)
    return pairs_of(np.packbits(rows, axis=1))


def chain(count: int) -> mh.PictureDataset:
    """Each picture is a copy of the next one, the ends have nothing in common; and 300 others."""
    rows = [[1] * ones + [0] * (BITS - ones) for ones in np.linspace(0, BITS, count).astype(int)]
    rng = np.random.default_rng(0)
    others = rng.integers(0, 2, (300, BITS), dtype=np.uint8)
    return pairs_of(np.packbits(np.concatenate([rows, others]), axis=1))


LEAKS = [
    *(
        Case(
            f"copies that differ in {bits} of 448 bits stay on one side, among 5,000 pictures",
            prepare=lambda folder, bits=bits: copies(bits),
            does=mh.split,
            holds=lambda dataset, parts: together(parts, family=5),
            keeps=captions,
        )
        for bits in (0, 1, 20, 39, 40)
    ),
    Case(
        "a chain of copies stays on one side, though its ends have nothing in common",
        prepare=lambda folder: chain(40),
        does=mh.split,
        holds=lambda _, parts: len({sides(parts)[str(i)] for i in range(40)}) == 1,
    ),
    Case(
        "pictures that all look the same can't be split, and this is said",
        prepare=lambda folder: pairs_of(np.zeros((500, BITS // 8), np.uint8)),
        does=mh.split,
        refused=mh.DataError,
        says=("the largest of 500", "look the same"),
    ),
]

CASES = [
    *WRONG_SHARES,
    *TOO_LARGE_SHARES,
    *WRONG_SEEDS,
    *WRONG_CLASSES,
    *CLASSES,
    *NO_DATASETS,
    *TOO_FEW,
    *LEAKS,
]
