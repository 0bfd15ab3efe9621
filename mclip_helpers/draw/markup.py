"""Pictures and captions as HTML: for widgets, and for what matplotlib can't write."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

from ..display import html_text


def image_tag(picture: Image.Image, side: int = 64) -> str:
    """The whole picture in a square of `side` × `side` CSS pixels."""
    buffer = io.BytesIO()
    small = picture.copy()
    small.thumbnail((2 * side, 2 * side))  # two pixels for each CSS pixel: for fine screens
    small.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    style = f"width:{side}px;height:{side}px;object-fit:contain"
    return f'<img src="data:image/png;base64,{data}" style="{style}">'


def cards(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    heads: Sequence[str] | None = None,
    width: int = 92,
) -> str:
    """Pictures in rows, each over its head in bold, if there are `heads`, and its caption."""
    heads = heads or [""] * len(images)
    each = [
        f'<div dir="auto" style="width:{width - 6}px;text-align:center;font-size:11px">'
        f"{image_tag(image, min(160, width - 28))}<br>"
        f"{f'<b>{html_text(head)}</b><br>' if head else ''}{html_text(caption)}</div>"
        for image, caption, head in zip(images, captions, heads, strict=True)
    ]
    style = "display:flex;flex-wrap:wrap;gap:6px;max-width:760px"
    return f'<div style="{style}">{"".join(each)}</div>'


def small_print(text: str) -> str:
    """A small line below pictures, for their credit."""
    return f'<p style="font-size:10px;opacity:.7">{html_text(text)}</p>' if text else ""
