"""The perceptual hash, and the near-duplicates that it finds."""

from __future__ import annotations

import io
import itertools
import tracemalloc

import numpy as np
import pytest
from conftest import partition
from fake_pairs import components, is_linked, linked_pairs, strangers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mclip_helpers as mh
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


@SLOW_IS_FINE
@given(linked_pairs(), st.integers(1, 40))
def test_duplicate_groups_are_the_connected_components_whatever_the_rows_at_a_time(pairs, rows):
    groups = duplicate_groups(mh.PictureDataset(pairs), rows)
    n = len(pairs)
    linked = np.array([[is_linked(a, b) for b in pairs] for a in pairs], bool).reshape(n, n)
    assert partition(groups) == components(linked)


def test_comparing_all_pictures_takes_memory_for_a_few_rows_alone():
    dataset = strangers(3000)
    tracemalloc.start()
    duplicate_groups(dataset, rows=10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3000 * 3000 / 4, "less than a byte for every fourth of the pairs of pictures"
