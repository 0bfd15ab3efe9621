"""How an object shows itself in a notebook: tables, HTML, SVG, and matplotlib's figures.

A class whose objects have a picture inherits from `Drawable`. The package `draw` registers the
function that draws them, so that no class has to import what draws it.
"""

from __future__ import annotations

import functools
import html
import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure


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
        self.source, self.text = source, text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.source


class Table:
    """Rows under a header: HTML in a notebook, aligned text elsewhere."""

    def __init__(self, header: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
        self.header, *self.rows = [[str(cell) for cell in row] for row in (header, *rows)]

    def __str__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        shown = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
        shown.insert(1, "  ".join("─" * width for width in widths))
        return "\n".join(line.rstrip() for line in shown)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            style = ' style="text-align:left"'
            return "".join(f"<{tag}{style}>{html.escape(cell)}</{tag}>" for cell in cells)

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
