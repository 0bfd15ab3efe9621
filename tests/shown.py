"""For several test files: how to read what a notebook would show."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET

from matplotlib.text import Text
from PIL import Image

from mclip_helpers.display import Chart

# As a caption or a credit it breaks careless HTML and matplotlib.
HOSTILE = "<b>&\"'</b> $\\frac{$5"


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
