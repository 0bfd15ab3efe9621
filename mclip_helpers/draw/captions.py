"""Captions in matplotlib's pictures: as they are, wrapped, and only in letters that it has."""

from __future__ import annotations

import functools
import unicodedata

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from ..colours import QUIET
from ..display import legal, readable

# Letters that are drawn; the rest is "…".
LONGEST_CREDIT, LONGEST_LINE, LONGEST_NAME, LONGEST_WORD = 400, 200, 60, 40


def escaped(text: object, longest: int = LONGEST_LINE) -> str:
    """Any text as one line for matplotlib, letter by letter as it is.

    (Without this, matplotlib takes what is between two dollar signs for mathematics.)
    """
    return readable(" ".join(legal(text).split()), longest).replace("$", r"\$")


def legend_name(text: object) -> str:
    """`escaped`, for a legend: matplotlib leaves out a name that begins with "_"."""
    name = escaped(text, LONGEST_NAME)
    return f"\N{ZERO WIDTH SPACE}{name}" if name.startswith("_") else name


def wrapped(text: object, width: int) -> str:
    """The first three lines of `text`, each of at most `width` letters, broken between words.

    A word that is longer than a line stays whole, up to 40 letters.
    """
    lines = [""]
    for word in readable(text).split():
        word = readable(word, max(width, LONGEST_WORD))
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(map(escaped, lines[:3]))


def can_write(text: str) -> bool:
    """Whether matplotlib can write `text`: it has no layout for scripts from right to left."""
    letters = "".join(readable(text).split())
    from_the_right = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in letters)
    return not from_the_right and _letters().issuperset(map(ord, letters))


@functools.cache
def _letters() -> frozenset[int]:
    """The code points in matplotlib's font."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def credit_line(figure: Figure, credit: str, y: float) -> None:
    """The attribution, small and centred; `y` is its upper edge as a share of the height."""
    if credit:
        figure.text(
            0.5, y, escaped(credit, LONGEST_CREDIT), ha="center", va="top", fontsize=7, color=QUIET
        )
