"""The colours of all pictures. A colour has one meaning everywhere."""

from __future__ import annotations

from dataclasses import dataclass

# Distinct for colour-blind readers as well (after Okabe and Ito).
COLOURS = {
    "image": "#0072B2",  # the image tower
    "text": "#D55E00",  # the text tower
    "loss": "#CC79A7",
    "adapter": "#009E73",
    "frozen": "#8A8F98",
    "model": "#56B4E9",  # in neither tower
    "weights": "#E69F00",  # trained, but not in an adapter
    "input": "#B5A642",  # a tensor without a name that wants a gradient
}

# In this order for curves that are not about one of the things above.
CYCLE = tuple(COLOURS[name] for name in ("adapter", "frozen", "image", "text", "loss"))

INK = "#1B1F24"  # letters
GREY = COLOURS["frozen"]  # edges
QUIET = "#555555"  # letters and arrows of less importance
VACANT = "#C9CCD1"  # where there could be something
LINE = "#B4B8BE"  # between boxes
NIGHT, MOON = "#3A3F46", "#D5D8DC"  # a region without a gradient, and the letters in it


def tint(colour: str, share: float = 0.24) -> str:
    """`share` of the colour mixed with white. With the default, dark letters can be read on it."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - share * (255 - part)):02X}" for part in parts)


@dataclass(frozen=True)
class BoxStyle:
    """The colours of a box: its inside, its edge, and the letters in it."""

    fill: str
    edge: str
    ink: str


def box_style(kind: str) -> BoxStyle:
    """How a box of this kind (see `gradient.Kind`) is drawn."""
    if kind == "dark":
        return BoxStyle(NIGHT, GREY, MOON)
    return BoxStyle(tint(COLOURS[kind]), COLOURS[kind], INK)
