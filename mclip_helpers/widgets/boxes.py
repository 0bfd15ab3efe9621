"""Boxes to type in: a search among the pictures of a dataset, and a choice between labels."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets

from ..checks import whole_number
from ..colours import COLOURS
from ..data.pairs import PictureDataset, require_dataset
from ..display import html_text, legal, readable
from ..draw.markup import cards, image_tag, small_print
from ..evaluation import embed, zero_shot
from ..model import Clip


def search_box(
    clip: Clip, dataset: PictureDataset, query: str = "", top: int = 8
) -> ipywidgets.VBox:
    """A text box, and below it the `top` pictures of `dataset` that are most similar to the text.

    Over each caption stands the cosine similarity. Words of the text that the model has not seen
    in training are named. ValueError for an empty dataset.
    """
    require_dataset(dataset)
    top, query = whole_number("top", top, least=1), legal(query)
    image_features, _ = embed(clip, dataset)
    box = ipywidgets.Text(
        value=query, description="find", placeholder="type a few words", continuous_update=False
    )
    shown = ipywidgets.HTML()

    def update(_change: object = None) -> None:
        text = legal(box.value).strip()
        if not text:
            shown.value = "<i>Type something, then press Enter.</i>"
            return
        best = (image_features @ clip.encode_texts([text])[0].cpu()).topk(min(top, len(dataset)))
        pictures, captions = zip(*(dataset[i] for i in best.indices.tolist()), strict=True)
        answer = cards(pictures, captions, [f"{cosine:.2f}" for cosine in best.values.tolist()])
        unknown = clip.unknown_tokens(text)
        note = ""
        if unknown:
            sentence = f"{clip.name} has never seen in training: {', '.join(unknown)}"
            note = f"<p><i>{html_text(sentence)}</i></p>"
        shown.value = f"{answer}{note}{small_print(dataset.credit)}"

    box.observe(update, names="value")
    update()
    return ipywidgets.VBox([box, shown])


def classify_box(
    clip: Clip, dataset: PictureDataset, labels: str = "a cat, a dog"
) -> ipywidgets.VBox:
    """A list of pictures and a box for labels; below, the probability of each label as a bar.

    `labels` are separated by commas. ValueError for an empty dataset.
    """
    require_dataset(dataset)
    labels = legal(labels)
    names = [(f"{readable(c, 80)} ({i})", i) for i, c in enumerate(dataset.captions)]
    chooser = ipywidgets.Dropdown(options=names, description="picture")
    box = ipywidgets.Text(value=labels, description="labels", continuous_update=False)
    shown = ipywidgets.HTML()

    def update(_change: object = None) -> None:
        typed = [label.strip() for label in legal(box.value).split(",")]
        wanted = list(dict.fromkeys(filter(None, typed)))
        picture, _caption = dataset[chooser.value]
        image = image_tag(picture, 96)
        if len(wanted) < 2:
            shown.value = f"{image}<p><i>Give two labels or more, with commas.</i></p>"
            return
        bars = _bars(wanted, zero_shot(clip, [picture], wanted)[0].tolist())
        shown.value = f'<div style="display:flex;gap:14px">{image}<div>{bars}</div></div>'

    for widget in (chooser, box):
        widget.observe(update, names="value")
    update()
    return ipywidgets.VBox([chooser, box, shown])


def _bars(labels: Sequence[str], shares: Sequence[float]) -> str:
    """HTML: a line for each label, with a bar as long as its share."""
    return "".join(
        f'<div style="display:flex;align-items:center;gap:6px;font-size:12px">'
        f'<span style="width:140px;text-align:right">{html_text(label)}</span>'
        f'<span style="background:{COLOURS["text"]};height:12px;width:{220 * share:.0f}px"></span>'
        f"{share:.1%}</div>"
        for label, share in zip(labels, shares, strict=True)
    )
