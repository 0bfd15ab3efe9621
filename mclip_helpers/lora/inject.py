"""Fresh adapters on a model.

PEFT adds the adapters. What it does not do is done here first: attention is rewritten as Linear
layers that are called, targets are checked by their full names, and batch norm is frozen.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ..checks import finite_number, whole_number
from ..model.clip import require_model
from ..names import clean_name
from .attention import fuse_attention, split_attention
from .batch_norm import freeze_batch_norm
from .targets import choose_targets, require_each_tower, say_first
from .undo import whole_or_not_at_all


def inject_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: str | Sequence[str] = "default",
    *,
    name: str = "default",
) -> PeftModel:
    """Put a fresh LoRA adapter on each target of `model`, in place, and freeze all else.

    Each target computes W x + (alpha / rank) · B A x, where A is (rank, in) and random, and B is
    (out, rank) and zero: at first the adapter changes nothing. `targets`: see `lora_targets`. The
    rank is at most the smaller dimension of the largest target: there B A is any matrix already.

    `name` is the adapter's own, where one model is to carry several (`load_adapter`).

    Attention stays split only where an adapter sits on it; the rest of the model computes what it
    did, bit for bit. Batch norm is frozen. Stochastic depth, where a model has it
    (MobileCLIP2-L-14, ConvNeXt), stays as it was trained: under `.train()` it skips a block for
    some pictures, so that an adapter may get no gradient from them.

    Raises ValueError for arguments that can't work, TypeError if `model` is no CLIP of open_clip.
    After any error, Ctrl-C included, `model` is what it was. Warns if a target set has to leave
    layers out. Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
    """
    require_model(model)
    require_no_adapters(model)
    rank = whole_number("rank", rank, least=1)
    alpha = finite_number("alpha", alpha, above=0)
    dropout = finite_number("dropout", dropout, least=0, below=1)
    name = adapter_name(name)
    with whole_or_not_at_all(model):
        split_attention(model)
        names, left_out = choose_targets(model, targets)
        require_each_tower(names, targets)
        fuse_attention(model, keep=names)
        whole_number("rank", rank, least=1, most=max(_smaller_side(model, n) for n in names))
        freeze_batch_norm(model)
        lora_model = get_peft_model(
            model, lora_config(names, rank, alpha, dropout), adapter_name=name
        )
        adapted = {layer for layer, _ in lora_layers(model)}
        if adapted != set(names):
            wrong = adapted ^ set(names)
            raise RuntimeError(f"PEFT put adapters on other layers than asked: {wrong}")
    if left_out:
        warnings.warn(
            f"{len(left_out)} layers of the target set {targets!r} carry no adapter: "
            f"{say_first(left_out)}",
            stacklevel=2,
        )
    return lora_model


def adapter_name(name: object) -> str:
    """`name`, if it can be an adapter's; else TypeError or ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"name is a {type(name).__name__}; it must be a text, such as 'thermal'")
    # It becomes a part of parameters' names, in which dots and "lora_" have a meaning.
    if re.fullmatch(r"[\w-]+", name, re.ASCII) is None or "lora_" in name:
        raise ValueError(
            f"name is {name!r:.60}; an adapter's name has letters, digits, - and _, and no 'lora_'"
        )
    return name


def lora_config(names: Sequence[str], rank: int, alpha: float, dropout: float) -> LoraConfig:
    """PEFT's settings for adapters on the layers `names`."""
    return LoraConfig(
        r=rank,
        # A float serves as well as an int; where it is a whole number, it is noted as one.
        lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        # A regular expression of whole names: PEFT matches those in a list by how a name ends, and
        # `transformer.…` (the text tower of ViT-B-32) would mean `visual.transformer.…`, too.
        target_modules="|".join(re.escape(name) for name in names),
        bias="none",
    )


def _smaller_side(model: nn.Module, name: str) -> int:
    """The highest rank that a change of this layer's weights can have."""
    return min(model.get_parameter(f"{name}.weight").flatten(1).shape)


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """`(name, layer)` of every layer with an adapter; names as in the model without PEFT."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield clean_name(name), module


def require_no_adapters(model: nn.Module) -> None:
    """Raise ValueError if `model` has adapters: PEFT would put new ones beside or over them."""
    if isinstance(model, PeftModel) or any(isinstance(m, BaseTunerLayer) for m in model.modules()):
        raise ValueError(
            "this model has LoRA adapters already; load a fresh one, or what merge_adapter returns"
        )
