"""Things to play with. Each has a static picture beside it in the notebooks (`draw`)."""

from __future__ import annotations

import html

import ipywidgets
import torch

from .. import draw
from ..data import PictureDataset
from ..evaluation import embed, zero_shot
from ..model.clip import Clip


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
        pictures, captions = zip(*(dataset[i] for i in best.indices.tolist()), strict=True)
        cards = draw.cards(pictures, captions, [f"{cosine:.2f}" for cosine in best.values.tolist()])
        unknown = clip.unknown_tokens(text)
        note = ""
        if unknown:
            words = html.escape(", ".join(unknown))
            note = f"<p><i>{clip.name} has never seen in training: {words}</i></p>"
        shown.value = f"{cards}{note}{draw.small_print(dataset.credit)}"

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
        image = draw.image_tag(picture, 96)
        if len(wanted) < 2:
            shown.value = f"{image}<p><i>Give two labels or more, with commas.</i></p>"
            return
        shares: torch.Tensor = zero_shot(clip, [picture], wanted)[0]
        lines = "".join(
            f'<div style="display:flex;align-items:center;gap:6px;font-size:12px">'
            f'<span style="width:140px;text-align:right">{html.escape(label)}</span>'
            f'<span style="background:#D55E00;height:12px;width:{220 * share:.0f}px"></span>'
            f"{share:.1%}</div>"
            for label, share in zip(wanted, shares.tolist(), strict=True)
        )
        shown.value = f'<div style="display:flex;gap:14px">{image}<div>{lines}</div></div>'

    for widget in (chooser, box):
        widget.observe(update, names="value")
    update()
    return ipywidgets.VBox([chooser, box, shown])
