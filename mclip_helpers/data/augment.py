"""A little augmentation: each time that a picture is shown, it lies a bit differently."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomAffine
from torchvision.transforms.functional import affine


@dataclass(frozen=True)
class Jitter:
    """Turn, move and scale a picture at random, by at most so much; PyTorch's generator decides.

    `degrees` to either side, `translate` as a share of width and height, `scale` as (least, most).
    Where nothing is left to show, it takes the median colour of the picture's own border, so that
    no look gets corners in a colour that is not its own.
    """

    degrees: float = 10
    translate: float = 0.05
    scale: tuple[float, float] = (0.85, 1.1)

    def __call__(self, picture: Image.Image) -> Image.Image:
        angle, moved, scale, shear = RandomAffine.get_params(
            (-self.degrees, self.degrees),
            (self.translate, self.translate),
            self.scale,
            None,
            list(picture.size),
        )
        return affine(
            picture,
            angle,
            moved,
            scale,
            shear,
            interpolation=InterpolationMode.BILINEAR,
            fill=_border_colour(picture),
        )


def _border_colour(picture: Image.Image) -> list[float]:
    """The median of the outermost pixels, channel by channel."""
    pixels = np.asarray(picture.convert("RGB"))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.median(border, axis=0).tolist()
