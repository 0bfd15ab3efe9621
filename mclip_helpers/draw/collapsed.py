"""The picture of a collapsed graph: the loss on top, along the arrows the gradient flows down."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence

from ..colours import GREY, box_style, tint
from ..display import Html, Svg, picture_of
from ..gradient.boxes import Collapsed, Group, LeafGroup
from ..gradient.kinds import Kind, Level
from ..gradient.words import KINDS, short_number
from ..names import clean_name, short_name
from .graphviz import SVG, Drawing, GraphvizMissing, as_text, lay_out, quoted

LETTERS = 11.0  # points: the size of the letters in the boxes
LONGEST_NOTE = 45  # letters: a longer note gives way to the number of nodes
LEGEND_WIDTH = 430.0  # points, at least
LEGEND_LINE = 20.0


@picture_of.register
def collapsed(shown: Collapsed) -> Svg | Html:
    """The groups as boxes, with a legend. Where there is no Graphviz, the text form."""
    try:
        drawing = lay_out_groups(shown)
    except GraphvizMissing as missing:
        return as_text(repr(shown), missing)
    return _with_legend(drawing, kinds_of(shown.groups)).to_svg()


def lay_out_groups(shown: Collapsed) -> Drawing:
    """The drawing of the groups without a legend; nodes are called by the groups' keys."""
    lines = [
        'graph [nodesep="0.22", ranksep="0.28"]',
        f'node [shape="box", fontname="Helvetica", fontsize="{LETTERS:g}", '
        f'margin="0.11,0.06", height="0.3"]',
        f'edge [color="{GREY}", arrowsize="0.65"]',
        *(_box(group, shown) for group in shown.groups),
    ]
    group_of = {group.key: group for group in shown.groups}
    for a, b in shown.edges:
        style = "dashed" if group_of[b].kind is Kind.DARK else "solid"
        # The line from block to block is to be straight; what ends beside it may stand aside.
        weight = 1 if group_of[b].is_leaf else 8
        lines.append(f'"{a}" -> "{b}" [style="{style}", weight="{weight}"]')
    return lay_out("\n".join(["digraph {", *lines, "}"]))


def kinds_of(groups: Iterable[Group]) -> list[Kind]:
    """The kinds that occur, in the order of the legend."""
    occur = {group.kind for group in groups}
    return [kind for kind in Kind if kind in occur]


def _box(group: Group, shown: Collapsed) -> str:
    style = box_style(group.kind)
    fill = tint(style.edge, 0.6) if group.is_leaf else style.fill
    shape = {Kind.DARK: "filled,dashed"}.get(
        group.kind, "filled" if group.is_leaf else "filled,rounded"
    )
    return (
        f'"{group.key}" [label={quoted(_lines(group, shown))}, style="{shape}", '
        f'fillcolor="{fill}", color="{style.edge}", fontcolor="{style.ink}"]'
    )


def _lines(group: Group, shown: Collapsed) -> list[str]:
    """What stands in the box of a group."""

    def inner(name: str) -> str:
        """The name within the module that is shown, or within its tower."""
        within = clean_name(shown.within or "")
        _, inside, rest = f".{clean_name(name)}".partition(f".{within}.")
        return rest if within and inside else short_name(name)

    heading, note = group.heading(inner), group.detail(inner)
    single = shown.level is Level.OPERATIONS and group.order is not None
    lines = [f"{group.order} · {heading}" if single else heading]
    if isinstance(group, LeafGroup):
        lines += group.counts()  # one below the other: four such boxes may stand side by side
    elif 0 < len(note) <= LONGEST_NOTE:
        lines.append(note)
    elif len(group.nodes) > 1:
        lines.append(f"{len(group.nodes)} nodes")
    # Of leaves to which only zeros came, the note says so.
    if group.norm is not None and (group.norm or not group.is_leaf):
        lines.append(f"gradient {short_number(group.norm)}")
    return lines


def _with_legend(drawing: Drawing, kinds: Sequence[Kind]) -> Drawing:
    """The drawing with a row of small boxes under it that says what its colours mean."""
    size = LETTERS
    width = max(drawing.width, LEGEND_WIDTH)
    left = (drawing.width - width) / 2
    legend = ElementTree.SubElement(drawing.svg, f"{{{SVG}}}g", {"class": "legend"})
    x, y = left + 4, drawing.height + 14
    for kind in kinds:
        needed = 32 + 0.52 * size * len(KINDS[kind])
        if x > left + 4 and x + needed > left + width:
            x, y = left + 4, y + LEGEND_LINE
        style = box_style(kind)
        box = {"x": f"{x:.0f}", "y": f"{y:.0f}", "width": "12", "height": "12", "rx": "2"}
        box |= {"fill": style.fill, "stroke": style.edge}
        ElementTree.SubElement(legend, f"{{{SVG}}}rect", box)
        place = {"x": f"{x + 17:.0f}", "y": f"{y + 10:.0f}", "fill": GREY}
        place |= {"font-size": f"{size:g}", "font-family": "Helvetica,Arial,sans-serif"}
        ElementTree.SubElement(legend, f"{{{SVG}}}text", place).text = KINDS[kind]
        x += needed
    return drawing.resized(left, width, y + LEGEND_LINE)
