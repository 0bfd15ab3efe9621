"""Things to play with. Each has a static picture beside it in the notebooks (`draw`)."""

from __future__ import annotations

import base64
import html
import io

import ipywidgets
import torch
from PIL import Image

from .data import PictureDataset
from .evaluate import embed, zero_shot
from .models import Clip
from .player import player

__all__ = ["classify_box", "player", "search_box"]


def _img(picture: Image.Image, size: int = 64) -> str:
    buffer = io.BytesIO()
    shown = picture.copy()
    shown.thumbnail((2 * size, 2 * size))
    shown.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" style="height:{size}px;width:auto">'


def search_box(
    clip: Clip, dataset: PictureDataset, query: str = "", top: int = 8
) -> ipywidgets.VBox:
    """A text box above the `top` pictures of `dataset` that fit the text best."""
    image_features, _ = embed(clip, dataset)
    box = ipywidgets.Text(
        value=query, description="find", placeholder="type a few words", continuous_update=False
    )
    shown = ipywidgets.HTML()

    def update(_=None) -> None:
        text = box.value.strip()
        if not text:
            shown.value = "<i>Type something, then press Enter.</i>"
            return
        best = (image_features @ clip.encode_texts([text])[0].cpu()).topk(min(top, len(dataset)))
        cards = []
        for index, cosine in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            picture, caption = dataset[index]
            cards.append(
                f'<div style="width:92px;text-align:center;font-size:11px">{_img(picture)}<br>'
                f"<b>{cosine:.2f}</b><br>{html.escape(caption)}</div>"
            )
        unknown = clip.unknown_tokens(text)
        note = ""
        if unknown:
            words = html.escape(", ".join(unknown))
            note = f"<p><i>{clip.name} has never seen in training: {words}</i></p>"
        shown.value = (
            f'<div style="display:flex;flex-wrap:wrap;gap:6px">{"".join(cards)}</div>{note}'
            f'<p style="font-size:10px;opacity:.7">{html.escape(dataset.credit)}</p>'
        )

    box.observe(update, names="value")
    update()
    return ipywidgets.VBox([box, shown])


def classify_box(
    clip: Clip, dataset: PictureDataset, labels: str = "a cat, a dog"
) -> ipywidgets.VBox:
    """A picture chooser beside a box of labels, and the probability of each label as a bar."""
    names = [(f"{caption} ({i})", i) for i, caption in enumerate(dataset.captions)]
    chooser = ipywidgets.Dropdown(options=names, description="picture")
    box = ipywidgets.Text(value=labels, description="labels", continuous_update=False)
    shown = ipywidgets.HTML()

    def update(_=None) -> None:
        wanted = [label.strip() for label in box.value.split(",") if label.strip()]
        picture, _caption = dataset[chooser.value]
        if len(wanted) < 2:
            shown.value = f"{_img(picture, 96)}<p><i>Give two labels or more, with commas.</i></p>"
            return
        shares: torch.Tensor = zero_shot(clip, [picture], wanted)[0]
        lines = "".join(
            f'<div style="display:flex;align-items:center;gap:6px;font-size:12px">'
            f'<span style="width:140px;text-align:right">{html.escape(label)}</span>'
            f'<span style="background:#D55E00;height:12px;width:{220 * share:.0f}px"></span>'
            f"{share:.1%}</div>"
            for label, share in zip(wanted, shares.tolist(), strict=True)
        )
        image = _img(picture, 96)
        shown.value = f'<div style="display:flex;gap:14px">{image}<div>{lines}</div></div>'

    for widget in (chooser, box):
        widget.observe(update, names="value")
    update()
    return ipywidgets.VBox([chooser, box, shown])
