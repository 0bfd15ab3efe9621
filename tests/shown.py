"""For several test files: how to read what a notebook would show."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET

from matplotlib.text import Text
from PIL import Image

from mclip_helpers.display import Chart, Svg

# As a caption or a credit it breaks careless HTML and matplotlib.
HOSTILE = "<b>&\"'</b> $\\frac{$5"
SVG = "{http://www.w3.org/2000/svg}"


def png(chart: Chart) -> Image.Image:
    """The chart as a notebook would show it, decoded."""
    picture = Image.open(io.BytesIO(chart._repr_png_()))
    picture.load()
    assert picture.format == "PNG"
    return picture


def texts(chart: Chart) -> list[str]:
    """All that is written in a chart, with a space for the end of a line."""
    png(chart)  # ticks get their texts when drawn
    written = [text.get_text() for text in chart.findobj(Text) if text.get_visible()]
    return [text.replace("\n", " ").replace(r"\$", "$") for text in written if text]


def xml(source: str) -> ET.Element:
    """HTML or SVG that is well-formed XML too; HTML's `<br>` and `<img …>` are closed first."""
    return ET.fromstring(re.sub(r"<br>|<img ([^>]*)>", r"<img \1/>", source))


def words(element: ET.Element) -> str:
    """The text in an element, without the tags."""
    return " ".join("".join(element.itertext()).split())


def pictures_in(source: str) -> list[Image.Image]:
    """The PNG pictures embedded in HTML, decoded."""
    codes = re.findall(r'src="data:image/png;base64,([^"]+)"', source)
    return [Image.open(io.BytesIO(base64.b64decode(code, validate=True))) for code in codes]


def nodes_and_edges(svg: Svg) -> tuple[set[str], list[tuple[str, str]]]:
    """What Graphviz drew: nodes by the ids of their groups, edges by their titles."""
    root = ET.fromstring(svg._repr_svg_())
    assert root.tag == f"{SVG}svg"
    nodes, edges = [], []
    for group in root.iter(f"{SVG}g"):
        name = group.get("id", "")
        if name.startswith("node-"):
            nodes.append(name.removeprefix("node-"))
        elif group.get("class") == "edge":
            edges.append(group.find(f"{SVG}title").text)
    assert len(set(nodes)) == len(nodes)
    return set(nodes), sorted(tuple(edge.split("->")) for edge in edges)


def box_centres(source: str) -> dict[str, tuple[float, float]]:
    """The middle of each node that Graphviz drew, by its name, read from the shapes in the SVG."""
    root = ET.fromstring(source)
    moved = re.search(r"translate\(([-\d.]+)[ ,]([-\d.]+)\)", root.find(f"{SVG}g").get("transform"))
    dx, dy = map(float, moved.groups())
    centres = {}
    for group in root.iter(f"{SVG}g"):
        if group.get("id", "").startswith("node-"):
            x, y = _middle(group)
            centres[group.get("id").removeprefix("node-")] = (x + dx, y + dy)
    return centres


def _middle(group: ET.Element) -> tuple[float, float]:
    ellipse = group.find(f"{SVG}ellipse")
    if ellipse is not None:
        return float(ellipse.get("cx")), float(ellipse.get("cy"))
    shape = next(e for e in group if e.tag in (f"{SVG}path", f"{SVG}polygon"))
    drawn = shape.get("d") or shape.get("points")
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", drawn)]
    xs, ys = numbers[::2], numbers[1::2]
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
