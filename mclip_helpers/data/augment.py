"""A little augmentation: each time that a picture is shown, it lies a bit differently."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import affine_grid, grid_sample
from torchvision.transforms import InterpolationMode, RandomAffine
from torchvision.transforms.functional import affine


@dataclass(frozen=True)
class Jitter:
    """Turn, move and scale a picture at random, by at most so much; PyTorch's generator decides.

    `degrees` to either side, `translate` as a share of width and height, `scale` as (least, most).
    Where nothing is left to show, it takes the median colour of the picture's own border, so that
    no look gets corners in a colour that is not its own.

    `Jitter()(picture)` changes one picture, `Jitter().batch(images)` a batch, each image otherwise.
    """

    degrees: float = 10
    translate: float = 0.05
    scale: tuple[float, float] = (0.85, 1.1)

    def __call__(self, picture: Image.Image) -> Image.Image:
        if not isinstance(picture, Image.Image):
            raise TypeError(
                f"this changes a picture of Pillow, and not a {type(picture).__name__}; for a "
                f"batch of images there is Jitter().batch"
            )
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

    def batch(self, images: torch.Tensor) -> torch.Tensor:
        """The same of images (N, 3, H, W) on any device, as a model's transform leaves them."""
        count = len(images)

        def drawn(low: float, high: float, *shape: int) -> torch.Tensor:
            return torch.empty(count, *shape, device=images.device).uniform_(low, high)

        return moved(
            images,
            drawn(-self.degrees, self.degrees),
            drawn(-self.translate, self.translate, 2),
            drawn(*self.scale),
        )


def moved(
    images: torch.Tensor,
    degrees: torch.Tensor,
    translate: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """Images (N, 3, H, W), each turned, moved and scaled around its middle, bilinearly.

    `degrees` (N) are clockwise, `translate` (N, 2) are shares of width and height to the right and
    down, and `scale` (N) is how many times as large. Outside is the median colour of the border.
    """
    count, _, height, width = images.shape
    border = (images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1])
    fill = torch.cat(border, dim=-1).median(dim=-1).values[..., None, None]
    # For each place of the result, where it comes from: the inverse of the motion. In affine_grid's
    # coordinates, width and height reach from −1 to 1.
    radians = degrees.deg2rad()
    cos, sin = radians.cos() / scale, radians.sin() / scale
    turned = torch.stack([cos, sin * height / width, -sin * width / height, cos], -1)
    turned = turned.view(count, 2, 2)
    shift = turned @ (-2 * translate)[..., None]
    grid = affine_grid(torch.cat([turned, shift], -1), list(images.shape), align_corners=False)
    return grid_sample(images - fill, grid.to(images.dtype), align_corners=False) + fill


def _border_colour(picture: Image.Image) -> list[float]:
    """The median of the outermost pixels, channel by channel."""
    pixels = np.asarray(picture.convert("RGB"))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.median(border, axis=0).tolist()
