"""The gradients that reached the adapters, as bars: `adapter_gradients`."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from ..colours import COLOURS
from ..display import Chart, picture_of
from ..gradient.verdicts import Gradient, Gradients
from ..names import short_name
from .captions import escaped
from .charts import bare

OPACITY = {"B": 1.0, "A": 0.45}


@picture_of.register
def adapter_gradients(gradients: Gradients) -> Chart:
    """For each adapter the norms of B's and A's gradient, on a logarithmic axis.

    A logarithmic axis has no place for zero: where there is no bar, words say why. More than 30
    adapters stand in two columns, in narrower rows, so that all fit on a screen. ValueError if
    there is no adapter.
    """
    if not isinstance(gradients, Gradients):
        raise TypeError(
            f"this is a {type(gradients).__name__}; pass mh.gradients(model), or `gradients` of a "
            f"recorded graph"
        )
    if not gradients.adapters:
        raise ValueError("there are no adapters among these gradients: call mh.inject_lora first")
    layers = list(gradients.adapters.items())
    columns = 2 if len(layers) > 30 else 1
    rows = -(-len(layers) // columns)
    row_height = min(0.27, max(0.14, 9 / rows))  # inches
    size = max(5.0, 7.5 * row_height / 0.27)  # of the letters
    figure = Chart(figsize=(7.5 if columns == 1 else 10.5, row_height * rows + 0.8))
    grid = figure.subplots(1, columns, sharex=True, squeeze=False)[0]
    norms = [g.norm for _, pair in layers for g in pair.values() if g.norm]
    floor, top = min(norms, default=1e-3) / 3, max(norms, default=1) * 1.5
    for column, axes in enumerate(grid):
        _column(axes, dict(layers[column * rows : (column + 1) * rows]), floor, size)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_xlim(floor, top)
    keys = [
        Patch(color=COLOURS[tower], alpha=alpha, label=f"{tower} tower, {part}")
        for tower in ("image", "text")
        for part, alpha in OPACITY.items()
    ]
    figure.tight_layout(w_pad=2)
    figure.legend(
        handles=keys,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncols=4,
        frameon=False,
        fontsize=8,
    )
    return figure


def _column(
    axes: Axes, layers: Mapping[str, Mapping[str, Gradient]], floor: float, size: float
) -> None:
    """Two bars for each layer, B above A, on a logarithmic axis that begins at `floor`."""
    for y, pair in enumerate(layers.values()):
        for part, beside in (("B", -0.19), ("A", 0.19)):
            if part in pair:
                _bar(axes, y + beside, pair[part], floor, size)
    axes.set_yticks(range(len(layers)), [escaped(short_name(name)) for name in layers])
    axes.tick_params(axis="y", labelsize=size)
    axes.set_xscale("log")
    axes.set_xlabel("norm of the gradient", fontsize=9)
    bare(axes)


def _bar(axes: Axes, y: float, g: Gradient, floor: float, size: float) -> None:
    """A bar from `floor` up to the norm; without a norm, or with norm 0, words in its place."""
    if g.norm:
        colour, alpha = COLOURS[g.tower or "frozen"], OPACITY[g.part]
        axes.barh(y, g.norm - floor, 0.36, left=floor, color=colour, alpha=alpha)
    else:
        reason = "exactly 0" if g.norm == 0 else g.verdict
        axes.text(floor * 1.05, y, f"{g.part}: {reason}", va="center", fontsize=size - 1)
