"""The colours of all pictures. Each means the same thing everywhere."""

from __future__ import annotations

from dataclasses import dataclass

# Distinct for colour-blind readers as well (after Okabe and Ito).
COLOURS = {
    "image": "#0072B2",
    "text": "#D55E00",
    "loss": "#CC79A7",
    "adapter": "#009E73",
    "frozen": "#8A8F98",
    "model": "#56B4E9",  # without towers
    "weights": "#E69F00",  # trained, and no adapter
    "input": "#B5A642",
}
INK, GREY, LINE = "#1B1F24", "#8A8F98", "#B4B8BE"
NIGHT, MOON = "#3A3F46", "#D5D8DC"  # where no gradient is computed, and what is written there


@dataclass(frozen=True)
class BoxStyle:
    """The colours of a box: its inside, its border, and the letters on it."""

    fill: str
    edge: str
    ink: str


def tint(colour: str, share: float = 0.24) -> str:
    """The colour on white paper, so thin that dark letters can be read on it."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - share * (255 - part)):02X}" for part in parts)


def box_style(kind: str) -> BoxStyle:
    """How a box of this kind (see `gradient.Kind`) is drawn."""
    if kind == "dark":
        return BoxStyle(NIGHT, GREY, MOON)
    return BoxStyle(tint(COLOURS[kind]), COLOURS[kind], INK)
