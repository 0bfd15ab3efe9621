"""The card of an exported model; its text is in `card_template.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..data import PictureDataset
from ..lora.card import LICENCE_TEXTS, LICENCES, licence_of
from ..lora.markdown import as_cell
from ..model import hub_repository
from .folder import GRAPHS
from .links import Link, near_one

TEMPLATE = Path(__file__).with_name("card_template.md")
STORED = {
    "fp32": "in 32 bits",
    "fp16": "and computed in 16 bits",
    "int8": "in 8 bits wherever that costs little",
}


def write_card(
    notes: Mapping[str, Any], links: Sequence[Link], dataset: PictureDataset, folder: Path
) -> str:
    """The text of README.md, for the graphs and the vocabulary in `folder`.

    `dataset` is what the links were measured with.
    """
    name, _, weights = notes["model"].partition("/")
    licence, repository = licence_of(name, weights), hub_repository(name, weights)
    files = {
        GRAPHS["image"]: "`pixels`, fp32 (N, 3, H, W) → `features`, fp32 (N, D)",
        GRAPHS["text"]: "`tokens`, int32 (N, context) → `features`, fp32 (N, D)",
        notes["tokenizer"]["file"]: "the vocabulary",
    }
    metadata = ModelCardData(
        base_model=repository,
        library_name="onnx",
        pipeline_tag="zero-shot-image-classification",
        license=LICENCES[licence],
        tags=["clip", "onnx", "open_clip", *(["mobileclip"] if "MobileCLIP" in name else [])],
    )
    card = ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        notes=notes,
        stored=STORED[notes["precision"]],
        files=[(file, what, (folder / file).stat().st_size) for file, what in files.items()],
        links=links,
        near_one=near_one,
        pictures=len(dataset),
        captions=len(dataset.all_captions),
        credit=as_cell(dataset.credit),
        licence=LICENCE_TEXTS[licence].format(thing="model"),
    )
    return f"{card}\n"
