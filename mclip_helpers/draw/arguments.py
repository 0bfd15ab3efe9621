"""Arguments of drawing functions: what can't be drawn is refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized

import numpy as np
import torch
from PIL import Image


def require_as_many(name: str, values: Sized, what: str, count: int) -> None:
    """Raise ValueError unless there are as many `values` as of what they belong to."""
    if len(values) != count:
        raise ValueError(f"there are {len(values)} {name} for {count} {what}: give one for each")


def require_texts(name: str, values: object) -> None:
    """Raise TypeError if a list of texts is meant, and this is a single text, or no list at all."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} is a {type(values).__name__}; pass a list of texts")


def require_mapping(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a dict, ValueError if it is empty."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is a {type(value).__name__}; pass a dict, with a name for each")
    if not value:
        raise ValueError(f"{name} is empty: there is nothing to draw")


def pictures_of(images: object) -> list[Image.Image]:
    """`to_picture` of each. TypeError for what is no list, ValueError for an empty one."""
    if not isinstance(images, Sequence | torch.Tensor) or isinstance(images, str):
        raise TypeError(f"this is a {type(images).__name__}; pass a list of pictures")
    if not len(images):
        raise ValueError("there is no picture to draw: the list is empty")
    return [to_picture(image, i) for i, image in enumerate(images)]


def to_picture(image: object, number: int = 0) -> Image.Image:
    """A PIL picture as it is; a tensor (3, H, W) as a picture, its values clipped to 0…1.

    TypeError for anything else, ValueError for a tensor of another shape; `number` names it.
    """
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, torch.Tensor):
        raise TypeError(
            f"picture {number} is a {type(image).__name__}; pass PIL pictures or tensors (3, H, W)"
        )
    if image.dim() != 3 or image.shape[0] != 3 or not image.numel():
        raise ValueError(
            f"picture {number} is a tensor of shape {tuple(image.shape)}; it must be (3, H, W)"
        )
    array = image.detach().cpu().float().nan_to_num().clamp(0, 1).permute(1, 2, 0).numpy()
    return Image.fromarray((array * 255).round().astype(np.uint8))


def finite_tensor(name: str, value: object, dim: int) -> torch.Tensor:
    """`value` as a tensor of 32-bit floats on the CPU.

    TypeError if it is no tensor. ValueError unless it has `dim` dimensions and something in them,
    and every number is finite.
    """
    found = tensor_of(name, value, dim)
    if not found.isfinite().all():
        bad = int((~found.isfinite()).sum())
        raise ValueError(f"{name}: {bad} of {found.numel():,} numbers are NaN or infinite")
    return found


def tensor_of(name: str, value: object, dim: int) -> torch.Tensor:
    """The same, with NaN and infinite numbers allowed."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}; pass a tensor")
    if value.dim() != dim or not value.numel():
        wanted = "a vector" if dim == 1 else "a matrix"
        raise ValueError(
            f"{name} has the shape {tuple(value.shape)}; it must be {wanted} that is not empty"
        )
    return value.detach().cpu().float()
