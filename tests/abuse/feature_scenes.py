"""Features that are none, for all that compares features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from cases import Case
from torch import nn
from training_scenes import adapted_to_be_left_alone

Both = tuple[torch.Tensor, torch.Tensor]

WRONG_FEATURES: dict[str, Callable[[torch.Tensor], Any]] = {
    "None": lambda x: None,
    "a list": lambda x: x.tolist(),
    "a tuple": lambda x: (x, x),
    "an array": lambda x: x.numpy(),
    "a Clip": lambda x: adapted_to_be_left_alone(),
    "a model": lambda x: nn.Linear(8, 8),
    "integers": lambda x: x.long(),
    "bools": lambda x: x > 0,
    "complex numbers": lambda x: x.to(torch.complex64),
    "a single number": lambda x: x.sum(),
    "one vector": lambda x: x[0],
    "three-dimensional": lambda x: x[None],
    "of another dtype": lambda x: x.double(),
    "of half precision": lambda x: x.half(),
    "on another device": lambda x: x.to("meta"),
    "of another width": lambda x: x[:, :7],
    "NaN in one row": lambda x: x.index_fill(0, torch.tensor([2]), math.nan),
    "NaN in one number": lambda x: torch.where(torch.arange(32).view(4, 8) == 9, math.nan, x),
    "infinite in one row": lambda x: x.index_fill(0, torch.tensor([2]), -math.inf),
    "NaN": lambda x: x * math.nan,
    "empty": lambda x: x[:0],
}


def features(folder: Path) -> Both:
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, 4, 8, generator=generator)
    return image, text


def kept(both: Both) -> list:
    return [each.tolist() for each in both]


def refused_features(
    name: str, call: Callable[[Any, Any], object], **more: Callable[[torch.Tensor], Any]
) -> Iterator[Case]:
    """The promise that `call`, by its `name`, refuses what is wrong on either side."""
    for side in ("image", "text"):
        for what, make in (WRONG_FEATURES | more).items():

            def does(both: Both, side: str = side, make: Callable = make) -> object:
                image, text = both
                return call(make(image), text) if side == "image" else call(image, make(text))

            yield Case(
                f"{name} with {side} features that are {what} is refused",
                features,
                does,
                refused=(TypeError, ValueError),
                says=(f"{side}_features",),
                keeps=kept,
            )
