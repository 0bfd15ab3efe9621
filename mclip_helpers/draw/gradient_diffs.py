"""How far two gradients are apart, module by module, beside what rounding alone can do."""

from __future__ import annotations

import math

import torch

from ..colours import COLOURS, GREY
from ..display import Chart, picture_of
from ..gradient.diff import GradientDiff
from ..names import short_name, tower_of
from .captions import escaped
from .charts import bare

# The distance from 1 to the next number: what a single rounding may do.
ROUNDING = {
    "fp64": torch.finfo(torch.float64).eps,
    "fp32": torch.finfo(torch.float32).eps,
    "bf16": torch.finfo(torch.bfloat16).eps,
    "100 %": 1.0,
}
FLOOR, TOP = 1e-17, 30.0
MOST_NAMES = 40


@picture_of.register
def gradient_diff(diff: GradientDiff) -> Chart:
    """A dot for each module at its relative difference, on a logarithmic axis.

    Lines mark the rounding of each precision. A module whose gradients are equal to the last bit
    stands at the left edge, one that has only one of the two at the right edge. Names are left out
    where there are more than 40 modules.
    """
    if not isinstance(diff, GradientDiff):
        raise TypeError(
            f"this is a {type(diff).__name__}; pass the GradientDiff of two recordings: "
            f"a.graph.diff(b.graph)"
        )
    rows = len(diff.modules)
    height = 0.2 if rows <= MOST_NAMES else 8 / rows  # inches
    figure = Chart(figsize=(7.5, height * rows + 1.0))
    axes = figure.subplots()
    for name, place in ROUNDING.items():
        axes.axvline(place, color=GREY, lw=1, ls="--")
        axes.annotate(name, (place, 1), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    for y, (module, value) in enumerate(diff.modules.items()):
        colour = COLOURS[tower_of(module) or "loss"]
        marker = "o" if 0 < value < math.inf else ("<" if value == 0 else ">")
        axes.plot(min(max(value, FLOOR), TOP), y, marker, color=colour, ms=4)
    axes.set_xscale("log")
    axes.set_xlim(FLOOR / 2, TOP * 2)
    axes.set_ylim(rows - 0.4, -0.6)
    names = [escaped(short_name(module), 60) for module in diff.modules]
    axes.set_yticks(range(rows), names, fontsize=7.5) if rows <= MOST_NAMES else axes.set_yticks([])
    axes.set_xlabel("relative difference of the gradients (◂ equal to the last bit)", fontsize=9)
    bare(axes)
    return figure
