"""Pictures of graphs, and of what a recorded backward pass found on its way.

A graph is laid out by Graphviz' program `dot` where there is one, else by the Graphviz that
`pygraphviz` carries, else by a plainer layout of our own, drawn by matplotlib. All three give SVG
in which each node is a group with the id "node-NAME".
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from .derivatives import in_words, stem
from .draw import COLOURS, Chart, Svg, _bare
from .graph import (
    Collapsed,
    Graph,
    Group,
    Node,
    Norms,
    Path,
    Saved,
    block_of,
    clean_name,
    is_adapter,
    layer_and_part,
    short_name,
    short_number,
)

INK, GREY = "#1B1F24", "#8A8F98"
NIGHT, MOON = "#3A3F46", "#D5D8DC"  # a region that no gradient comes to, and what is written there
KINDS = {
    "loss": "loss",
    "image": "image tower",
    "text": "text tower",
    "model": "model",
    "adapter": "adapter",
    "weights": "trained weights",
    "dark": "no gradient is computed here",
}


def _tint(colour: str, share: float = 0.24) -> str:
    """The colour on white paper, so thin that dark letters can be read on it."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - share * (255 - part)):02X}" for part in parts)


def _look(kind: str) -> tuple[str, str, str]:
    """(fill, edge, ink) of a box."""
    if kind == "dark":
        return NIGHT, GREY, MOON
    return _tint(COLOURS[kind]), COLOURS[kind], INK


# ----------------------------------------------------------------------------------------- layout


@contextmanager
def _without_messages_of_libraries() -> Iterator[None]:
    """Fontconfig complains of a machine's settings straight to file 2, past Python's stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def graph(dot_source: str) -> Svg:
    """Draw a graph in Graphviz' language, with the best layout that this machine has.

    Without Graphviz it understands what torchviz and this package write: nodes, edges and their
    attributes, no subgraphs. Raises ValueError for a source that is not understood.
    """
    if shutil.which("dot"):
        command = ["dot", "-Tsvg"]
        done = subprocess.run(command, input=dot_source.encode(), capture_output=True, check=False)
        if done.returncode:
            raise ValueError(f"dot refused the graph: {done.stderr.decode()}")
        return _tidy(done.stdout.decode())
    try:
        import pygraphviz
    except ImportError:
        return Svg(_drawn_by_matplotlib(_Source(dot_source)))
    with _without_messages_of_libraries():
        svg = pygraphviz.AGraph(string=dot_source).draw(format="svg", prog="dot").decode()
    return _tidy(svg)


def _tidy(svg: str) -> Svg:
    """Graphviz' SVG without its header and white ground, each node's group called by its name."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<polygon fill="white" stroke="none"[^>]*/>\n?', "", svg, count=1)
    named = re.compile(r'<g id="[^"]*" class="node">\s*<title>([^<]*)</title>')
    return Svg(named.sub(r'<g id="node-\1" class="node"><title>\1</title>', svg))


_TOKEN = re.compile(r'\s*(?:(->)|([\[\]{}=;,])|"((?:\\.|[^"\\])*)"|([\w.\-]+?(?=->|[^\w.\-]|$)))')


@dataclass
class _Source:
    """A graph read from Graphviz' language, as far as torchviz and this package speak it."""

    text: str
    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    edges: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.defaults: dict[str, dict[str, str]] = {"node": {}, "edge": {}, "graph": {}}
        tokens = self._tokens()
        while tokens and tokens.pop(0) != "{":
            pass
        if not tokens or tokens[-1] != "}":
            raise ValueError("not a graph in Graphviz' language: { or } is missing")
        tokens.pop()
        while tokens:
            self._statement(tokens)

    def _tokens(self) -> list[str]:
        found, at = [], 0
        while at < len(self.text.rstrip()):
            match = _TOKEN.match(self.text, at)
            if not match:
                raise ValueError(f"not understood, in a graph: {self.text[at : at + 40]!r}")
            arrow, sign, quoted, word = match.groups()
            text = (quoted or "").replace(r"\"", '"').replace(r"\n", "\n").replace(r"\l", "\n")
            found.append(arrow or sign or word or text)
            at = match.end()
        return found

    def _statement(self, tokens: list[str]) -> None:
        chain = [tokens.pop(0)]
        if chain == [";"]:
            return
        if chain[0] in ("{", "}", "[", "]", "=", ",", "->", "subgraph"):
            raise ValueError(f"not understood, in a graph: {chain[0]!r}")
        if tokens[:1] == ["="]:
            del tokens[:2]
            return
        while tokens[:1] == ["->"]:
            if len(tokens) < 2:
                raise ValueError("an edge leads nowhere")
            chain.append(tokens[1])
            del tokens[:2]
        attributes: dict[str, str] = {}
        if tokens[:1] == ["["]:
            tokens.pop(0)
            while tokens and tokens[0] != "]":
                if tokens[0] in (",", ";"):
                    tokens.pop(0)
                    continue
                if len(tokens) < 3 or tokens[1] != "=":
                    raise ValueError(f"not understood, in a graph: {tokens[0]!r}")
                attributes[tokens[0]] = tokens[2]
                del tokens[:3]
            if not tokens:
                raise ValueError("a ] is missing in a graph")
            tokens.pop(0)
        if chain[0] in self.defaults:
            self.defaults[chain[0]] |= attributes
            return
        for name in chain:
            self.nodes.setdefault(name, dict(self.defaults["node"]))
        if len(chain) == 1:
            self.nodes[chain[0]] |= attributes
        self.edges += [(a, b, attributes) for a, b in pairwise(chain)]

    def layers(self) -> list[list[str]]:
        """The nodes in rows: each below all that point to it, and near the middle of those."""
        row = dict.fromkeys(self.nodes, 0)
        for _ in self.nodes:  # as often as the longest way may be long; a circle ends there too
            moved = False
            for a, b, _ in self.edges:
                if a != b and row[b] <= row[a] < len(self.nodes):
                    row[b], moved = row[a] + 1, True
            if not moved:
                break
        rows = [[n for n in self.nodes if row[n] == i] for i in sorted(set(row.values()))]
        place: dict[str, float] = {}
        for r in rows:
            above = {n: [place[a] for a, b, _ in self.edges if b == n and a in place] for n in r}
            middle = {n: sum(places) / len(places) for n, places in above.items() if places}
            r.sort(key=lambda n: middle.get(n, 0.0))
            place |= {n: (x + 0.5) / len(r) - 0.5 for x, n in enumerate(r)}
        return rows


def _drawn_by_matplotlib(source: _Source) -> str:
    """The graph as SVG, without Graphviz: boxes in rows, arrows between them."""
    letter, line, gap, between = 0.078, 0.165, 0.25, 0.42  # inches
    labels = {n: (a.get("label") or n).strip("\n").split("\n") for n, a in source.nodes.items()}
    wide = {n: letter * max(map(len, lines)) + 0.25 for n, lines in labels.items()}
    high = {n: line * len(lines) + 0.14 for n, lines in labels.items()}
    rows = source.layers()
    widths = [sum(wide[n] for n in row) + gap * (len(row) - 1) for row in rows]
    total = max(widths, default=1) + 0.2
    centre, top = {}, 0.1
    for row, width in zip(rows, widths, strict=True):
        x, tallest = (total - width) / 2, max(high[n] for n in row)
        for n in row:
            centre[n] = (x + wide[n] / 2, top + tallest / 2)
            x += wide[n] + gap
        top += tallest + between
    height = top - between + 0.1 if rows else 1
    figure = Figure(figsize=(total, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set_xlim(0, total)
    axes.set_ylim(height, 0)
    for a, b, look in source.edges:
        (xa, ya), (xb, yb) = centre[a], centre[b]
        long = abs(yb - ya) > 1.6 * (between + max(high.values()))
        arrow = FancyArrowPatch(
            (xa, ya + high[a] / 2),
            (xb, yb - high[b] / 2),
            arrowstyle="-|>",
            mutation_scale=9,
            shrinkA=0,
            shrinkB=0,
            color=look.get("color", GREY),
            linestyle="--" if look.get("style") == "dashed" else "-",
            # Around what stands between them.
            connectionstyle=f"arc3,rad={0.25 if long else 0}",
        )
        arrow.set_gid(f"edge-{a}->{b}")
        axes.add_patch(arrow)
    for n, look in source.nodes.items():
        (x, y), edge = centre[n], look.get("color", GREY)
        box = FancyBboxPatch(
            (x - wide[n] / 2, y - high[n] / 2),
            wide[n],
            high[n],
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=_X11.get(look.get("fillcolor", ""), look.get("fillcolor", "#FFFFFF")),
            edgecolor=edge,
            linestyle="--" if "dashed" in look.get("style", "") else "-",
        )
        box.set_gid(f"node-{n}")
        axes.add_patch(box)
        ink = look.get("fontcolor", INK)
        text = "\n".join(part.strip() for part in labels[n])
        look = {"fontsize": 8, "ha": "center", "va": "center", "gid": f"label-{n}"}
        axes.text(x, y, text, color=ink, parse_math=False, **look)
    buffer = io.StringIO()
    # Letters stay letters, and the same graph gives the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mclip"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


# Colours that torchviz uses and that matplotlib does not know by name.
_X11 = {"darkolivegreen1": "#CAFF70", "darkolivegreen3": "#A2CD5A"}


# -------------------------------------------------------------------------------------- collapsed


def collapsed(found: Collapsed) -> Svg:
    """The groups as boxes, the loss on top; along the arrows the gradient flows down."""
    lines = [
        "digraph {",
        'graph [bgcolor="transparent", nodesep="0.22", ranksep="0.28"]',
        'node [shape="box", style="filled,rounded", fontname="Helvetica", fontsize="11",'
        ' margin="0.11,0.06", height="0.3"]',
        f'edge [color="{GREY}", arrowsize="0.65"]',
    ]
    for group in found.groups:
        fill, edge, ink = _look(group.kind)
        style = "filled,dashed" if group.kind == "dark" else "filled,rounded"
        if group.is_end:
            fill, style = _tint(edge, 0.6), "filled"
        lines.append(
            f'"{group.key}" [label={_quoted(_lines_of(group, found))}, style="{style}", '
            f'fillcolor="{fill}", color="{edge}", fontcolor="{ink}"]'
        )
    group_of = {group.key: group for group in found.groups}
    for a, b in found.edges:
        style = "dashed" if group_of[b].kind == "dark" else "solid"
        # The way from block to block is to be straight, and what ends beside it to stand aside.
        weight = 1 if group_of[b].is_end else 8
        lines.append(f'"{a}" -> "{b}" [style="{style}", weight="{weight}"]')
    drawn = graph("\n".join([*lines, "}"]))
    kinds = [kind for kind in KINDS if any(group.kind == kind for group in found.groups)]
    return _with_legend(drawn, kinds)


def _quoted(lines: Sequence[str]) -> str:
    text = r"\n".join(line.replace("\\", "/").replace('"', r"\"") for line in lines)
    return f'"{text}"'


def _lines_of(group: Group, shown: Collapsed) -> list[str]:
    """What stands in the box of a group."""
    single = shown.level == "operations" and group.order is not None

    def inner(name: str) -> str:
        within = clean_name(shown.within or "")
        _, found, rest = f".{clean_name(name)}".partition(f".{within}.")
        return rest if within and found else short_name(name)

    said = [f"{group.order} · {inner(group.label)}" if single else inner(group.label)]
    note = inner(group.note)
    if 0 < len(note) < 46:
        said.append(note)
    elif len(group.nodes) > 1:
        said.append(f"{len(group.nodes)} steps")
    if group.norm is not None and "zero" not in said[-1].partition(",")[0]:
        said.append(f"gradient {short_number(group.norm)}")
    return said


def _with_legend(svg: Svg, kinds: Sequence[str]) -> Svg:
    """The same picture with a row of small boxes under it that says what its colours mean."""
    size, least = 11, 430  # of letters; of the whole picture's width
    left, top, width, height = map(float, re.search(r'viewBox="([^"]+)"', svg.source)[1].split())
    left, width = left - max(0, least - width) / 2, max(width, least)
    x, y, pieces = left + 4, top + height + 14, []
    for kind in kinds:
        wide = 32 + 0.52 * size * len(KINDS[kind])
        if x > left + 4 and x + wide > left + width:
            x, y = left + 4, y + 20
        fill, edge, _ = _look(kind)
        pieces.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="12" height="12" rx="2" fill="{fill}" '
            f'stroke="{edge}"/><text x="{x + 17:.0f}" y="{y + 10:.0f}" font-size="{size}" '
            f'font-family="Helvetica,Arial,sans-serif" fill="{GREY}">{KINDS[kind]}</text>'
        )
        x += wide
    height = y + 20 - top
    source = svg.source.replace("</svg>", f'<g class="legend">{"".join(pieces)}</g>\n</svg>')
    frame = f'viewBox="{left:.2f} {top:.2f} {width:.2f} {height:.2f}"'
    for name, new in (("viewBox", frame), ("width", f'width="{width:.0f}pt"')):
        source = re.sub(rf'\b{name}="[^"]+"', new, source, count=1)
    return Svg(re.sub(r'\bheight="[^"]+"', f'height="{height:.0f}pt"', source, count=1))


# ------------------------------------------------------------------------------------------- charts


def path(found: Path) -> Chart:
    """A row for each module on the way, from the loss down, with the gradient's norm on arrival."""
    stops = zip(found.nodes, found.kinds, strict=True)
    rows = [list(run) for _, run in groupby(stops, key=lambda s: (s[0].where, s[0].is_leaf))]
    names = [short_name(run[-1][0].where) or "the loss" for run in rows]
    operations = [_abridged([node.operation for node, _ in run]) for run in rows]
    norms = [run[0][0].norm_in for run in rows]
    known = [norm for norm in norms if norm]
    floor = min(known, default=1) / 3
    columns = 0.066 * max(map(len, operations)), 0.083 * max(map(len, names))  # inches
    left, wide, high = sum(columns) + 0.2, 4.2, 0.27 * len(rows)
    figure = Chart(figsize=(left + wide, high + 0.85))
    size = figure.get_size_inches()
    box = (left / size[0], 0.5 / size[1], (wide - 0.1) / size[0], high / size[1])
    axes = figure.add_axes(box)
    for y, run in enumerate(rows):
        node, kind = run[-1]
        norm, colour = norms[y], COLOURS[kind]
        if norm:
            axes.barh(y, norm - floor, 0.72, left=floor, color=colour)
        said = "not visited" if norm is None else short_number(norm) if norm else "exactly zero"
        axes.text(norm or floor, y, f" {said}", va="center", fontsize=8)
        weight = "bold" if node.is_leaf else "normal"
        look = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        look |= {"va": "center", "ha": "right"}
        axes.annotate(names[y], (0, y), (-6, 0), fontsize=8.5, weight=weight, color=colour, **look)
        beside = (-14 - 72 * columns[1], 0)
        axes.annotate(operations[y], (0, y), beside, fontsize=7.5, color="#555555", **look)
    axes.set_xscale("log")
    axes.set_xlim(floor, max(known, default=1) * 6)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlabel("norm of the gradient that arrives", fontsize=9)
    said = (
        f"from the loss to {found.parameter}: {len(found.nodes)} stops, one of {found.ways:,} ways"
    )
    figure.text(0.99, 1 - 0.05 / size[1], said, fontsize=10, ha="right", va="top")
    _bare(axes)
    return figure


def _abridged(operations: Sequence[str], most: int = 5) -> str:
    steps = [re.sub(r"Backward\d*$", "", operation) for operation in operations]
    shown = steps if len(steps) <= most else [*steps[: most - 2], "…", steps[-1]]
    return " · ".join(step if len(step) < 22 else f"{step[:20]}…" for step in shown)


def norms(found: Norms) -> Chart:
    """For each tower its blocks from the loss down, the gradient's norm as a bar on a log axis."""
    towers = sorted(found.towers.items())  # the image tower on the left, as everywhere
    rows = max((len(blocks) for _, blocks in towers), default=1)
    figure = Chart(figsize=(9.5, 0.3 * rows + 1.1))
    grid = figure.subplots(1, max(1, len(towers)), sharex=True, squeeze=False)[0]
    values = [norm for _, blocks in towers for _, norm in blocks if norm]
    floor, top = min(values, default=1) / 3, max(values, default=1) * 4
    for axes, (tower, blocks) in zip(grid, towers, strict=False):
        for y, (_, norm) in enumerate(blocks):
            if norm:
                axes.barh(y, norm - floor, 0.7, left=floor, color=COLOURS[tower])
            said = f" {short_number(norm)}" if norm else " exactly zero"
            axes.text(norm or floor, y, said, va="center", fontsize=8)
        axes.set_yticks(range(len(blocks)), [block for block, _ in blocks], fontsize=8)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_xscale("log")
        axes.set_xlim(floor, top)
        first, last = blocks[0][1], blocks[-1][1]
        change = f": last {last / first:.2g} × first" if first and len(blocks) > 1 else ""
        axes.set_title(f"{KINDS[tower]}{change}", fontsize=9, loc="left", color=COLOURS[tower])
        axes.set_xlabel("norm of the gradient that arrives", fontsize=8)
        _bare(axes)
    figure.tight_layout(w_pad=2)
    return figure


def saved(found: Mapping[str, Saved]) -> Chart:
    """Bytes that autograd keeps, a row for each block; each of several steps has its own bars."""
    by_block = {name: step.by("blocks") for name, step in found.items()}
    blocks = list(max(by_block.values(), key=len)) if by_block else []
    blocks += [b for step in by_block.values() for b in step if b not in blocks]
    blocks = list(dict.fromkeys(blocks))
    unit, word = _unit(max((s for step in by_block.values() for s in step.values()), default=1))
    thick = 0.8 / len(found)
    figure = Chart(figsize=(8.5, (0.16 * len(found) + 0.12) * len(blocks) + 1))
    axes = figure.subplots()
    looks = [{"alpha": 1.0}, {"alpha": 0.35}, {"alpha": 0.35, "hatch": "//"}]
    for i, step in enumerate(by_block.values()):
        for y, block in enumerate(blocks):
            size = step.get(block, 0) / unit
            place = y + (i - (len(found) - 1) / 2) * thick
            colour = COLOURS.get(block.partition(":")[0], COLOURS["model"])
            axes.barh(place, size, thick * 0.9, color=colour, **looks[i % len(looks)])
            axes.text(size, place, f" {size:.2f}" if size else " 0", va="center", fontsize=7.5)
    axes.set_yticks(range(len(blocks)), [b.partition(": ")[2] or b for b in blocks], fontsize=8)
    axes.set_ylim(len(blocks) - 0.4, -0.6)
    axes.set_xlabel(f"{word} kept for the backward pass", fontsize=9)
    _bare(axes)
    keys = [
        Patch(color=GREY, label=f"{name}: {step.total / unit:.1f} {word} in all", **look)
        for (name, step), look in zip(found.items(), looks, strict=False)
    ]
    figure.tight_layout()
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": len(found)}
    figure.legend(handles=keys, frameon=False, fontsize=9, **place)
    return figure


def _unit(size: float) -> tuple[float, str]:
    return (1e6, "MB") if size >= 2e5 else (1e3, "kB") if size >= 2e2 else (1, "bytes")


# ------------------------------------------------------------------------------------------ frames

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
    keys = [Patch(facecolor=_look(k)[0], edgecolor=_look(k)[1], label=said[k]) for k in kinds]
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
        fill, edge, ink = _look(kind)
        zero = end is not None and end.norm_in == 0
        if runs:
            strong = GREY if zero else edge
            for more, alpha in ((0.075, 0.14), (0.04, 0.28)):  # a glow
                axes.add_patch(_rounded(x, y, wide + 2 * more, high + 2 * more, strong, alpha))
            fill, edge, ink = ("white", GREY, INK) if zero else (edge, edge, "white")
        elif kind != "dark" and (not there or zero):
            fill, edge, ink = "white", _tint(edge, 0.45) if not there else GREY, GREY
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
