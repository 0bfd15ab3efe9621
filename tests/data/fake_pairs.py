"""Pairs whose pictures are made when they are loaded, or can't be loaded at all."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

import mclip_helpers as mh
from mclip_helpers.data import Pair
from mclip_helpers.data.duplicates import HASH_BYTES, MAX_DISTANCE


def numbered(n: int, captions: int = 1) -> tuple[mh.PictureDataset, SimpleNamespace]:
    """Pictures whose red is their number, and a stand-in for a model that reads it.

    The first caption is the number too, and each further one is 100 more than the one before.
    """

    def number(picture: Image.Image) -> torch.Tensor:
        return torch.tensor(picture.getpixel((0, 0))[0])

    def load(i: int) -> Image.Image:
        return Image.new("RGB", (1, 1), (i, 0, 0))

    pairs = [
        Pair(str(i), tuple(str(i + 100 * k) for k in range(captions)), str(i), partial(load, i))
        for i in range(n)
    ]
    clip = SimpleNamespace(
        preprocess=number, tokenizer=lambda texts: torch.tensor([int(text) for text in texts])
    )
    return mh.PictureDataset(pairs), clip


def no_picture() -> Image.Image:
    raise AssertionError("no picture is needed here")


def pair(digest: str, *captions: str, perceptual_hash: bytes | None = None) -> Pair:
    """A pair without a picture."""
    return Pair(digest, captions, digest, no_picture, perceptual_hash)


def strangers(n: int) -> mh.PictureDataset:
    """N pairs, no two of which have anything in common."""
    rng = np.random.default_rng(0)
    pairs = [pair(str(i), str(i), perceptual_hash=rng.bytes(HASH_BYTES)) for i in range(n)]
    return mh.PictureDataset(pairs, "credit")


# Hashes that begin with zeros and end in ones: two of them are as far apart as their numbers of
# ones. And random ones, which are far from all others.
STEPS = st.integers(0, 8 * HASH_BYTES).map(lambda ones: ((1 << ones) - 1).to_bytes(HASH_BYTES))
RANDOM = st.integers(0, 2**30).map(lambda seed: np.random.default_rng(seed).bytes(HASH_BYTES))


@st.composite
def linked_pairs(draw: st.DrawFn) -> list[Pair]:
    """Pairs that share pixels and captions, or are near-duplicates, in all sorts of chains."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    words = st.text(letters, min_size=2, max_size=2)
    captions = st.lists(words, min_size=1, max_size=3, unique=True)
    return [
        pair(draw(words), *draw(captions), perceptual_hash=draw(STEPS | RANDOM))
        for _ in range(draw(st.integers(0, 30)))
    ]


def is_linked(one: Pair, other: Pair) -> bool:
    """Whether a split must keep two pairs together, by the definition."""
    differing = int.from_bytes(one.perceptual_hash) ^ int.from_bytes(other.perceptual_hash)
    return (
        one.digest == other.digest
        or bool(set(one.captions) & set(other.captions))
        or differing.bit_count() <= MAX_DISTANCE
    )


def components(linked: np.ndarray) -> set[frozenset[int]]:
    """The connected components of a symmetric N×N relation, by its transitive closure."""
    linked = linked.copy()
    for via in range(len(linked)):
        linked |= linked[:, via : via + 1] & linked[via : via + 1, :]
    return {frozenset(np.flatnonzero(row).tolist()) for row in linked}
