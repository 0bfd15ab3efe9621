"""Pictures as another sensor would give them: the same things in a look that no model has seen.

A *shift* is any function from an RGB picture to an RGB picture of the same size. The two here are
computed, so the look of every emoji is known exactly, and a reader can invent a third.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter, ImageOps

Shift = Callable[[Image.Image], Image.Image]

EDGE = 24  # of 255
MARGIN = 4  # pixels, beyond what blur and edges look at


def thermal(picture: Image.Image) -> Image.Image:
    """Brightness in false colours, as a thermal camera shows temperature: what is dark looks hot.

    With g the grey value (ITU-R 601) in 0…1 and h = 1 − g: red is 1.5 h, green 2 h − 0.8, blue
    0.7 sin(π h), each cut to 0…1. White becomes black, mid-grey orange, and black yellow.
    """
    hot = 1 - np.asarray(picture.convert("L"), dtype=np.float64) / 255
    colours = np.stack([1.5 * hot, 2 * hot - 0.8, 0.7 * np.sin(np.pi * hot)], axis=-1)
    return Image.fromarray((255 * colours.clip(0, 1)).round().astype(np.uint8))


def sketch(picture: Image.Image) -> Image.Image:
    """Black lines on white where brightness changes.

    In grey from black to white (the picture's darkest and brightest value), at twice the size
    (bicubic), and blurred (Gaussian, 1 pixel), a point becomes black if 8 times its value exceeds
    the sum of its eight neighbours by more than EDGE, else white. Then each four points are
    averaged, which gives the picture's own size again.
    """
    grey = ImageOps.autocontrast(picture.convert("L"))  # or a white heart would leave no line
    grey = grey.resize((2 * grey.width, 2 * grey.height), Image.Resampling.BICUBIC)
    # The outermost pixels are repeated outside, or the picture's own border would become a line.
    wide = Image.fromarray(np.pad(np.asarray(grey), MARGIN, mode="edge"))
    edges = wide.filter(ImageFilter.GaussianBlur(1)).filter(ImageFilter.FIND_EDGES)
    lines = ImageOps.crop(edges.point(lambda edge: 0 if edge > EDGE else 255), MARGIN)
    return lines.resize(picture.size, Image.Resampling.BOX).convert("RGB")


SHIFTS: dict[str, Shift] = {"thermal": thermal, "sketch": sketch}
