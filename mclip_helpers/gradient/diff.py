"""Two gradients of the same parameters side by side: are they the same, and if not, where?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..display import ShownAsPicture, Table
from ..names import clean_name, layer_and_part

SHOWN = 10  # rows of the table


@dataclass(frozen=True)
class GradientDiff(ShownAsPicture):
    """How far two gradients are apart, relative to the second: ‖a − b‖ / ‖b‖.

    `modules` has it for the parameters of each module together, by the module's name without PEFT,
    and `total` for all parameters together. 0 means equal to the last bit; a module to which only
    one of the two brought a gradient has ∞.
    """

    modules: Mapping[str, float]
    total: float

    @property
    def worst(self) -> tuple[str, float]:
        """The module in which they are furthest apart, and how far."""
        return max(self.modules.items(), key=lambda item: item[1])

    def __repr__(self) -> str:
        rows = sorted(self.modules.items(), key=lambda item: -item[1])
        shown = [[name, f"{value:.1e}"] for name, value in rows[:SHOWN]]
        if len(rows) > SHOWN:
            shown.append([f"… and {len(rows) - SHOWN} modules that differ less", ""])
        shown.append(["all together", f"{self.total:.1e}"])
        return str(Table(["gradient of", "relative difference"], shown))


def gradient_diff(
    ours: Mapping[str, torch.Tensor | None], theirs: Mapping[str, torch.Tensor | None]
) -> GradientDiff:
    """Compare the gradients of parameters by their names, with PEFT's additions or without.

    None stands for a gradient that did not arrive. Computed in float64. ValueError if the two have
    no name in common, or two gradients of one name have not the same shape.
    """
    a, b = ({clean_name(name): g for name, g in side.items()} for side in (ours, theirs))
    if not a.keys() & b.keys():
        raise ValueError(
            f"these gradients have no parameter in common: {_some(a)} on one side, {_some(b)} on "
            f"the other"
        )
    squares: dict[str, list[float]] = {}
    for name in (*b, *(n for n in a if n not in b)):
        apart, size = _squares(name, a.get(name), b.get(name))
        module = squares.setdefault(layer_and_part(name)[0] or name, [0.0, 0.0])
        module[0] += apart
        module[1] += size
    both = (sum(column) for column in zip(*squares.values(), strict=True))
    return GradientDiff({name: _ratio(*pair) for name, pair in squares.items()}, _ratio(*both))


def _some(gradients: Mapping[str, object]) -> str:
    return ", ".join(list(gradients)[:2]) or "none"


def _squares(name: str, a: torch.Tensor | None, b: torch.Tensor | None) -> tuple[float, float]:
    """‖a − b‖² and ‖b‖²; ∞ and ‖b‖² if only one of them is there."""
    if a is None and b is None:
        return 0.0, 0.0
    if a is None or b is None:
        some = a if b is None else b
        return (math.inf if some is not None and some.any() else 0.0), 0.0
    if a.shape != b.shape:
        raise ValueError(
            f"the gradients of {name} have the shapes {tuple(a.shape)} and {tuple(b.shape)}: these "
            f"are not the same parameters"
        )
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    return (a - b).square().sum().item(), b.square().sum().item()


def _ratio(apart: float, size: float) -> float:
    if size == 0:
        return 0.0 if apart == 0 else math.inf
    return math.sqrt(apart / size)
