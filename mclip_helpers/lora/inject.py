"""Fresh adapters on a model.

PEFT adds the adapters. What it does not do is done here first: attention is rewritten as Linear
layers that are called, targets are checked by their full names, and batch norm is frozen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from ..names import clean_name
from .attention import fuse_attention, split_attention
from .batch_norm import freeze_batch_norm
from .targets import lora_targets


def inject_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: str | Sequence[str] = "default",
) -> PeftModel:
    """Put a fresh LoRA adapter on each target of `model`, in place, and freeze all else.

    Each target computes W x + (alpha / rank) · B A x, where A is (rank, in) and random, and B is
    (out, rank) and zero: at first the adapter changes nothing. `targets`: see `lora_targets`.
    Raises ValueError for arguments that can't work, and leaves the model as it was. Source: Hu et
    al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
    """
    require_no_adapters(model)
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank is {rank}; it must be a whole number, at least 1")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")
    rewritten = split_attention(model)
    try:
        names = lora_targets(model, targets)
    except Exception:
        if rewritten:
            fuse_attention(model)
        raise
    freeze_batch_norm(model)
    # A regular expression of whole names: PEFT matches those in a list by how a name ends, and
    # `transformer.…` (the text tower of ViT-B-32) would mean `visual.transformer.…`, too.
    whole_names = "|".join(re.escape(name) for name in names)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a float serves as well as an int
        lora_dropout=dropout,
        target_modules=whole_names,
        bias="none",
    )
    peft = get_peft_model(model, config)
    adapted = {name for name, _ in lora_layers(model)}
    if adapted != set(names):
        raise RuntimeError(f"PEFT put adapters on other layers than asked: {adapted ^ set(names)}")
    return peft


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """`(name, layer)` of every layer with an adapter; names as in the model without PEFT."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield clean_name(name), module


def require_no_adapters(model: nn.Module) -> None:
    """Raise ValueError if `model` has adapters: PEFT would put new ones beside or over them."""
    if any(lora_layers(model)):
        raise ValueError("this model has LoRA adapters already; load a fresh one, or merge them")
