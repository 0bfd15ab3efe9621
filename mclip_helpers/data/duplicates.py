"""Near-duplicates: a picture and its resized, re-encoded or slightly brightened copy.

A perceptual hash finds them. Unlike a digest, it changes only a little when the picture does.
Comparing each hash with every other takes minutes for 100,000 pictures, and hours for a million;
`_compare_agreeing` says which comparisons can be left out without missing one copy.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from ..progress_bar import progress_bar
from .pairs import PictureDataset

HASH_BYTES = 56

# The largest Hamming distance, in bits, between the hashes of near-duplicates. Measured on 243
# photographs of things in a shop. A copy that was resized, re-encoded as JPEG down to quality 20,
# or made a tenth brighter or darker is at most 22 bits from its original (a quarter brighter: 43).
# Different photographs are at least 58 bits apart, and 99.9 % of their pairs at least 124.
MAX_DISTANCE = 40

# The bits of a hash, dealt into so many bands that two hashes within MAX_DISTANCE agree in one of
# the bands but for one bit at most: if each band had two bits that differ, it would be too many.
BANDS = MAX_DISTANCE // 2 + 1
BAND_BITS = -(-8 * HASH_BYTES // BANDS)

# Of so few pictures, all are compared.
FEW = 4_000
# Of more, this many are compared with all others first: that joins large families of copies, which
# agree in most bands, and within a family nothing needs to be compared any more.
FIRST = 256
# Where pictures that are no copies agree in so many bands that it takes more than one comparison in
# COST_OF_BANDS, all are compared, too: a pair that the bands found costs as much as that many.
COST_OF_BANDS = 3
SAMPLE = 20_000

CHUNK = 2**18  # comparisons at a time: some 10 MB


def perceptual_hash(picture: Image.Image) -> bytes:
    """HASH_BYTES bytes for an RGB picture: 256 bits of brightness and 192 bits of colour.

    The brightness bits are a *difference hash* (dHash). A picture that is mostly flat has few edges
    for it, and shares their absence with many others; the colour bits tell those apart.
    """
    bits = np.concatenate([_difference_bits(picture), _colour_bits(picture)])
    return np.packbits(bits).tobytes()


def _difference_bits(picture: Image.Image) -> np.ndarray:
    """On a grid of 16×16: is the next cell to the right brighter? 256 booleans."""
    grey = np.asarray(picture.convert("L").resize((17, 16), Image.Resampling.LANCZOS))
    return (grey[:, 1:] > grey[:, :-1]).ravel()


def _colour_bits(picture: Image.Image) -> np.ndarray:
    """On a grid of 4×4, for each channel: which of four levels does it reach? 192 booleans."""
    colours = np.asarray(picture.resize((4, 4), Image.Resampling.BOX))
    return (colours[..., None] >= np.array([51, 102, 153, 204])).ravel()


def duplicate_groups(dataset: PictureDataset) -> list[int]:
    """`dataset.groups`, with groups merged that contain near-duplicates of each other: N numbers.

    Loads the pictures whose perceptual hash is not known yet. The result is that of comparing every
    hash with every other. The time grows little faster than N, unless most of the pictures look
    much alike without being copies; memory grows like N.
    """
    pairs = progress_bar(dataset.pairs, "Looking at pictures", "pictures")
    hashes = b"".join(p.perceptual_hash or perceptual_hash(p.load()) for p in pairs)
    words = np.frombuffer(hashes, np.uint64).reshape(-1, HASH_BYTES // 8)
    words, of_pair = np.unique(words, axis=0, return_inverse=True)
    of_pair = of_pair.ravel()
    families = _Families(words)
    _, example, group = np.unique(dataset.groups, return_index=True, return_inverse=True)
    families.link(of_pair, of_pair[example[group]])
    first = len(words) if len(words) <= FEW else FIRST
    order = np.random.default_rng(0).permutation(len(words))
    _compare_with_later(families, order, 0, first)
    if first < len(words) and _bands_pay(families):
        _compare_agreeing(families)
    else:
        _compare_with_later(families, order, first, len(words))
    return families.number[of_pair].tolist()


class _Families:
    """Which of the different hashes belong together, as far as is known.

    `words` has a row for each hash (N, HASH_BYTES / 8), `number` the number of its family (N).
    """

    def __init__(self, words: np.ndarray):
        self.words, self.number = words, np.arange(len(words))

    def compare(self, one: np.ndarray, other: np.ndarray) -> None:
        """Link the hashes at `one` with those at `other` where they are near-duplicates."""
        apart = self.number[one] != self.number[other]
        one, other = one[apart], other[apart]
        near = self.near(one, other)
        self.link(one[near], other[near])

    def near(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether the hashes at `one` and at `other` are within MAX_DISTANCE: booleans."""
        distances = np.zeros(np.broadcast_shapes(one.shape, other.shape), np.uint16)
        for column in self.words.T:
            distances += np.bitwise_count(column[one] ^ column[other])
        return distances <= MAX_DISTANCE

    def link(self, one: np.ndarray, other: np.ndarray) -> None:
        """Make one family of those of `one` and `other`, for each of these pairs.

        In each round, every family takes the smallest number of those that it is linked with.
        """
        while True:
            a, b = self.number[one], self.number[other]
            apart = a != b
            if not apart.any():
                return
            one, other, a, b = one[apart], other[apart], a[apart], b[apart]
            takes = np.arange(len(self.number))
            np.minimum.at(takes, np.maximum(a, b), np.minimum(a, b))
            while not np.array_equal(takes, takes[takes]):
                takes = takes[takes]
            self.number = takes[self.number]


def _compare_with_later(families: _Families, order: np.ndarray, begin: int, end: int) -> None:
    """Compare each of the hashes order[begin:end] with all that come later in `order`."""
    at_once = max(1, CHUNK // max(1, len(order)))
    blocks = range(begin, end, at_once)
    for start in progress_bar(blocks, "Comparing pictures", f"times {at_once} pictures"):
        block, later = order[start : min(end, start + at_once), None], order[None, start + 1 :]
        one, other = np.nonzero(families.near(block, later))
        families.link(block[one, 0], later[0, other])


def _bands_pay(families: _Families) -> bool:
    """Whether `_compare_agreeing` would compare so few pairs that it costs less than all of them.

    By a sample of pairs.
    """
    count = len(families.words)
    one, other = np.random.default_rng(0).integers(0, count, (2, SAMPLE))
    apart = families.number[one] != families.number[other]
    agree = sum(
        np.bitwise_count(keys[one] ^ keys[other]) <= 1 for keys in _band_keys(families.words)
    )
    return bool(np.mean(agree * apart) * COST_OF_BANDS < 1)


def _compare_agreeing(families: _Families) -> None:
    """Compare the hashes that agree in a band, but for one bit at most.

    Two hashes that differ in two bits or more in every band differ in 2 · BANDS > MAX_DISTANCE
    bits, so no near-duplicate is missed (the pigeonhole principle: Norouzi et al. 2012, "Fast
    Search in Hamming Space with Multi-Index Hashing"). Hashes with the same bits in a band, a
    *bucket*, stand together once they are sorted, and the bucket that differs in a given bit can be
    looked up: two hashes that agree nowhere never meet.
    """
    for keys in progress_bar(
        _band_keys(families.words), "Comparing pictures", "bands", total=BANDS
    ):
        buckets = _Buckets(keys, families.number)
        for one, other in buckets.near_ones():
            for pairs in buckets.pairs(one, other):
                families.compare(*pairs)


def _band_keys(words: np.ndarray) -> Iterator[np.ndarray]:
    """For each band in turn, its bits of every hash as one number: N of them.

    Bits are dealt like cards: neighbours, which often agree, come into different bands.
    """
    bits = np.unpackbits(words.view(np.uint8), axis=1)
    for band in range(BANDS):
        own = bits[:, band::BANDS].astype(np.uint32)
        yield own @ (np.uint32(1) << np.arange(own.shape[1], dtype=np.uint32))


class _Buckets:
    """The hashes sorted by their `keys` in one band.

    Bucket b has the key keys[b] and the hashes order[begin[b] : end[b]]. Those of its largest
    family come first, up to order[mains[b]]: they need no comparison among each other.
    """

    def __init__(self, keys: np.ndarray, number: np.ndarray):
        size = np.bincount(number)
        self.order = np.lexsort((number, -size[number], keys))
        self.number = number[self.order]
        self.keys, self.begin = np.unique(keys[self.order], return_index=True)
        self.end = np.append(self.begin[1:], len(keys))
        in_main = self.number == np.repeat(self.number[self.begin], self.end - self.begin)
        self.mains = self.begin + np.add.reduceat(in_main, self.begin, dtype=np.int64)

    def near_ones(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each bucket with itself, then those that differ in one bit: pairs of numbers b."""
        every = np.arange(len(self.keys))
        yield every, every
        for bit in np.uint32(1) << np.arange(BAND_BITS, dtype=np.uint32):
            without = np.flatnonzero(self.keys & bit == 0)
            wanted = self.keys[without] | bit
            at = np.searchsorted(self.keys, wanted).clip(max=len(self.keys) - 1)
            found = self.keys[at] == wanted
            yield without[found], at[found]

    def pairs(self, one: np.ndarray, other: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each hash of bucket one[k] with each of bucket other[k], about CHUNK pairs at a time.

        A bucket with itself gives each pair once. A hash of the family that comes first in the
        other bucket is compared with the rest of that bucket only.
        """
        size = self.end[one] - self.begin[one]
        of_row = np.repeat(np.arange(len(one)), size)  # a row: a hash of `one`, and a stretch
        rows = _stretches(self.begin[one], size)
        bucket = other[of_row]
        in_main = self.number[rows] == self.number[self.begin[bucket]]
        start = np.where(in_main, self.mains[bucket], self.begin[bucket])
        start = np.where((one == other)[of_row], np.maximum(start, rows + 1), start)
        length = np.maximum(self.end[bucket] - start, 0)
        chunk = np.cumsum(length) // CHUNK
        for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(chunk)) + 1):
            yield (
                self.order[np.repeat(rows[part], length[part])],
                self.order[_stretches(start[part], length[part])],
            )


def _stretches(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The whole numbers from start[k] on, length[k] of them, for each k in turn."""
    before = np.cumsum(length) - length
    return np.repeat(start - before, length) + np.arange(length.sum())
