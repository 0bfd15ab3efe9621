"""The perceptual hash, and the near-duplicates that it finds."""

from __future__ import annotations

import io
import itertools
import tracemalloc

import numpy as np
import pytest
from conftest import partition
from fake_pairs import components, is_linked, linked_pairs, pair, strangers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mclip_helpers as mh
from mclip_helpers.data import duplicates
from mclip_helpers.data.duplicates import (
    HASH_BYTES,
    MAX_DISTANCE,
    duplicate_groups,
    perceptual_hash,
)
from mclip_helpers.data.images import open_picture

RED, WHITE = (255, 0, 0), (255, 255, 255)
SLOW_IS_FINE = settings(deadline=None)  # tests run on busy machines


def scene(seed: int, size: tuple[int, int] = (256, 192)) -> Image.Image:
    """Soft patches of colour, as in a photograph out of focus."""
    patches = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def distance(one: Image.Image, other: Image.Image) -> int:
    """The Hamming distance between the hashes of two pictures."""
    a, b = (int.from_bytes(perceptual_hash(picture)) for picture in (one, other))
    return (a ^ b).bit_count()


def through_jpeg(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=50)
    return open_picture(buffer.getvalue())


COPIES = {
    "smaller": lambda p: p.resize((p.width // 3, p.height // 3), Image.Resampling.LANCZOS),
    "larger": lambda p: p.resize((p.width * 2, p.height * 2), Image.Resampling.BICUBIC),
    "squeezed": lambda p: p.resize((224, 224), Image.Resampling.BICUBIC),
    "JPEG": through_jpeg,
    "brighter": lambda p: p.point(lambda value: min(255, value * 1.08)),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_near_and_another_scene_is_not(copy):
    for seed in range(10):
        assert distance(scene(seed), COPIES[copy](scene(seed))) <= MAX_DISTANCE
        assert distance(scene(seed), COPIES[copy](scene(seed + 1))) > 2 * MAX_DISTANCE


def test_a_mirrored_picture_is_not_near():
    mirrored = scene(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert distance(scene(0), mirrored) > MAX_DISTANCE


def test_flat_pictures_of_different_colours_are_not_near():
    flat = [Image.new("RGB", (30, 20), colour) for colour in (RED, WHITE, (0, 0, 255), (0, 0, 0))]
    for one, other in itertools.combinations(flat, 2):
        assert distance(one, other) > MAX_DISTANCE


@pytest.mark.parametrize("level", [51, 102, 153, 204])
def test_the_colour_of_a_cell_changes_its_bit_at_each_of_four_levels(level):
    below, at, above = (Image.new("RGB", (8, 8), (v, 0, 0)) for v in (level - 1, level, level + 1))
    assert distance(below, at) == 16, "one for each cell of the grid of 4×4"
    assert distance(at, above) == 0


def test_a_perceptual_hash_has_its_length_whatever_the_size():
    for size in ((1, 1), (1, 500), (3000, 20)):
        assert len(perceptual_hash(Image.new("RGB", size, RED))) == HASH_BYTES


# By comparing all hashes; by bands alone; by bands after comparing some; outright after some.
WAYS = {
    "all": (10**6, 0, True),
    "bands": (0, 0, True),
    "both": (0, 3, True),
    "later": (0, 3, False),
}


def in_this_way(patch: pytest.MonkeyPatch, few: int, first: int, bands: bool) -> None:
    patch.setattr(duplicates, "FEW", few)
    patch.setattr(duplicates, "FIRST", first)
    patch.setattr(duplicates, "_bands_pay", lambda families: bands)


@pytest.mark.parametrize("way", WAYS)
@SLOW_IS_FINE
@given(linked_pairs(), st.integers(1, 40))
def test_duplicate_groups_are_the_connected_components_in_every_way(way, pairs, chunk):
    with pytest.MonkeyPatch.context() as patch:
        in_this_way(patch, *WAYS[way])
        patch.setattr(duplicates, "CHUNK", chunk)
        groups = duplicate_groups(mh.PictureDataset(pairs))
    n = len(pairs)
    linked = np.array([[is_linked(a, b) for b in pairs] for a in pairs], bool).reshape(n, n)
    assert partition(groups) == components(linked)


def flipped(rng: np.random.Generator, hashes: np.ndarray, bits: int) -> np.ndarray:
    """Each hash with `bits` of its bits changed."""
    changed = np.unpackbits(hashes, axis=1)
    where = rng.random(changed.shape).argsort(axis=1)[:, :bits]
    np.put_along_axis(changed, where, 1 - np.take_along_axis(changed, where, 1), 1)
    return np.packbits(changed, axis=1)


def families(rng: np.random.Generator, count: int, members: int, bits: int) -> np.ndarray:
    """`count` families, each of one random hash and of others at this distance from it."""
    first = rng.integers(0, 256, (count, HASH_BYTES), dtype=np.uint8)
    return np.concatenate([first, flipped(rng, np.repeat(first, members - 1, axis=0), bits)])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bits", [5, 20, 21, MAX_DISTANCE, MAX_DISTANCE + 1])
def test_a_copy_is_found_up_to_the_last_bit_and_none_beyond(way, bits, monkeypatch):
    in_this_way(monkeypatch, *WAYS[way])
    hashes = families(np.random.default_rng(bits), 40, 6, bits)
    words = hashes.view(np.uint64)
    distances = np.bitwise_count(words[:, None] ^ words[None]).sum(axis=2)
    pairs = [pair(str(i), str(i), perceptual_hash=row.tobytes()) for i, row in enumerate(hashes)]
    groups = duplicate_groups(mh.PictureDataset(pairs))
    assert partition(groups) == components(distances <= MAX_DISTANCE)
    assert len(set(groups)) == (40 if bits <= MAX_DISTANCE else 240)


def test_hashes_that_agree_nowhere_never_meet(monkeypatch):
    met = []
    monkeypatch.setattr(duplicates._Families, "compare", lambda self, one, _: met.append(len(one)))
    in_this_way(monkeypatch, *WAYS["bands"])
    duplicate_groups(strangers(5000))
    assert sum(met) < 5000 * 5000 / 1000


def test_pictures_that_look_alike_and_are_no_copies_are_compared_outright():
    rng = np.random.default_rng(0)
    assert duplicates._bands_pay(duplicates._Families(families(rng, 500, 10, 20).view(np.uint64)))
    alike = families(rng, 1, 5000, 60).view(np.uint64)
    assert not duplicates._bands_pay(duplicates._Families(alike))


@pytest.mark.parametrize("way", ["all", "bands"])
def test_comparing_pictures_takes_memory_for_some_of_them_at_a_time(way, monkeypatch):
    in_this_way(monkeypatch, *WAYS[way])
    monkeypatch.setattr(duplicates, "CHUNK", 2**14)
    dataset = strangers(3000)
    tracemalloc.start()
    duplicate_groups(dataset)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3000 * 3000 / 2, "less than a byte for every other of the pairs of pictures"
