"""Graphs in Graphviz' language, laid out by the Graphviz that `pygraphviz` carries.

There is no wheel of pygraphviz for some machines (Windows on ARM). There a graph is shown as text,
and says why.
"""

from __future__ import annotations

import html
import os
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..display import Html, Svg

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
ElementTree.register_namespace("", SVG)


class GraphvizMissing(RuntimeError):
    """There is no pygraphviz on this machine."""


@dataclass(frozen=True)
class Drawing:
    """A graph with its places, in points from the upper left corner.

    `svg` is an SVG element, in which each node is a group with the id "node-NAME". `centres` has
    the middle of each node.
    """

    svg: ElementTree.Element
    width: float
    height: float
    centres: Mapping[str, tuple[float, float]]

    def resized(self, left: float, width: float, height: float) -> Drawing:
        """The same drawing in another frame, which begins at `left` and at the top."""
        self.svg.set("viewBox", f"{left:.2f} 0 {width:.2f} {height:.2f}")
        self.svg.set("width", f"{width:.0f}pt")
        self.svg.set("height", f"{height:.0f}pt")
        return replace(self, width=width, height=height)

    def to_svg(self) -> Svg:
        return Svg(ElementTree.tostring(self.svg, encoding="unicode"))


def lay_out(dot_source: str) -> Drawing:
    """The graph with a place for each node.

    Raises ValueError for a source that Graphviz refuses, GraphvizMissing without pygraphviz.
    """
    if pygraphviz is None:
        raise GraphvizMissing(MISSING)
    with _quiet():
        try:
            graph = pygraphviz.AGraph(string=dot_source)
        except pygraphviz.DotError as error:
            raise ValueError(f"Graphviz refused the graph: {error}") from error
        graph.graph_attr.update(bgcolor="transparent", pad=f"{PAD / 72:.6f}")
        for node in graph.nodes():
            node.attr["id"] = f"node-{node}"
        graph.layout(prog="dot")
        svg = ElementTree.fromstring(graph.draw(format="svg"))
        _, _, width, height = _numbers(graph.graph_attr["bb"])
        centres = {}
        for node in graph.nodes():
            x, y = _numbers(node.attr["pos"])
            centres[str(node)] = (x + PAD, height + PAD - y)
    return Drawing(svg, width + 2 * PAD, height + 2 * PAD, centres)


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
    source = f"<pre>{html.escape(text)}</pre><p><i>{html.escape(str(missing))}</i></p>"
    return Html(source, f"{text}\n({missing})")


def _numbers(text: str) -> list[float]:
    """The numbers in a place or a frame, which Graphviz parts by commas or spaces."""
    return [float(number) for number in text.replace(",", " ").split()]


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
