"""Graphs in Graphviz' language, laid out by the Graphviz that `pygraphviz` carries.

There is no wheel of pygraphviz for some machines (Windows on ARM). There a graph is shown as text,
and says why.
"""

from __future__ import annotations

import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from ..display import Html, Svg, html_text, legal, readable

try:
    import pygraphviz
except ImportError:
    pygraphviz = None

SVG = "http://www.w3.org/2000/svg"
PAD = 4.0  # points around the drawing
MISSING = (
    "A picture of a graph needs the package pygraphviz, which is not installed here. "
    "(It has wheels for most machines: pip install pygraphviz.)"
)
# Graphviz 14.1 crashes when it frees a label whose first line is empty, such as torchviz gives to a
# leaf without a name. These are the places at which such a line lacks a space: where a string may
# begin, and where a field of a record does.
EMPTY_LINE = re.compile(r'(?<=")(?=\r?\n|\\[nlr])')
EMPTY_LINE_OF_RECORD = re.compile(r"(?<=[|{}>])(?=\s*(\n|\\[nlr]))")
ElementTree.register_namespace("", SVG)


class GraphvizMissing(RuntimeError):
    """There is no pygraphviz on this machine."""


@dataclass(frozen=True)
class Drawing:
    """A graph that has been laid out, in points from the upper left corner.

    `svg` is an SVG element, in which each node is a group with the id "node-NAME". `dot_source` is
    what was drawn.
    """

    svg: ElementTree.Element
    width: float
    height: float
    dot_source: str

    @cached_property
    def centres(self) -> dict[str, tuple[float, float]]:
        """The middle of each node."""
        # In Graphviz' own language a node has its `pos`, in points from the lower left corner.
        placed = pygraphviz.AGraph(string=_render(self.dot_source, "dot").decode())
        height = float(placed.graph_attr["bb"].split(",")[3])
        at = {str(node): map(float, node.attr["pos"].split(",")) for node in placed.nodes()}
        return {name: (x + PAD, height - y + PAD) for name, (x, y) in at.items()}

    def resized(self, left: float, width: float, height: float) -> Drawing:
        """The same drawing in another frame, which begins at `left` and at the top."""
        self.svg.set("viewBox", f"{left:.2f} 0 {width:.2f} {height:.2f}")
        self.svg.set("width", f"{width:.0f}pt")
        self.svg.set("height", f"{height:.0f}pt")
        return replace(self, width=width, height=height)

    def to_svg(self) -> Svg:
        return Svg(ElementTree.tostring(self.svg, encoding="unicode"))


def lay_out(dot_source: str) -> Drawing:
    """Give each node of a graph its place.

    Raises ValueError for a source that Graphviz refuses, GraphvizMissing without pygraphviz.
    """
    dot_source = legal(dot_source)
    svg = ElementTree.fromstring(legal(_render(dot_source, "svg").decode(errors="replace")))
    _unlink(svg)
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    return Drawing(svg, width, height, dot_source)


def quoted(lines: Iterable[str]) -> str:
    """Lines of text as one string in Graphviz' language, shown letter by letter as they are."""
    # There a backslash begins an escape ("\\N" is the node's name), and "&lt;" is a "<".
    escapes = str.maketrans({"\\": r"\\", '"': r"\"", "&": "&amp;"})
    return '"{}"'.format(r"\n".join(readable(line).translate(escapes) for line in lines))


def _unlink(svg: ElementTree.Element) -> None:
    """Take away each link that does not lead to a page of the web: it could run a script."""
    for element in svg.iter():
        for name in [n for n in element.attrib if n.rpartition("}")[2] == "href"]:
            if not element.attrib[name].startswith(("https://", "http://")):
                del element.attrib[name]


def _render(dot_source: str, output: str) -> bytes:
    """What Graphviz makes of the graph, in the format `output`.

    (Each time from the beginning: pygraphviz has crashed when drawing what it laid out before.)
    """
    if pygraphviz is None:
        raise GraphvizMissing(MISSING)
    with _quiet():
        try:
            graph = pygraphviz.AGraph(string=EMPTY_LINE.sub(" ", dot_source))
        except pygraphviz.DotError as error:
            raise ValueError(f"Graphviz refused the graph: {error}") from error
        graph.graph_attr.update(bgcolor="transparent", pad=f"{PAD / 72:.6f}")
        for node in graph.nodes():
            node.attr["id"] = f"node-{node}".replace("\\", r"\\")  # there \N is the node's name
            if node.attr["shape"] in ("record", "Mrecord"):  # in which a plain space is skipped
                node.attr["label"] = EMPTY_LINE_OF_RECORD.sub("&nbsp;", node.attr["label"])
        return graph.draw(format=output, prog="dot")


def graph(dot_source: str) -> Svg | Html:
    """Draw a graph in Graphviz' language, e.g. `torchviz.make_dot(loss).source`.

    Raises ValueError for a source that Graphviz refuses. Without pygraphviz the source itself is
    shown, and the reason.
    """
    try:
        return lay_out(dot_source).to_svg()
    except GraphvizMissing as missing:
        return as_text(dot_source, missing)


def as_text(text: str, missing: GraphvizMissing) -> Html:
    """The text form of a graph that can't be drawn here, and why not."""
    source = f"<pre>{html_text(text, len(text))}</pre><p><i>{html_text(missing)}</i></p>"
    return Html(source, f"{text}\n({missing})")


@contextmanager
def _quiet() -> Iterator[None]:
    """Graphviz and Fontconfig complain straight to file 2, past Python's stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
