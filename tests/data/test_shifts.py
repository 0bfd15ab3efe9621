"""The computed looks: their formulas, point by point, and any function as a look."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

import mclip_helpers as mh
from mclip_helpers.data import emoji as emojis
from mclip_helpers.data.shifts import SHIFTS


def grey(*values: int) -> Image.Image:
    """A row of grey points, as RGB."""
    return Image.fromarray(np.array([values], dtype=np.uint8)).convert("RGB")


@pytest.mark.parametrize("value", [0, 40, 100, 128, 200, 255])
def test_thermal_has_the_colours_of_its_formula(value):
    hot = 1 - value / 255
    formula = (1.5 * hot, 2 * hot - 0.8, 0.7 * math.sin(math.pi * hot))
    expected = tuple(round(255 * min(1, max(0, channel))) for channel in formula)
    assert mh.thermal(grey(value)).getpixel((0, 0)) == expected


def test_thermal_makes_white_black_and_black_yellow():
    picture = mh.thermal(grey(255, 0))
    assert picture.getpixel((0, 0)) == (0, 0, 0)
    assert picture.getpixel((1, 0)) == (255, 255, 0)


def test_a_sketch_has_lines_only_where_brightness_changes():
    halves = np.full((40, 40), 255, np.uint8)
    halves[:, 20:] = 60
    lines = np.asarray(mh.sketch(Image.fromarray(halves).convert("RGB")).convert("L"))
    dark = np.flatnonzero((lines < 128).any(axis=0))
    assert set(dark) <= {18, 19, 20, 21} and len(dark) > 0
    assert (lines[:, dark[0]] < 255).all(), "from the upper edge to the lower one"


@pytest.mark.parametrize("value", [0, 255])
def test_a_sketch_of_one_colour_is_empty_and_has_no_frame(value):
    flat = Image.new("RGB", (30, 20), (value,) * 3)
    assert np.asarray(mh.sketch(flat)).min() == 255


def test_a_sketch_finds_pale_things():
    pale = np.full((40, 40), 255, np.uint8)
    pale[10:30, 10:30] = 250
    assert np.asarray(mh.sketch(Image.fromarray(pale).convert("RGB"))).min() == 0


@pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)
def test_a_shift_keeps_the_size_and_the_original_and_is_deterministic(shift):
    original = Image.effect_noise((31, 17), 80).convert("RGB")
    before = original.tobytes()
    first, second = shift(original), shift(original)
    assert (first.mode, first.size) == ("RGB", (31, 17))
    assert first.tobytes() == second.tobytes()
    assert original.tobytes() == before


@pytest.mark.parametrize("style", SHIFTS)
def test_an_emoji_dataset_in_a_computed_style_is_the_shifted_twemoji(style):
    made, original = (mh.emoji_dataset(s, "val", language="ko") for s in (style, "twemoji"))
    by_hand = original.shifted(SHIFTS[style])
    assert made.captions == original.captions
    assert [p.digest for p in made.pairs] == [p.digest for p in by_hand.pairs]
    assert original.credit in made.credit and style in made.credit
    assert made[3][0].tobytes() == SHIFTS[style](original[3][0]).tobytes()


def test_any_function_of_a_picture_is_a_look(twemoji):
    mirrored = twemoji.shifted(lambda picture: picture.transpose(0), "mirrored")
    assert mirrored.captions == twemoji.captions
    assert mirrored.credit == f"{twemoji.credit}; mirrored"
    assert mirrored[0][0].tobytes() == twemoji[0][0].transpose(0).tobytes()
    assert all(a.digest != b.digest for a, b in zip(mirrored.pairs, twemoji.pairs, strict=True))


def test_what_looks_the_same_afterwards_is_equally_good(twemoji):
    black = twemoji.shifted(lambda picture: Image.new("L", picture.size))
    assert len(set(twemoji.groups)) == len(twemoji)
    assert set(black.groups) == {0}
    assert black[0][0].mode == "RGB"


def test_a_shift_that_is_no_function_is_refused(twemoji):
    with pytest.raises(TypeError, match="shift is a str; it must be a function"):
        twemoji.shifted("thermal")


def test_every_picture_that_a_shift_can_not_change_is_named(twemoji):
    names = [pair.name for pair in twemoji.pairs[:2]]

    def shift(picture: Image.Image) -> Image.Image | None:
        seen.append(picture)
        return None if len(seen) <= 2 else picture

    seen: list[Image.Image] = []
    with pytest.raises(mh.DataError) as caught:
        twemoji.shifted(shift)
    assert len(caught.value.problems) == 2
    assert all(name in str(caught.value) for name in names)


def test_every_style_has_a_credit():
    assert set(emojis.CREDITS) == set(emojis.STYLES)
