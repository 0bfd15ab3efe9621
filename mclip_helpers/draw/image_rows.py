"""Photographs and drawings in rows: `pictures`, and the parts that other modules draw with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from PIL import Image

from ..checks import whole_number
from ..data.pairs import PictureDataset, require_dataset
from ..display import Chart, Html, readable
from .arguments import pictures_of, require_as_many, require_texts
from .captions import can_write, credit_line, wrapped
from .markup import cards, small_print

PAGE, CARD = 736, 44  # CSS pixels: the width of a full row of cards, and of a card at least


def pictures(
    images: PictureDataset | Sequence[Image.Image | torch.Tensor],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 8,
    credit: str | None = None,
) -> Chart | Html:
    """Pictures in rows, each under its title. A dataset brings its own captions and credit.

    The result is Html if matplotlib can't write one of the titles (in Korean, Arabic, Hindi, …).
    TypeError for what is no picture, ValueError if there is none or not a title for each.
    """
    columns = whole_number("columns", columns, least=1)
    if isinstance(images, PictureDataset):
        require_dataset(images)
        titles = images.captions if titles is None else titles
        credit = images.credit if credit is None else credit
        images = [pair.load() for pair in images.pairs]
    shown = pictures_of(images)
    if titles is not None:
        require_texts("titles", titles)
        require_as_many("titles", titles, "pictures", len(shown))
        titles = [str(title) for title in titles]
    if titles is None or all(map(can_write, titles)):
        return picture_chart(shown, titles, columns, credit or "")
    source = f"{cards(shown, titles, width=max(CARD, PAGE // columns))}{small_print(credit or '')}"
    return Html(f"<div>{source}</div>", "\n".join(map(readable, [*titles, credit or ""])))


def picture_chart(
    images: Sequence[Image.Image], titles: Sequence[str] | None, columns: int, credit: str
) -> Chart:
    """Pictures in rows of `columns`, each under its title, drawn by matplotlib."""
    rows = -(-len(images) // columns)
    size, gap = 1.2, 0.12 if titles is None else 0.55  # inches: a picture, and between two rows
    figure = Chart(figsize=(1.15 * size * columns, size * rows + gap * (rows - 1)))
    space = {"left": 0, "right": 1, "bottom": 0, "top": 1, "hspace": gap / size}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=space)
    for axes in grid.flat:
        axes.axis("off")
    for i, (axes, picture) in enumerate(zip(grid.flat, images, strict=False)):
        axes.imshow(picture, interpolation="lanczos")
        if titles is not None:
            axes.set_title(wrapped(titles[i], 17), fontsize=8)
    credit_line(figure, credit, -0.1 / rows)
    return figure


def thumbnail(axes: Axes, picture: Image.Image, x: float, y: float, size: float) -> None:
    """The picture in a square around (x, y), `size` to each side. The y axis points downwards."""
    extent = (x - size, x + size, y + size, y - size)
    axes.imshow(picture, extent=extent, clip_on=False, zorder=3)
