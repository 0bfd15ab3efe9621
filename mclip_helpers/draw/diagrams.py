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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from ..display import Chart, Svg
from ..gradient.graph import (
    Collapsed,
    Group,
    Norms,
    Path,
    Saved,
    short_number,
)
from ..names import clean_name, short_name
from .base import COLOURS, bare

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


def tint(colour: str, share: float = 0.24) -> str:
    """The colour on white paper, so thin that dark letters can be read on it."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - share * (255 - part)):02X}" for part in parts)


def look_of(kind: str) -> tuple[str, str, str]:
    """(fill, edge, ink) of a box."""
    if kind == "dark":
        return NIGHT, GREY, MOON
    return tint(COLOURS[kind]), COLOURS[kind], INK


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


def way() -> str:
    """How graphs are drawn on this machine: by "dot", by "pygraphviz" or by "matplotlib"."""
    if shutil.which("dot"):
        return "dot"
    try:
        import pygraphviz  # noqa: F401
    except ImportError:
        return "matplotlib"
    return "pygraphviz"


def graph(dot_source: str) -> Svg:
    """Draw a graph in Graphviz' language, with the best layout that this machine has (`way`).

    Without Graphviz it understands what torchviz and this package write: nodes, edges and their
    attributes, no subgraphs. Raises ValueError for a source that is not understood.
    """
    best = way()
    if best == "matplotlib":
        return Svg(_drawn_by_matplotlib(_Source(dot_source)))
    if best == "dot":
        command = ["dot", "-Tsvg"]
        done = subprocess.run(command, input=dot_source.encode(), capture_output=True, check=False)
        if done.returncode:
            raise ValueError(f"dot refused the graph: {done.stderr.decode()}")
        return _tidy(done.stdout.decode())
    import pygraphviz

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


def _unescaped(match: re.Match[str]) -> str:
    """Of a backslash and a letter: `n`, `l` and `r` end a line, any other letter is itself."""
    return "\n" if match[1] in "nlr" else match[1]


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
            text = re.sub(r"\\(.)", _unescaped, quoted or "")
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
        fill, edge, ink = look_of(group.kind)
        style = "filled,dashed" if group.kind == "dark" else "filled,rounded"
        if group.is_end:
            fill, style = tint(edge, 0.6), "filled"
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
        fill, edge, _ = look_of(kind)
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
    bare(axes)
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
        bare(axes)
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
    bare(axes)
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
