"""Charts of what was recorded: the norms along a path and at each block, and the saved bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from ..colours import COLOURS, GREY, QUIET
from ..display import Chart, picture_of
from ..gradient.derivatives import stem
from ..gradient.groups import Norms
from ..gradient.kinds import Kind
from ..gradient.nodes import Node
from ..gradient.paths import Path
from ..gradient.reasons import Verdict
from ..gradient.saved import Saved
from ..gradient.words import KINDS, OUTSIDE, short_number
from ..names import short_name
from .captions import escaped, legend_name
from .charts import bare

OPERATIONS_SHOWN = 5  # of one module in a row of a path's chart
SINGLE = 12  # up to so many operations of no module have a row each: no name sums them up


# --------------------------------------------------------------------------------------------- path


@picture_of.register
def path(shown: Path) -> Chart:
    """A row for each module on the path, from the loss down, with the norm that arrives there."""
    rows = list(_rows(shown))
    names = [_stop_name(*run[-1]) for run in rows]
    operations = [_operations([node for node, _ in run]) for run in rows]
    floor = _floor(run[0][0].norm_in for run in rows)
    top = max((run[0][0].norm_in or 0 for run in rows), default=0) or 1
    columns = 0.066 * max(map(len, operations)), 0.083 * max(map(len, names))  # inches
    figure, axes = _path_axes(left=sum(columns) + 0.2, rows=len(rows))
    for y, run in enumerate(rows):
        node, kind = run[-1]
        _bar(axes, y, run[0][0].norm_in, floor, COLOURS[kind])
        text: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "va": "center"}
        text |= {"textcoords": "offset points", "ha": "right"}
        weight = "bold" if node.is_leaf else "normal"
        name = text | {"fontsize": 8.5, "weight": weight, "color": COLOURS[kind]}
        axes.annotate(names[y], (0, y), (-6, 0), **name)
        beside = (-14 - 72 * columns[1], 0)
        axes.annotate(operations[y], (0, y), beside, fontsize=7.5, color=QUIET, **text)
    axes.set_xlim(floor, top * 6)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    goal, stops = escaped(shown.parameter), len(shown.nodes)
    title = f"from the loss to {goal}: {stops} stops, one of {shown.ways:,}"
    high = figure.get_size_inches()[1]
    figure.text(0.99, 1 - 0.05 / high, f"{title} paths", fontsize=10, ha="right", va="top")
    return figure


def _rows(shown: Path) -> Iterator[list[tuple[Node, Kind]]]:
    """The stops by module, those of no module one by one."""
    both = zip(shown.nodes, shown.kinds, strict=True)
    for (where, _), run in groupby(both, key=lambda stop: (stop[0].where, stop[0].is_leaf)):
        stops = list(run)
        if where or len(stops) > SINGLE:
            yield stops
        else:
            yield from ([stop] for stop in stops)


def _stop_name(node: Node, kind: Kind) -> str:
    nowhere = "the loss" if kind is Kind.LOSS else OUTSIDE
    return escaped(short_name(node.where) or nowhere, 80)


def _path_axes(left: float, rows: int) -> tuple[Chart, Axes]:
    wide, high = 4.2, 0.27 * rows  # inches of the bars
    figure = Chart(figsize=(left + wide, high + 0.85))
    size = figure.get_size_inches()
    axes = figure.add_axes((left / size[0], 0.5 / size[1], (wide - 0.1) / size[0], high / size[1]))
    axes.set_xscale("log")
    axes.set_yticks([])
    axes.set_xlabel("norm of the gradient that arrives", fontsize=9)
    bare(axes)
    return figure, axes


def _operations(nodes: Sequence[Node]) -> str:
    """The operations of one module on one line, abridged if there are many."""
    steps = [stem(node.operation) for node in nodes]
    if len(steps) > OPERATIONS_SHOWN:
        steps = [*steps[: OPERATIONS_SHOWN - 2], "…", steps[-1]]
    return " · ".join(escaped(step, 22) for step in steps)


def _floor(norms: Iterable[float | None]) -> float:
    """Where the bars begin: a logarithmic axis has no zero."""
    return min((norm for norm in norms if norm), default=1) / 3


def _bar(axes: Axes, y: float, norm: float | None, floor: float, colour: str) -> None:
    """A bar from `floor` to the norm, with its number; where there is none, that in words."""
    if norm:
        axes.barh(y, norm - floor, 0.72, left=floor, color=colour)
        text = short_number(norm)
    else:
        text = str(Verdict.NOT_REACHED if norm is None else Verdict.ZERO)
    axes.text(norm or floor, y, f" {text}", va="center", fontsize=8)


# -------------------------------------------------------------------------------------------- norms


@picture_of.register
def norms(shown: Norms) -> Chart:
    """For each tower its blocks from the loss down, the gradient's norm as a bar on a log axis."""
    towers = sorted(shown.towers.items())  # the image tower on the left, as everywhere
    rows = max((len(blocks) for _, blocks in towers), default=1)
    figure = Chart(figsize=(9.5, 0.3 * rows + 1.1))
    grid = figure.subplots(1, max(1, len(towers)), sharex=True, squeeze=False)[0]
    values = [norm for _, blocks in towers for _, norm in blocks if norm]
    floor, top = _floor(values), max(values, default=1) * 4
    for axes, (tower, blocks) in zip(grid, towers, strict=False):
        for y, (_, norm) in enumerate(blocks):
            _bar(axes, y, norm, floor, COLOURS[tower])
        axes.set_yticks(range(len(blocks)), [escaped(block) for block, _ in blocks], fontsize=8)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_xscale("log")
        axes.set_xlim(floor, top)
        first, last = blocks[0][1], blocks[-1][1]
        change = f": last {last / first:.2g} × first" if first and len(blocks) > 1 else ""
        axes.set_title(f"{KINDS[tower]}{change}", fontsize=9, loc="left", color=COLOURS[tower])
        axes.set_xlabel("norm of the gradient that arrives", fontsize=8)
        bare(axes)
    figure.tight_layout(w_pad=2)
    return figure


# -------------------------------------------------------------------------------------------- saved

STEPS: tuple[dict[str, Any], ...] = (
    {"alpha": 1.0},
    {"alpha": 0.35},
    {"alpha": 0.35, "hatch": "//"},
)  # one step after another


@picture_of.register
def saved(first: Saved, name: str = "this step", **others: Saved) -> Chart:
    """The saved bytes, a row for each block; each of several steps has its own bars."""
    steps = {name: first, **others}
    by_block = [step.by_block() for step in steps.values()]
    blocks = _all_blocks(by_block)
    unit, word = _unit(max((size for step in by_block for size in step.values()), default=1))
    thick = 0.8 / len(steps)
    figure = Chart(figsize=(8.5, (0.16 * len(steps) + 0.12) * len(blocks) + 1))
    axes = figure.subplots()
    for i, step in enumerate(by_block):
        for y, (tower, block) in enumerate(blocks):
            size = step.get((tower, block), 0) / unit
            place = y + (i - (len(steps) - 1) / 2) * thick
            axes.barh(place, size, thick * 0.9, color=COLOURS[tower], **STEPS[i % len(STEPS)])
            axes.text(size, place, f" {size:.2f}" if size else " 0", va="center", fontsize=7.5)
    labels = [escaped(block) or KINDS[tower] for tower, block in blocks]
    axes.set_yticks(range(len(blocks)), labels, fontsize=8)
    axes.set_ylim(len(blocks) - 0.4, -0.6)
    axes.set_xlabel(f"{word} saved for the backward pass", fontsize=9)
    bare(axes)
    keys = [
        Patch(
            color=GREY, label=f"{legend_name(name)}: {step.total / unit:.1f} {word} in all", **style
        )
        for (name, step), style in zip(steps.items(), STEPS, strict=False)
    ]
    figure.tight_layout()
    letters = {"frameon": False, "fontsize": 9, "ncols": len(steps)}
    figure.legend(handles=keys, loc="lower center", bbox_to_anchor=(0.5, 1), **letters)
    return figure


def _all_blocks(steps: Sequence[dict[tuple[Kind, str], int]]) -> list[tuple[Kind, str]]:
    """The blocks of every step, in the order of the step that has most of them."""
    longest = max(steps, key=len, default={})
    return list(dict.fromkeys([*longest, *(block for step in steps for block in step)]))


def _unit(size: float) -> tuple[float, str]:
    return (1e6, "MB") if size >= 2e5 else (1e3, "kB") if size >= 2e2 else (1, "bytes")
