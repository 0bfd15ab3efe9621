"""A recorded backward pass as a strip of six frames, for paper and for pages without widgets."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Patch

from ..colours import COLOURS, GREY, INK, LINE, VACANT, BoxStyle, box_style, tint
from ..display import Chart, picture_of
from ..gradient.derivatives import in_words, stem
from ..gradient.kinds import Kind, Scene
from ..gradient.nodes import BackwardGraph, Node
from ..gradient.reasons import Verdict, join_reasons
from ..gradient.scenes import Frame, Frames
from ..gradient.words import KINDS, OUTSIDE, SCENES, short_number
from ..names import is_adapter, layer_and_part, short_name
from .captions import escaped
from .collapsed import kinds_of
from .strip_map import Row, StripMap, strip_map

WIDE, ACROSS = 10.0, 3  # inches of the strip, and frames in a row
ABOVE, BELOW = 0.34, 1.02  # inches of a frame's title, and of what stands under its map
BOX, SIDE, GAP = 1.07, 0.38, 0.05  # inches: a box of the map, one beside it, and between them
MAP_WIDTH = 2 * (BOX + SIDE + GAP) + 0.1
ROW_HEIGHT, MAP_HEIGHT = 0.27, 2.5  # inches, at most


@dataclass(frozen=True)
class _Sheet:
    """The map of all frames and its measures, in inches from the upper left corner."""

    frames: Frames
    plan: StripMap
    step: float  # from row to row
    top: float  # where the columns begin
    high: float

    @classmethod
    def of(cls, frames: Frames) -> _Sheet:
        plan = strip_map(frames)
        most = max(map(len, plan.columns))
        step = min(ROW_HEIGHT, MAP_HEIGHT / (most + 1))
        top = 1.35 * step if plan.loss else 0.0
        return cls(frames, plan, step, top, top + step * most)


@picture_of.register
def strip(frames: Frames) -> Chart:
    """The frames: in each the map, as far as the pass had come by then, and the node that runs."""
    sheet = _Sheet.of(frames)
    high = ABOVE + sheet.high + BELOW
    figure = Chart(figsize=(WIDE, -(-len(frames.frames) // ACROSS) * high + 0.25))
    for i, frame in enumerate(frames.frames):
        row, column = divmod(i, ACROSS)
        axes = _frame_axes(figure, column * WIDE / ACROSS, row * high, high)
        number: dict[str, Any] = {"fontsize": 9, "weight": "bold", "color": "white", "ha": "center"}
        circle = {"boxstyle": "circle,pad=0.25", "fc": INK, "ec": "none"}
        axes.text(0.08, -0.17, f"{i + 1}", va="center", bbox=circle, **number)
        axes.text(0.26, -0.17, _title(frame), fontsize=10, weight="bold", va="center")
        _draw_map(axes, sheet, frame.node)
        _draw_caption(axes, sheet, frame.node)
    _legend(figure, frames)
    return figure


def _frame_axes(figure: Chart, x: float, y: float, high: float) -> Axes:
    wide, total = WIDE / ACROSS, figure.get_figheight()
    axes = figure.add_axes((x / WIDE, 1 - (y + high) / total, wide / WIDE, high / total))
    axes.axis("off")
    axes.set_xlim(-(wide - MAP_WIDTH) / 2, (wide + MAP_WIDTH) / 2)
    axes.set_ylim(high - ABOVE, -ABOVE)
    return axes


def _title(frame: Frame) -> str:
    name = short_name(frame.name) if frame.scene is Scene.BETWEEN else frame.name
    return escaped(SCENES[frame.scene].format(name=name or "on the path"))


def _legend(figure: Chart, frames: Frames) -> None:
    kinds = kinds_of(frames.shown.groups)
    words = KINDS | {Kind.WEIGHTS: f"{KINDS[Kind.WEIGHTS]}, how many"}
    styles = [(box_style(kind), words[kind]) for kind in kinds]
    keys = [Patch(facecolor=s.fill, edgecolor=s.edge, label=text) for s, text in styles]
    keys.append(Patch(facecolor="white", edgecolor=VACANT, label="not yet visited"))
    keys.append(Patch(alpha=0, label="G: the gradient that comes in"))
    letters = {"frameon": False, "fontsize": 8, "handlelength": 1.1, "ncols": len(keys)}
    figure.legend(handles=keys, loc="lower center", bbox_to_anchor=(0.5, 0), **letters)


# ------------------------------------------------------------------------------------------ caption


def _draw_caption(axes: Axes, sheet: _Sheet, node: Node) -> None:
    """Under the map: which node runs, where, and what it does."""
    graph, top, line = sheet.frames.graph, sheet.high + 0.1, 0.165
    place = 1 + graph.order.index(node)
    head = f"node {place:,} of {len(graph.order):,} · {stem(node.operation)}"
    head = escaped(textwrap.shorten(head, 50, placeholder="…"))
    where = short_name(node.where) or _nowhere(graph, node)
    where = escaped(where if len(where) < 48 else f"…{where[-46:]}")
    axes.text(0, top, head, fontsize=9, weight="bold", va="top")
    axes.text(0, top + line, where, fontsize=9, va="top", color=COLOURS[graph.kind(node)])
    lines = "\n".join(map(escaped, textwrap.wrap(_what_happens(graph, node), 47)))
    axes.text(0, top + 2 * line, lines, fontsize=8.5, va="top", linespacing=1.25)


def _what_happens(graph: BackwardGraph, node: Node) -> str:
    norm = f"norm {short_number(node.norm_in)}"
    if not node.is_leaf or node.norm_in is None:
        return f"{norm}; {in_words(node.operation)}"
    if node.norm_in:
        return f"arrived: {norm}, now in its .grad"
    reasons = next((g.reasons for g in graph.gradients if g.name == node.where), ())
    return ": ".join(filter(None, (str(Verdict.ZERO), join_reasons(reasons))))


def _nowhere(graph: BackwardGraph, node: Node) -> str:
    """What is said of a node that no module made, and of a leaf that has no name."""
    if node.is_leaf:
        return "a tensor without a name"
    modules = any(other.module for other in graph.nodes)
    in_the_loss = modules and graph.tower(node) is Kind.LOSS
    return "in the loss" if in_the_loss else OUTSIDE


# ---------------------------------------------------------------------------------------------- map


def _draw_map(axes: Axes, sheet: _Sheet, node: Node) -> None:
    """The map as it is when `node` runs."""
    middle, step, plan = MAP_WIDTH / 2, sheet.step, sheet.plan
    first = SIDE + GAP + BOX / 2
    places = [middle] if len(plan.columns) == 1 else [first, MAP_WIDTH - first]
    outward = [1] if len(plan.columns) == 1 else [-1, 1]
    if plan.loss:
        y = step / 2
        for x, rows in zip(places, plan.columns, strict=True):
            low = sheet.top + step / 2
            axes.plot([middle, x], [y, low if rows else y], color=LINE, lw=0.9, zorder=0)
        _draw_row(axes, sheet, plan.loss, (middle, y), 1, node)
    for x, side, rows in zip(places, outward, plan.columns, strict=True):
        ys = [sheet.top + step * (i + 0.5) for i in range(len(rows))]
        for (y0, y1), row in zip(pairwise(ys), rows[1:], strict=True):
            dotted = ":" if row.kind is Kind.DARK else "-"
            axes.plot([x, x], [y0, y1], ls=dotted, color=LINE, lw=0.9, zorder=0)
        for y, row in zip(ys, rows, strict=True):
            _draw_row(axes, sheet, row, (x, y), side, node)


def _draw_row(
    axes: Axes, sheet: _Sheet, row: Row, centre: tuple[float, float], side: int, node: Node
) -> None:
    """A box of the map and the leaves beside it, on its outer side (-1: left, 1: right)."""
    (x, y), now = centre, node.order or 0
    visited, runs = row.order <= now, node.index in row.nodes
    _Box(row.label, row.kind, BOX, visited, runs).draw(axes, centre, sheet.step)
    if not row.beside:
        return
    edge = x + side * (BOX / 2 + GAP)
    axes.plot([x, edge + side * SIDE / 2], [y, y], color=LINE, lw=0.9, zorder=0)
    indices = {index for group in row.beside for index in group.nodes}
    own = [end for end in sheet.frames.ends if end.index in indices]
    if not own:
        kind = row.beside[0].kind
        orders = [group.order for group in row.beside if group.order is not None]
        label = "A, B" if kind is Kind.ADAPTER else str(len(indices))
        visited = bool(orders) and min(orders) <= now
        box = _Box(label, kind, SIDE, visited, node.index in indices)
        box.draw(axes, (edge + side * SIDE / 2, y), sheet.step)
        return
    # The parameters that this is about, alone: the others of their block are left out.
    wide = (SIDE - 0.04 * (len(own) - 1)) / len(own)
    for i, end in enumerate(own):
        kind = Kind.ADAPTER if is_adapter(end.where) else Kind.WEIGHTS
        label = layer_and_part(end.name)[1] if len(own) > 1 else "here"
        visited, zero = (end.order or 0) <= now, end.norm_in == 0
        box = _Box(label, kind, wide, visited, end.index == node.index, zero)
        box.draw(axes, (edge + side * ((wide + 0.04) * i + wide / 2), y), sheet.step)


@dataclass(frozen=True)
class _Box:
    """A box of the map: has the pass visited it, does it run now, and was its gradient zero?"""

    label: str
    kind: Kind
    wide: float
    visited: bool
    runs: bool
    zero: bool = False

    def draw(self, axes: Axes, centre: tuple[float, float], step: float) -> None:
        x, y = centre
        high = 0.78 * step
        style = self.style()
        if self.runs:
            glow = GREY if self.zero else box_style(self.kind).edge
            for more, alpha in ((0.075, 0.14), (0.04, 0.28)):
                axes.add_patch(_rounded(x, y, self.wide + 2 * more, high + 2 * more, glow, alpha))
        box = _rounded(x, y, self.wide, high, style.fill)
        dashed = (0, (2.2, 1.4)) if self.zero and self.visited else "-"
        box.set(edgecolor=style.edge, lw=1.4 if self.runs else 0.9, ls=dashed)
        axes.add_patch(box)
        size = min(7.3, 72 * high * 0.52)
        most = max(1, int(72 * (self.wide - 0.04) / (0.58 * size)))
        text = escaped(self.label, most)
        letters: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
        weight = "bold" if self.runs else None
        axes.text(x, y, text, color=style.ink, weight=weight, **letters)

    def style(self) -> BoxStyle:
        own = box_style(self.kind)
        if self.runs:
            return (
                BoxStyle("white", GREY, INK) if self.zero else BoxStyle(own.edge, own.edge, "white")
            )
        if self.kind is Kind.DARK or (self.visited and not self.zero):
            return own
        return BoxStyle("white", GREY if self.visited else tint(own.edge, 0.45), GREY)


def _rounded(
    x: float, y: float, wide: float, high: float, fill: str, alpha: float = 1
) -> FancyBboxPatch:
    style = f"round,pad=0,rounding_size={0.3 * high:.3f}"
    corner = (x - wide / 2, y - high / 2)
    return FancyBboxPatch(corner, wide, high, boxstyle=style, fc=fill, ec="none", alpha=alpha)
