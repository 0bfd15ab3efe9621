"""How the time of finding near-duplicates grows, beside comparing every picture with every other.

    python benchmarks/splitting.py [--pictures 1000 5000 10000 …] [--plain-up-to 10000]

Both ways take turns on the same perceptual hashes, made up in several kinds, and find the same
groups, which is checked. *Growth* is how many times as long it takes as the row before, beside how
many times as many pictures there are. The kinds:

    random      no two have anything in common
    copies      each of N / 10 pictures ten times, 2 % of the bits changed
    families    ten pictures, each N / 10 times, 5 % of the bits changed: many are copies, many not
    correlated  60 numbers make up all bits of a hash, as in photographs of one kind
    alike       all made from one picture, 8 % of the bits changed: alike, and hardly any a copy
    flat        eight hashes that all share
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import mclip_helpers as mh
from mclip_helpers.data import Pair
from mclip_helpers.data.duplicates import HASH_BYTES, MAX_DISTANCE, duplicate_groups

BITS = 8 * HASH_BYTES


def random(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2, (count, BITS), dtype=np.uint8)


def made_from(originals: int, changed: float) -> Callable[[int, np.random.Generator], np.ndarray]:
    def make(count: int, rng: np.random.Generator) -> np.ndarray:
        first = random(originals or count // 10, rng)
        bits = first[np.arange(count) % len(first)]
        return bits ^ (rng.random(bits.shape, np.float32) < changed)

    return make


def correlated(count: int, rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal((count, 60), np.float32)
    return (values @ rng.standard_normal((60, BITS), np.float32) > 0).astype(np.uint8)


KINDS = {
    "random": random,
    "copies": made_from(0, 0.02),
    "families": made_from(10, 0.05),
    "correlated": correlated,
    "alike": made_from(1, 0.08),
    "flat": made_from(8, 0),
}


def made(kind: str, count: int) -> mh.PictureDataset:
    """Pairs of this kind, which nothing but their hashes can link."""
    hashes = np.packbits(KINDS[kind](count, np.random.default_rng(0)), axis=1)
    return mh.PictureDataset(
        [
            Pair(str(i), (str(i),), str(i), lambda: None, row.tobytes())
            for i, row in enumerate(hashes)
        ]
    )


def one_by_one(dataset: mh.PictureDataset) -> list[int]:
    """What is compared with: each hash with all that follow, and groups are renumbered at once."""
    hashes = b"".join(pair.perceptual_hash for pair in dataset.pairs)
    words = np.frombuffer(hashes, np.uint64).reshape(-1, HASH_BYTES // 8)
    groups = np.array(dataset.groups)
    for start in range(0, len(words), 256):
        block, rest = words[start : start + 256], words[start:]
        distances = np.zeros((len(block), len(rest)), np.uint16)
        for word in range(words.shape[1]):
            distances += np.bitwise_count(block[:, None, word] ^ rest[None, :, word])
        for near in distances <= MAX_DISTANCE:
            merged = np.unique(groups[start:][near])
            if len(merged) > 1:
                groups[np.isin(groups, merged)] = merged[0]
    return groups.tolist()


def seconds(way: Callable, dataset: mh.PictureDataset) -> tuple[float, list[int]]:
    begun = time.perf_counter()
    groups = way(dataset)
    return time.perf_counter() - begun, groups


def same(one: list[int], other: list[int]) -> bool:
    """Whether two numberings mean the same groups."""
    return len(set(one)) == len(set(other)) == len(set(zip(one, other, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--pictures", type=int, nargs="+", default=[1_000, 10_000, 50_000, 100_000])
    parser.add_argument("--plain-up-to", type=int, default=10_000)
    args = parser.parse_args()
    rows = []
    for kind in args.kinds:
        before: tuple[int, float] | None = None
        for count in args.pictures:
            dataset = made(kind, count)
            took, groups = seconds(duplicate_groups, dataset)
            ratio = "–"
            if count <= args.plain_up_to:
                plain, expected = seconds(one_by_one, dataset)
                assert same(groups, expected)
                ratio = f"{plain / took:.1f}"
            growth = f"{took / before[1]:.1f} ({count / before[0]:.0f}×)" if before else "–"
            rows.append([kind, f"{count:,}", len(set(groups)), f"{took:.2f} s", growth, ratio])
            before = count, took
    header = ["kind", "pictures", "groups", "time", "growth", "one by one: times as long"]
    print(mh.draw.Table(header, rows))


if __name__ == "__main__":
    main()
