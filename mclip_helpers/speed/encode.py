"""How a batch becomes features: the two towers, as a training step calls them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from ..model import Clip

Encode: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Encoders:
    """`image` turns what a loader gives for N pictures into features (N, D), `text` their tokens.

    Both take a tensor on any device, and give fp32 on the model's own.
    """

    image: Encode
    text: Encode


def plain_encoders(clip: Clip) -> Encoders:
    """The towers of `clip`, in the precision that its `compute` has chosen."""

    def image(images: torch.Tensor) -> torch.Tensor:
        with clip.compute.autocast():
            return clip.model.encode_image(images.to(clip.device)).float()

    def text(tokens: torch.Tensor) -> torch.Tensor:
        with clip.compute.autocast():
            return clip.model.encode_text(tokens.to(clip.device)).float()

    return Encoders(image, text)
