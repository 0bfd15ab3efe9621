"""A recorded backward pass as a strip of six frames, for paper and for pages without widgets."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from matplotlib.patches import FancyBboxPatch, Patch

from ..display import Chart
from ..gradient.derivatives import in_words, stem
from ..gradient.graph import (
    Collapsed,
    Graph,
    Group,
    Node,
    short_number,
)
from ..names import block_of, is_adapter, layer_and_part, short_name
from .base import COLOURS
from .diagrams import GREY, INK, KINDS, look_of, tint

ROWS = 9  # of a column in a frame's map: more of them would have letters too small to print


def destinations(graph: Graph, parameter: str | None = None) -> tuple[Node, ...]:
    """The leaf of `parameter`, and that of the other matrix of its adapter, as they ran.

    Without a name: that of the first lora_B that ran, else of the first parameter; none at all in
    a graph of no parameters. Raises ValueError for a graph in which nothing ran, and for a
    parameter to which the pass did not come.
    """
    if not graph.order:
        raise ValueError("no node of this graph ran: there is no backward pass to show")
    ran = [node for node in graph.order if node.parameters]
    if parameter is not None:
        chosen = graph.leaf(parameter)
        if not chosen.visits:
            raise ValueError(
                f"the backward pass did not come to {chosen.where}, though it is in the graph"
            )
    elif ran:
        chosen = next((node for node in ran if node.where.endswith("lora_B")), ran[0])
    else:
        return ()
    if not is_adapter(chosen.where):
        return (chosen,)
    layer = layer_and_part(chosen.where)[0]
    return tuple(n for n in ran if is_adapter(n.where) and layer_and_part(n.where)[0] == layer)


def at_level(graph: Graph, level: str) -> Collapsed:
    """The graph in groups; each operation by itself where else there would be one group of all."""
    shown = graph.collapse(level)
    groups = [group for group in shown.groups if group.nodes and not group.is_end]
    return shown if len(groups) > 1 else graph.collapse("operations")


def frames(graph: Graph, parameter: str | None = None, level: str = "blocks") -> Chart:
    """The way of the gradient to one parameter in at most six frames, for paper.

    In each a small map of `graph.collapse(level)`, as far as the pass had come by then, and below
    it the step that runs. `parameter` and the errors are those of `destinations`; for the
    level see `at_level`.
    """
    ends = destinations(graph, parameter)
    stages = _stages(graph, ends)
    shown = at_level(graph, level)
    plan = _Plan(graph, shown, [node for _, node in stages], ends)
    wide, across, above, below = 10.0, 3, 0.34, 1.02  # inches
    down = -(-len(stages) // across)
    high = above + plan.high + below
    figure = Chart(figsize=(wide, down * high + 0.25))
    place = {node.index: n for n, node in enumerate(graph.order, start=1)}
    for i, (title, node) in enumerate(stages):
        row, column = divmod(i, across)
        corner = (column * wide / across, row * high)
        size = (wide / across, high)
        total = figure.get_figheight()
        box = (corner[0] / wide, 1 - (corner[1] + size[1]) / total, size[0] / wide, size[1] / total)
        axes = figure.add_axes(box)
        axes.axis("off")
        axes.set_xlim(-(size[0] - plan.wide) / 2, (size[0] + plan.wide) / 2)
        axes.set_ylim(size[1] - above, -above)
        plan.draw(axes, node)
        axes.text(
            0.08,
            -0.17,
            f"{i + 1}",
            fontsize=9,
            weight="bold",
            color="white",
            ha="center",
            va="center",
            bbox={"boxstyle": "circle,pad=0.25", "fc": INK, "ec": "none"},
        )
        axes.text(0.26, -0.17, title, fontsize=10, weight="bold", va="center")
        _caption(axes, graph, node, place[node.index], plan)
    kinds = [k for k in KINDS if any(g.kind == k for g in shown.groups)]
    said = KINDS | {"weights": "trained weights, how many"}
    keys = [Patch(facecolor=look_of(k)[0], edgecolor=look_of(k)[1], label=said[k]) for k in kinds]
    keys.append(Patch(facecolor="white", edgecolor="#C5C9CF", label="not yet visited"))
    keys.append(Patch(alpha=0, label="G: the gradient that comes in"))
    look = {"frameon": False, "fontsize": 8, "ncols": len(keys), "handlelength": 1.1}
    figure.legend(handles=keys, loc="lower center", bbox_to_anchor=(0.5, 0), **look)
    return figure


def _caption(axes, graph: Graph, node: Node, step: int, plan: _Plan) -> None:
    operation = stem(node.operation)
    where = short_name(node.where) or plan.nowhere(node)
    norm = f"norm {short_number(node.norm_in)}"
    if node.is_leaf and node.norm_in == 0:
        why = next((g.why for g in graph.gradients if g.name == node.where), "")
        said = f"exactly zero: {why}" if why else "exactly zero"
    elif node.is_leaf and node.norm_in is not None:
        said = f"arrived: {norm}, now in its .grad"
    else:
        said = f"{norm}; {in_words(node.operation)}"
    where = where if len(where) < 48 else f"…{where[-46:]}"
    top, line = plan.high + 0.1, 0.165
    head = f"step {step:,} of {len(graph.order):,} · {operation}"
    axes.text(
        0, top, textwrap.shorten(head, 50, placeholder="…"), fontsize=9, weight="bold", va="top"
    )
    axes.text(0, top + line, where, fontsize=9, va="top", color=COLOURS[plan.kind(node)])
    lines = textwrap.wrap(said, 47)
    axes.text(0, top + 2 * line, "\n".join(lines), fontsize=8.5, va="top", linespacing=1.25)


def _stages(graph: Graph, ends: Sequence[Node], most: int = 6) -> list[tuple[str, Node]]:
    """What the frames show: (title, node), in the order in which the nodes ran."""
    if not ends:
        way = list(graph.order)
    else:
        goal = next((n for n in ends if n.where.endswith("lora_B")), ends[0])
        way = [node for node in graph.path(goal.where).nodes if node.visits]
    found: dict[int, tuple[str, Node]] = {}

    def add(title: str, node: Node | None) -> None:
        if node is not None and len(found) < most:
            found.setdefault(node.index, (title, node))

    add("the loss, where it begins", way[0])
    for end in ends:
        name = end.where.rpartition(".")[2]
        add(f"{name}: exactly zero" if end.norm_in == 0 else f"{name}: arrived", end)
    if ends:
        tower, block = graph.tower(goal), block_of(goal.where)
        layer = layer_and_part(goal.where)[0]
        inside = [node for node in way if not node.is_leaf]
        if tower in ("image", "text"):
            add("the ways to the towers part", _parting(graph, inside))
            inside = [node for node in inside if graph.tower(node) == tower]
            add(f"into the {tower} tower", next(iter(inside), None))
        own = [n for n in inside if n.module and block_of(n.where) == block]
        add(f"into its block, {block}", next(iter(own), None))
        own = [n for n in inside if n.module and f"{n.where}.".startswith(f"{layer}.")]
        add(f"into its layer, {layer.rpartition('.')[2]}", next(iter(own), None))
    rest = [node for node in way if node.index not in found]
    count = min(most - len(found), len(rest))
    for i in range(count):
        node = rest[(2 * i + 1) * len(rest) // (2 * count)]
        add(short_name(node.where) or "on the way", node)
    return sorted(found.values(), key=lambda stage: stage[1].order)


def _parting(graph: Graph, way: Sequence[Node]) -> Node | None:
    """The last node on the way behind which both towers lie."""
    towers: dict[int, set[str]] = {}

    def behind(index: int) -> set[str]:
        waiting = [index]
        while waiting:  # no recursion: deep graphs exceed Python's limit
            node = graph.nodes[waiting[-1]]
            after = [b for b in node.next if b is not None]
            unknown = [b for b in after if b not in towers]
            if unknown:
                waiting += unknown
                continue
            waiting.pop()
            towers[node.index] = {graph.tower(node)}.union(*(towers[b] for b in after))
        return towers[index]

    both = [node for node in way if {"image", "text"} <= behind(node.index)]
    return both[-1] if both else None


@dataclass
class _Row:
    """A box of a frame's map: some groups that lie under one another, and who stands beside it."""

    label: str
    kind: str
    groups: list[Group]
    beside: list[Group] = field(default_factory=list)

    @property
    def order(self) -> float:
        return min((g.order for g in self.groups if g.order is not None), default=float("inf"))


class _Plan:
    """The map that all frames have in common: the loss on top, a column for each tower."""

    box, side, gap = 1.07, 0.38, 0.05  # inches: widths of a box and of one beside it; between them

    def __init__(self, graph: Graph, shown: Collapsed, stops: Sequence[Node], ends: Sequence[Node]):
        self._graph, self._shown, self._ends = graph, shown, ends
        self._group = {node: group for group in shown.groups for node in group.nodes}
        stopped = {self._group[n.index].key for n in stops if n.index in self._group}
        columns: dict[str, list[_Row]] = {}
        for group in self._in_order():
            rows = columns.setdefault(self._column(group), [])
            rows.append(_Row(_named(group), group.kind, [group]))
        towers = [name for name in ("image", "text") if name in columns]
        if towers:
            loss = [group for row in columns.pop("loss", []) for group in row.groups]
            self._loss = _Row("loss", "loss", loss) if loss else None
        else:  # in one column then, whatever there is
            self._loss, towers = None, ["all"]
            columns = {"all": [row for rows in columns.values() for row in rows]}
        self._columns = {name: _fewer(columns[name], stopped, shown.level) for name in towers}
        self._put_leaves_beside()
        most = max(map(len, self._columns.values()))
        self._step = min(0.27, 2.5 / (most + 1))
        self._top = 1.35 * self._step if self._loss else 0
        self.high = self._top + self._step * most
        self.wide = 2 * (self.box + self.side + self.gap) + 0.1

    def _in_order(self) -> list[Group]:
        """The groups of operations, as the pass came to them; below them what stayed dark."""
        ran = [g for g in self._shown.groups if g.kind != "dark" and not g.is_end]
        dark = [g for g in self._shown.groups if g.kind == "dark"]
        return sorted(ran, key=lambda g: g.order or float("inf")) + dark[::-1]

    def _column(self, group: Group) -> str:
        if group.nodes:
            return self._graph.tower(self._graph.nodes[group.nodes[0]])
        return re.sub(r"^d|\d+$", "", group.key)

    def _put_leaves_beside(self) -> None:
        rows = [row for rows in self._columns.values() for row in rows]
        row_of = {g.key: row for row in [*rows, *filter(None, [self._loss])] for g in row.groups}
        group_of = {group.key: group for group in self._shown.groups}
        for a, b in self._shown.edges:
            known = [g for row in row_of.values() for g in row.beside]
            if group_of[b].is_end and a in row_of and group_of[b] not in known:
                row_of[a].beside.append(group_of[b])

    def nowhere(self, node: Node) -> str:
        """What is said of a node that no module made, and of a leaf that has no name."""
        if node.is_leaf:
            return "a tensor without a name"
        modules = any(other.module for other in self._graph.nodes)
        return "in the loss" if modules else "outside of every module"

    def kind(self, node: Node) -> str:
        """The colour of what is written about a node."""
        if is_adapter(node.where):
            return "adapter"
        return "weights" if node.is_leaf else self._graph.tower(node)

    def draw(self, axes, node: Node) -> None:
        """The map as it is when `node` runs."""
        middle = self.wide / 2
        if len(self._columns) == 1:
            places, outer = [middle], [1]
        else:
            first = self.side + self.gap + self.box / 2
            places, outer = [first, self.wide - first], [-1, 1]
        line = {"color": "#B4B8BE", "lw": 0.9, "zorder": 0}
        if self._loss:
            y = self._step / 2
            for x, rows in zip(places, self._columns.values(), strict=True):
                low = self._top + self._step / 2
                axes.plot([middle, x], [y, low if rows else y], **line)
            self._draw_row(axes, self._loss, middle, y, 1, node)
        for x, side, rows in zip(places, outer, self._columns.values(), strict=True):
            ys = [self._top + self._step * (i + 0.5) for i in range(len(rows))]
            for (y0, y1), row in zip(pairwise(ys), rows[1:], strict=True):
                axes.plot([x, x], [y0, y1], ls=":" if row.kind == "dark" else "-", **line)
            for y, row in zip(ys, rows, strict=True):
                self._draw_row(axes, row, x, y, side, node)

    def _draw_row(self, axes, row: _Row, x: float, y: float, side: int, node: Node) -> None:
        runs = any(node.index in group.nodes for group in row.groups)
        self._draw_box(axes, (x, y), self.box, row.label, row.kind, row.order <= node.order, runs)
        if not row.beside:
            return
        edge = x + side * (self.box / 2 + self.gap)
        centre = edge + side * self.side / 2
        line = {"color": "#B4B8BE", "lw": 0.9, "zorder": 0}
        axes.plot([x, centre], [y, y], **line)
        indices = {index for group in row.beside for index in group.nodes}
        own = [end for end in self._ends if end.index in indices]
        if own:  # the parameter that this is about, alone: the others of its block are left out
            wide = (self.side - 0.04 * (len(own) - 1)) / len(own)
            for i, end in enumerate(own):
                shift = (wide + 0.04) * i + wide / 2
                name = layer_and_part(end.where)[1] if len(own) > 1 else "here"
                spot = (edge + side * shift, y)
                there, runs = end.order <= node.order, end.index == node.index
                self._draw_box(axes, spot, wide, name, self.kind(end), there, runs, end)
            return
        kind = row.beside[0].kind
        orders = [g.order for g in row.beside if g.order is not None]
        there = bool(orders) and min(orders) <= node.order
        label = "A, B" if kind == "adapter" else str(len(indices))
        runs = node.index in indices
        self._draw_box(axes, (centre, y), self.side, label, kind, there, runs)

    def _draw_box(
        self,
        axes,
        centre: tuple[float, float],
        wide: float,
        label: str,
        kind: str,
        there: bool,
        runs: bool,
        end: Node | None = None,
    ) -> None:
        x, y = centre
        high = 0.78 * self._step
        fill, edge, ink = look_of(kind)
        zero = end is not None and end.norm_in == 0
        if runs:
            strong = GREY if zero else edge
            for more, alpha in ((0.075, 0.14), (0.04, 0.28)):  # a glow
                axes.add_patch(_rounded(x, y, wide + 2 * more, high + 2 * more, strong, alpha))
            fill, edge, ink = ("white", GREY, INK) if zero else (edge, edge, "white")
        elif kind != "dark" and (not there or zero):
            fill, edge, ink = "white", tint(edge, 0.45) if not there else GREY, GREY
        box = _rounded(x, y, wide, high, fill)
        line = (0, (2.2, 1.4)) if zero and there else "-"
        box.set(edgecolor=edge, lw=1.4 if runs else 0.9, ls=line)
        axes.add_patch(box)
        size = min(7.3, 72 * high * 0.52)
        most = max(1, int(72 * (wide - 0.04) / (0.58 * size)))
        said = label if len(label) <= most else f"{label[: most - 1]}…"
        look = {"ha": "center", "va": "center", "parse_math": False}
        axes.text(x, y, said, fontsize=size, color=ink, weight="bold" if runs else None, **look)


def _rounded(x: float, y: float, wide: float, high: float, fill: str, alpha: float = 1):
    style = f"round,pad=0,rounding_size={0.3 * high:.3f}"
    corner = (x - wide / 2, y - high / 2)
    return FancyBboxPatch(corner, wide, high, boxstyle=style, fc=fill, ec="none", alpha=alpha)


def _fewer(rows: list[_Row], stopped: set[str], level: str) -> list[_Row]:
    """So few rows that they can be read: what is dark in one, and neighbours that nothing stops at.

    `stopped` has the keys of the groups that a frame stops at; those stay by themselves.
    """
    dark = [row for row in rows if row.kind == "dark"]
    lit = [row for row in rows if row.kind != "dark"]
    if len(dark) > 2:
        frozen = all(row.groups[0].note.endswith("frozen weights") for row in dark)
        label = f"{len(dark)} {'frozen' if frozen else 'dark'} {level}"
        dark = [_Row(label, "dark", [row.groups[0] for row in dark])]
    room = ROWS - len(dark)
    found = lit
    for alike in (True, False):  # blocks of one stage if that is enough, else whatever is near
        for most in range(1, len(lit) + 1):
            found = _merged(lit, stopped, most, alike)
            if len(found) <= room:
                return found + dark
    return found + dark


def _merged(rows: list[_Row], stopped: set[str], most: int, alike: bool) -> list[_Row]:
    """The rows, at most so many in one; if `alike`, only those of one stage, or one kind."""
    found: list[_Row] = []
    alone = True
    for row in rows:
        stops = row.groups[0].key in stopped
        last = found[-1] if found else None
        near = last is not None and (
            not alike or _stage(last.groups[0]) == _stage(row.groups[0]) is not None
        )
        if near and not alone and not stops and len(last.groups) < most:
            last.groups += row.groups
            last.kind = row.kind if last.kind == "adapter" else last.kind
            last.label = _span([_named(group) for group in last.groups])
            continue
        found.append(_Row(row.label, row.kind, list(row.groups)))
        alone = stops
    return found


def _named(group: Group) -> str:
    return stem(short_name(group.label))


def _stage(group: Group) -> str | None:
    """What the labels of blocks that belong together have in common: "stages.3", "resblocks"."""
    parts = short_name(group.label).split(".")
    return ".".join(parts[: 2 if parts[0] == "stages" else 1]) if len(parts) > 1 else None


def _span(labels: Sequence[str]) -> str:
    """ "resblocks.11", …, "resblocks.9" → "resblocks.11…9"; "stages.3 × 4"; "head + 2"."""
    stems, ends = zip(*(label.rpartition(".")[::2] for label in labels), strict=True)
    if len(set(stems)) == 1 and stems[0] and all(end.isdigit() for end in ends):
        return f"{labels[0]}…{ends[-1]}"
    parts = {".".join(label.split(".")[:2]) for label in labels}
    if len(parts) == 1:
        return f"{parts.pop()} × {len(labels)}"
    return f"{labels[0]} + {len(labels) - 1}"
