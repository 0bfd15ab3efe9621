"""Near-duplicates: a picture and its resized, re-encoded or slightly brightened copy.

A perceptual hash finds them. Unlike a digest, it changes only a little when the picture does.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from .pairs import PictureDataset

HASH_BYTES = 56

# The largest Hamming distance, in bits, between the hashes of near-duplicates. Measured on 243
# photographs of things in a shop. A copy that was resized, re-encoded as JPEG down to quality 20,
# or made a tenth brighter or darker is at most 22 bits from its original (a quarter brighter: 43).
# Different photographs are at least 58 bits apart, and 99.9 % of their pairs at least 124.
MAX_DISTANCE = 40


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


def duplicate_groups(dataset: PictureDataset, rows: int = 256) -> list[int]:
    """`dataset.groups`, with groups merged that contain near-duplicates of each other: N numbers.

    Compares `rows` pictures at a time with all that follow, so that memory grows with rows · N.
    Loads the pictures whose perceptual hash is not known yet.
    """
    hashes = b"".join(p.perceptual_hash or perceptual_hash(p.load()) for p in dataset.pairs)
    words = np.frombuffer(hashes, np.uint64).reshape(-1, HASH_BYTES // 8)
    groups = np.array(dataset.groups)
    for start in range(0, len(words), rows):
        block, rest = words[start : start + rows], words[start:]
        distances = np.zeros((len(block), len(rest)), np.uint16)
        for word in range(words.shape[1]):
            distances += np.bitwise_count(block[:, None, word] ^ rest[None, :, word])
        for near in distances <= MAX_DISTANCE:
            merged = np.unique(groups[start:][near])
            if len(merged) > 1:
                groups[np.isin(groups, merged)] = merged[0]
    return groups.tolist()
