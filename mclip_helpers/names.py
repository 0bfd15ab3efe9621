"""The names of parameters and modules: what PEFT adds to them, and what can be read from them.

No other module takes such a name apart.
"""

from __future__ import annotations

import re
from functools import cache

# What comes before the part of a name that tells blocks apart: a tower says it already.
TOWERS = ("visual.trunk.", "text.transformer.", "text.")
# Lists of blocks; ResNets have layer1 … layer4.
BLOCKS = re.compile(r"blocks|resblocks|layer\d+")
# Beside both towers: CoCa's decoder writes captions, and has no part in a contrastive loss.
NO_TOWER = ("", "logit_scale", "logit_bias", "text_decoder")


@cache
def clean_name(name: str) -> str:
    """The name of a module or parameter in the model without PEFT.

    "base_model.model.visual.head.fc.lora_A.default.weight" → "visual.head.fc.lora_A"
    """
    name = re.sub(r"^base_model(\.model(\.|$)|$)", "", name)
    name = re.sub(r"(?<![^.])(lora_[AB])\.default(\.weight)?(?![^.])", r"\1", name)
    return re.sub(r"(^|\.)base_layer(?![^.])", "", name).removeprefix(".")


def short_name(name: str) -> str:
    """`clean_name` without the tower, which a colour or a heading says already."""
    name = clean_name(name)
    for tower in TOWERS:
        name = name.removeprefix(tower)
    return name


@cache
def tower_of(name: str) -> str | None:
    """The tower that a parameter or module belongs to: "image", "text", or None for neither."""
    name = clean_name(name)
    if name == "visual" or name.startswith("visual."):
        return "image"
    return None if name.partition(".")[0] in NO_TOWER else "text"


def block_of(name: str) -> str:
    """The block that a layer belongs to, as short as can be: "stages.3.blocks.0", "head"."""
    path = short_name(name).split(".")
    for i, part in enumerate(path[:-1]):
        if BLOCKS.fullmatch(part):
            return ".".join(path[: i + 2])
    return ".".join(path[:3]) if path[0] == "stages" else path[0]


def is_adapter(name: str) -> bool:
    """Whether a module or parameter is part of a LoRA adapter."""
    return ".lora_" in f".{name}"


@cache
def layer_and_part(name: str) -> tuple[str, str]:
    """The layer that holds a parameter, and which part of it the parameter is.

    The part is "A" or "B" in an adapter, elsewhere the parameter's own name ("weight").
    """
    layer, _, last = clean_name(name).rpartition(".")
    return layer, last.removeprefix("lora_") if last in ("lora_A", "lora_B") else last


def lies_in(name: str, module: str) -> bool:
    """Whether `name` is `module` or lies in it; `module` may leave out the start of its name."""
    return f".{clean_name(module)}." in f".{clean_name(name)}."
