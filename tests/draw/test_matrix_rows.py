"""Matrices in a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from shown import texts

from mclip_helpers import draw


def test_matrices_stand_side_by_side_to_one_scale_with_signs_between_them():
    shown = {"B": torch.randn(16, 2), "A": torch.randn(2, 5)}  # B is narrower than its slot
    axes = draw.matrices(shown, ["·"]).axes[0]
    for image, matrix in zip(axes.images, shown.values(), strict=True):
        left, right, bottom, top = image.get_extent()
        assert (bottom - top, right - left) == pytest.approx(matrix.shape)
        assert np.array_equal(image.get_array(), matrix.numpy())
        low, high = image.get_clim()
        assert -low == high, "white is zero"
    first, second = (image.get_extent() for image in axes.images)
    [sign] = [text for text in axes.texts if text.get_text() == "·"]
    assert first[1] < second[0]
    assert sign.get_position() == pytest.approx(((first[1] + second[0]) / 2, 0))


def test_matrices_are_named_and_counted_and_a_kernel_is_a_matrix():
    written = texts(draw.matrices({"W": torch.zeros(4, 2, 3, 3)}))
    assert written == ["W", "4 × 18 = 72"]


def test_a_matrix_has_a_frame_of_its_colour_or_of_what_is_frozen():
    shown = {"W": torch.ones(2, 2), "B": torch.ones(2, 1)}
    frames = draw.matrices(shown, colours={"B": draw.COLOURS["adapter"]}).axes[0].patches
    colours = [frame.get_edgecolor() for frame in frames]
    assert colours == [to_rgba(draw.COLOURS[kind]) for kind in ("frozen", "adapter")]
