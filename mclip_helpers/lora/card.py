"""The model card of an adapter: what you would ask of somebody else's before you use it.

The card's text is in `card_template.md`, a Jinja template; here is what goes into it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from peft import LoraConfig

from ..model.nano import NANO
from ..model.weights import RANDOM, is_apples
from ..names import tower_of
from .markdown import as_cell, as_paragraphs

TEMPLATE = Path(__file__).with_name("card_template.md")
# The licence of the base, by a short name → its id on the hub.
LICENCES = {"apple": "apple-amlr", "apache": "apache-2.0", "none": None, "of the base": None}
# What it means for what was made from the base: an adapter, or an exported model.
LICENCE_TEXTS = {
    "apple": (
        "Apple's weights are under the Apple Machine Learning Research Model licence, and this "
        "{thing} is a derivative: **for research, not for products**. Whoever passes it on passes "
        "on the licence with it: a copy of the agreement (it lies beside the base's weights on the "
        "hub), the file `NOTICE` of this folder, and what was changed."
    ),
    "apache": "Apache-2.0, as its base. The pictures that it was trained with have their own.",
    "none": "The base has random weights: this {thing} is for tests, and of no use to others.",
    "of the base": "That of the base, whose own card says which.",
}


def write_card(
    *,
    name: str,
    weights: str,
    repository: str | None,
    config: LoraConfig,
    layers: Sequence[str],
    trained_with: str,
    metrics: Mapping[str, Sequence[float]],
    merged: bool,
) -> str:
    """The text of README.md: metadata in YAML, and the card.

    `name` and `weights` are the base's, `repository` is where the hub has them; `layers` are the
    names of the adapted layers. `metrics` are shares (0…1) before and after, and perhaps the
    interval of their difference. An empty `trained_with` and empty `metrics` are shown as "Not
    given", anything else as the text it is.
    """
    licence = licence_of(name, weights)
    metadata = ModelCardData(
        base_model=repository,
        base_model_relation="adapter" if repository else None,
        library_name="peft",
        pipeline_tag="zero-shot-image-classification",
        license=LICENCES[licence],
        tags=["clip", "lora", "open_clip", *(["mobileclip"] if "MobileCLIP" in name else [])],
    )
    card = ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        name=name,
        weights=weights,
        repository=repository,
        config=config,
        layers=layers,
        towers=Counter(tower_of(layer) for layer in layers),
        trained_with=as_paragraphs(trained_with),
        metrics=[(as_cell(name), shares[:2], shares[2:]) for name, shares in metrics.items()],
        intervals=any(len(shares) > 2 for shares in metrics.values()),
        merged=merged,
        is_nano=name == NANO,
        licence=LICENCE_TEXTS[licence].format(thing="adapter"),
    )
    return f"{card}\n"


def licence_of(name: str, weights: str) -> str:
    """The licence of these weights, one of LICENCES."""
    if is_apples(name, weights):
        return "apple"
    if name == NANO:
        return "apache"
    return "none" if weights == RANDOM else "of the base"


def adapter_notice(name: str, weights: str) -> str:
    """`apple_notice` for an adapter of these weights."""
    return apple_notice(
        f"LoRA adapters were trained for {name} (weights {weights}). The files in this folder are "
        f"those adapters; where there is a merged model, the adapters were added to Apple's "
        f"weights."
    )


def apple_notice(changed: str) -> str:
    """The notice that Apple's licence asks for beside a derivative, and what was changed."""
    return (
        "Apple Machine Learning Research Model is licensed under the Apple Machine Learning "
        f"Research Model License Agreement.\n\nWhat was changed: {changed}\n"
    )
