"""The two towers, step by step."""

from __future__ import annotations

import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from shown import texts

from mclip_helpers import draw

IMAGE = [("transform", 0, (3, 64, 64)), ("stem", 1234, (64, 16, 16)), ("head", 56, (128,))]
TEXT = [("tokenizer", 0, (77,)), ("pool", 7, (128,))]


@pytest.fixture(scope="module")
def chart() -> draw.Chart:
    picture = Image.new("RGB", (8, 8), "red")
    return draw.towers(IMAGE, TEXT, picture, "a cat", 0.254, credit="somebody")


def test_towers_writes_each_step_with_its_parameters_and_its_shape(chart: draw.Chart):
    written = texts(chart)
    for text in ("stem", "1,234", "64 × 16 × 16", "head", "56", "pool", "7", "77"):
        assert text in written
    assert written.count("128") == 2, "the shape of both vectors"
    assert written.count("nothing learned") == 2
    assert {"image tower", "text tower", "“a cat”", "cosine 0.25", "somebody"} <= set(written)


def test_towers_has_a_box_for_each_step_and_a_dashed_one_where_nothing_is_learned(
    chart: draw.Chart,
):
    boxes = [patch for patch in chart.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    colours = [to_rgb(box.get_edgecolor()) for box in boxes]
    kinds = ["image"] * len(IMAGE) + ["text"] * len(TEXT) + ["loss"]
    assert colours == [to_rgb(draw.COLOURS[kind]) for kind in kinds]
    dashed = [box.get_linestyle() == "--" for box in boxes]
    assert dashed == [parameters == 0 for _, parameters, _ in IMAGE + TEXT] + [False]
