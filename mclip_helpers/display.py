"""How an object shows itself in a notebook: tables, HTML, SVG, and matplotlib's figures.

Captions, names and messages come from people and files we don't know. Whatever they hold, they are
shown as text: `readable` makes any text fit to be shown, and `html_text` puts it into HTML or SVG.
Nothing else in the package escapes.

A class whose objects have a picture inherits from `Drawable`. The package `draw` registers the
function that draws them, so that no class has to import what draws it.
"""

from __future__ import annotations

import functools
import html
import io
import re
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

LONGEST = 1_000  # letters of a text that are shown; the rest is "…"
REPLACED = "\N{REPLACEMENT CHARACTER}"
# Control characters, halves of surrogate pairs and non-characters: no XML may hold them, some can't
# be encoded, and some steer a terminal. Tabs and ends of lines are none of these.
UNFIT = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# What changes the direction of writing until it is ended, and what ends it (Unicode's UAX 9).
EMBEDDINGS, END_OF_EMBEDDING = "\u202a\u202b\u202d\u202e", "\u202c"
ISOLATES, END_OF_ISOLATE = "\u2066\u2067\u2068", "\u2069"


def legal(text: object) -> str:
    """`str(text)` with � in the place of each character that can't be shown anywhere."""
    return UNFIT.sub(REPLACED, str(text))


def readable(text: object, longest: int = LONGEST) -> str:
    """`str(text)` as it can be shown anywhere, as plain text.

    `legal`, at most `longest` letters long, and what stands behind it keeps its direction.
    """
    text = legal(text)
    if len(text) > longest:
        text = f"{text[: longest - 1]}…"
    return text + _still_open(text)


def html_text(text: object, longest: int = LONGEST) -> str:
    """`readable` text for HTML and SVG, between tags or in a quoted attribute."""
    return html.escape(readable(text, longest))


def _still_open(text: str) -> str:
    """What ends each change of direction that `text` begins and does not end."""
    ends: list[str] = []
    for letter in text:
        if letter in EMBEDDINGS:
            ends.append(END_OF_EMBEDDING)
        elif letter in ISOLATES:
            ends.append(END_OF_ISOLATE)
        elif letter == END_OF_EMBEDDING and ends[-1:] == [letter]:
            ends.pop()
        elif letter == END_OF_ISOLATE and letter in ends:
            while ends.pop() != letter:  # it ends the embeddings inside, too
                pass
    return "".join(reversed(ends))


class Chart(Figure):
    """A matplotlib figure that shows itself as PNG where it is the value of a cell.

    It is made without pyplot, which would show it a second time at the end of the cell.
    """

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
        return buffer.getvalue()


class Svg:
    """A drawing in SVG, `source`, that shows itself in a notebook."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __repr__(self) -> str:
        return f"<Svg of {len(self.source):,} characters>"

    def _repr_svg_(self) -> str:
        """The drawing in its own size, or smaller where the page is narrower."""
        return self.source.replace("<svg ", '<svg style="max-width:100%;height:auto" ', 1)


class Html:
    """HTML that shows itself in a notebook; elsewhere `text` stands for it."""

    def __init__(self, source: str, text: str) -> None:
        lines = legal(text).split("\n")
        self.source, self.text = source, "\n".join(line + _still_open(line) for line in lines)

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.source


class Table:
    """Rows under a header: HTML in a notebook, aligned text elsewhere.

    Raises ValueError for a row that has not as many cells as the header.
    """

    def __init__(self, header: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
        self.header, *self.rows = [[readable(cell) for cell in row] for row in (header, *rows)]
        for i, row in enumerate(self.rows, start=1):
            if len(row) != len(self.header):
                raise ValueError(
                    f"row {i} of the table has {len(row)} cells; its header has {len(self.header)}"
                )

    def __str__(self) -> str:
        lines = [[" ".join(cell.splitlines()) for cell in row] for row in (self.header, *self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        shown = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
        shown.insert(1, "  ".join("─" * width for width in widths))
        return "\n".join(line.rstrip() for line in shown)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            style = ' style="text-align:left"'
            return "".join(f"<{tag}{style}>{html_text(cell)}</{tag}>" for cell in cells)

        body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in self.rows)
        head = f"<thead><tr>{row(self.header, 'th')}</tr></thead>"
        return f"<table>{head}<tbody>{body}</tbody></table>"


Picture = Chart | Svg | Html


@functools.singledispatch
def picture_of(thing: object, *args: Any, **options: Any) -> Picture:
    """The picture of a `Drawable`, by the function that `draw` registered for its class.

    Raises TypeError for an object of another class.
    """
    raise TypeError(f"there is no picture of a {type(thing).__name__}")


class Drawable:
    """An object that has a picture: `plot()` makes it."""

    def plot(self, *args: Any, **options: Any) -> Picture:
        """The picture. The arguments are those of the function that draws it."""
        return picture_of(self, *args, **options)


class ShownAsPicture(Drawable):
    """A `Drawable` that shows its picture where it is the value of a cell."""

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> dict[str, str | bytes]:
        picture = self.plot()
        if isinstance(picture, Chart):
            return {"image/png": picture._repr_png_()}
        if isinstance(picture, Svg):
            return {"image/svg+xml": picture._repr_svg_()}
        return {"text/html": picture._repr_html_()}
