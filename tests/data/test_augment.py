"""Jitter: what it may move, and what colour comes in from outside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mclip_helpers.data import Jitter


def square(background: tuple[int, int, int]) -> Image.Image:
    """A red square in the middle of a background."""
    picture = Image.new("RGB", (40, 40), background)
    picture.paste((255, 0, 0), (10, 10, 30, 30))
    return picture


@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), (20, 90, 200)])
def test_corners_take_the_colour_of_the_border(background):
    torch.manual_seed(0)
    for _ in range(20):
        moved = Jitter(degrees=40, translate=0.2, scale=(0.5, 0.8))(square(background))
        assert moved.size == (40, 40)
        corners = np.asarray(moved)[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners == background).all()


def test_nothing_moves_where_nothing_may():
    still = Jitter(degrees=0, translate=0, scale=(1, 1))
    assert still(square((0, 0, 0))).tobytes() == square((0, 0, 0)).tobytes()


def test_pytorchs_generator_decides():
    def moved(seed: int) -> bytes:
        torch.manual_seed(seed)
        return Jitter()(square((0, 0, 0))).tobytes()

    assert moved(0) == moved(0) != moved(1)
