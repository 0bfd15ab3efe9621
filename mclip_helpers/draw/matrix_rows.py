"""Matrices in a row, as in W + B · A: `matrices`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ..colours import COLOURS
from ..display import Chart
from .arguments import finite_tensor, require_mapping
from .captions import escaped


def matrices(
    shown: Mapping[str, torch.Tensor],
    signs: Sequence[str] = (),
    *,
    colours: Mapping[str, str] | None = None,
) -> Chart:
    """Matrices in a row, all to one scale of length. Red is positive, blue negative, white zero.

    `signs` stand between them ("+", "·", "="); `colours` gives the frames of some by name. The
    kernel of a convolution is drawn as a matrix (out, all other dimensions). ValueError for NaN,
    infinite numbers, and what is no matrix.
    """
    require_mapping("shown", shown)
    values = {name: _as_matrix(name, m).numpy() for name, m in shown.items()}
    signs = [escaped(sign) for sign in signs]
    size = max(max(m.shape) for m in values.values())
    slots = [max(m.shape[1], 0.25 * size) for m in values.values()]
    gaps = [0.07 * size] * (len(slots) - 1)  # each as wide as its sign
    for i, sign in enumerate(signs[: len(gaps)]):
        gaps[i] += 0.021 * len(sign) * size
    total, high = sum(slots) + sum(gaps), max(m.shape[0] for m in values.values())
    inches = min(9.5 / total, 3.4 / high)  # of one number
    figure = Chart(figsize=(total * inches, high * inches + 0.75))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    left, below, edge = 0.0, high / 2 + 0.1 / inches, 0.0
    for i, ((name, matrix), slot) in enumerate(zip(values.items(), slots, strict=True)):
        x = left + slot / 2
        _matrix(axes, matrix, x, (colours or {}).get(name, COLOURS["frozen"]), inches)
        rows, columns = matrix.shape
        count = f"{rows} × {columns} = {rows * columns:,}"
        axes.text(x, below, escaped(name, 60), ha="center", va="top", fontsize=10, weight="bold")
        axes.text(x, below + 0.24 / inches, count, ha="center", va="top", fontsize=8.5)
        if 0 < i <= len(signs):  # halfway between the frames; a slot can be wider than its matrix
            middle = (edge + x - columns / 2) / 2
            axes.text(middle, 0, signs[i - 1], ha="center", va="center", fontsize=13)
        edge = x + columns / 2
        left += slot + sum(gaps[i : i + 1])
    axes.set_xlim(0, total)
    axes.set_ylim(high / 2 + 0.7 / inches, -high / 2 - 0.05 / inches)
    return figure


def _as_matrix(name: str, value: torch.Tensor) -> torch.Tensor:
    kernel = isinstance(value, torch.Tensor) and value.dim() > 2
    return finite_tensor(f"matrix {escaped(name)!r}", value.flatten(1) if kernel else value, 2)


def _matrix(axes: Axes, matrix: np.ndarray, x: float, colour: str, inches: float) -> None:
    """One matrix, centred at (x, 0), in a frame; `inches` is the width of one number."""
    rows, columns = matrix.shape
    limit = np.quantile(np.abs(matrix), 0.99) or 1
    box = (x - columns / 2, x + columns / 2, rows / 2, -rows / 2)
    # Numbers of a pixel or more keep sharp edges.
    smooth = "nearest" if inches * 110 >= 1 else "antialiased"
    axes.imshow(matrix, "RdBu_r", vmin=-limit, vmax=limit, extent=box, interpolation=smooth)
    frame = Rectangle((box[0], box[3]), columns, rows, fill=False, lw=1.4)
    frame.set(edgecolor=colour, clip_on=False)
    axes.add_patch(frame)
