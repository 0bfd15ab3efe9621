"""Charts of numbers with names: bars and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from ..checks import finite_number
from ..colours import COLOURS, CYCLE
from ..display import Chart
from .arguments import require_as_many, require_mapping
from .captions import LONGEST_NAME, escaped, legend_name


def bare(axes: Axes) -> None:
    """Hide the frame of `axes`, except on the left and below."""
    axes.spines[["top", "right"]].set_visible(False)


def bars(
    values: Mapping[str, float],
    *,
    title: str = "",
    unit: str = "",
    colours: Mapping[str, str] | None = None,
    number_format: str = "{:,.0f}",
) -> Chart:
    """A horizontal bar for each name, with its number beside it, the first on top.

    ValueError if there is no bar to draw, or a number that is not finite.
    """
    require_mapping("values", values)
    for name, value in values.items():
        finite_number(f"the value of {escaped(name)!r}", value)
    figure = Chart(figsize=(7.5, 0.36 * len(values) + 0.6))
    axes = figure.subplots()
    colours = colours or {}
    tints = [colours.get(name, COLOURS["frozen"]) for name in values]
    axes.barh(range(len(values)), list(values.values()), color=tints)
    axes.set_yticks(range(len(values)), [escaped(name, LONGEST_NAME) for name in values])
    axes.invert_yaxis()
    top = max(values.values()) or 1
    for y, value in enumerate(values.values()):
        number = escaped(number_format.format(value) + unit, LONGEST_NAME)
        axes.text(value + 0.01 * top, y, number, va="center", fontsize=9)
    axes.set_xlim(0, 1.18 * top)
    axes.set_xticks([])
    axes.set_title(escaped(title), fontsize=10, loc="left")
    bare(axes)
    axes.spines["bottom"].set_visible(False)
    return figure


def curves(
    x: Sequence[float],
    values: Mapping[str, Sequence[float]],
    *,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    log: str = "",
    marker: str = "o",
    colours: Mapping[str, str] | None = None,
    at: Mapping[str, float] | None = None,
) -> Chart:
    """A curve over `x` for each name.

    `log` names the axes with a logarithmic scale: "x", "y" or "xy". `at` gives names to values
    of x, each marked by a vertical line. ValueError for a curve that has not as many values as x.
    """
    require_mapping("values", values)
    for name, curve in values.items():
        require_as_many(f"values of {escaped(name)!r}", curve, "values of x", len(x))
    figure = Chart(figsize=(7.5, 3.1))
    axes = figure.subplots()
    for i, (name, curve) in enumerate(values.items()):
        colour = (colours or {}).get(name, CYCLE[i % len(CYCLE)])
        axes.plot(x, curve, marker=marker, ms=4, lw=1.4, color=colour, label=legend_name(name))
    for name, place in (at or {}).items():
        axes.axvline(place, color="#999999", lw=1, ls="--")
        axes.text(
            place,
            1.01,
            escaped(name, LONGEST_NAME),
            transform=axes.get_xaxis_transform(),
            ha="center",
            fontsize=8,
        )
    if "x" in log:
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [f"{number:g}" for number in x])
        axes.minorticks_off()
    if "y" in log:
        axes.set_yscale("log")
    axes.set(xlabel=escaped(xlabel), ylabel=escaped(ylabel))
    axes.set_title(escaped(title), fontsize=10, loc="left", pad=14 if at else 6)
    if len(values) > 1:
        axes.legend(frameon=False, fontsize=8)
    bare(axes)
    return figure
