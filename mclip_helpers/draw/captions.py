"""Captions in matplotlib's pictures: as they are, wrapped, and only in letters that it has."""

from __future__ import annotations

import functools
import unicodedata

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from .colours import QUIET


def escaped(text: str) -> str:
    """`text` for matplotlib, which takes what is between two dollar signs for mathematics."""
    return text.replace("$", r"\$")


def wrapped(text: str, width: int) -> str:
    """The first three lines of `text`, each of at most `width` letters, broken between words."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return escaped("\n".join(lines[:3]))


def can_write(text: str) -> bool:
    """Whether matplotlib can write `text`: it has no layout for scripts from right to left."""
    letters = "".join(text.split())
    from_the_right = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in letters)
    return not from_the_right and _letters().issuperset(map(ord, letters))


@functools.cache
def _letters() -> frozenset[int]:
    """The code points in matplotlib's font."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def credit_line(figure: Figure, credit: str, y: float) -> None:
    """The attribution, small and centred; `y` is its upper edge as a share of the height."""
    if credit:
        figure.text(0.5, y, credit, ha="center", va="top", fontsize=7, color=QUIET)
