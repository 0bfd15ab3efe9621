"""LoRA on a MobileCLIP, with PEFT's ordinary adapters underneath.

What is done here and not by PEFT: attention is rewritten as Linear layers that are really called
(`attention.py`), targets are checked by their full names, and batch norm is kept still. What
becomes of a trained adapter is in `adapters.py`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from ..names import clean_name, tower_of
from .attention import fuse_attention, split_attention

TARGET_SETS = ("default", "image", "text", "all")


# --------------------------------------------------------------------------------------- targets


def why_not(module: nn.Module) -> str | None:
    """Why `module` can't carry a mergeable LoRA adapter; None if it can."""
    if isinstance(module, nn.Linear):
        return None
    if isinstance(module, nn.Conv2d):
        if module.groups == 1:
            return None
        kind = "depthwise" if module.groups == module.in_channels else "grouped"
        return (
            f"a {kind} convolution: PEFT wants the rank to be a multiple of its {module.groups} "
            f"groups, and can't merge it"
        )
    if next(module.children(), None) is not None:
        inside = [name for name, _ in module.named_children()]
        return f"a container ({type(module).__name__}) of {', '.join(inside[:4])}"
    return f"a {type(module).__name__}, not a Linear or Conv2d"


def lora_targets(model: nn.Module, targets: str | Sequence[str] = "default") -> list[str]:
    """The full names of the layers that `targets` stands for.

    - "default": the attention of both towers, and the image tower's last layer (its `head`);
    - "image", "text", "all": every Linear and every 1×1 convolution of that tower, or of both;
    - a regular expression for whole names, or a list of whole names.

    Call it after `split_attention`, or the text tower's attention can't be found. Raises
    ValueError if nothing matches, or if something matches that can't carry an adapter.
    """
    modules = dict(model.named_modules())
    fit = [name for name, module in modules.items() if why_not(module) is None]
    if isinstance(targets, str) and targets in TARGET_SETS:
        chosen = [name for name in fit if _in_set(name, modules[name], targets)]
        if not chosen:
            raise ValueError(f"the target set {targets!r} is empty in this {type(model).__name__}")
        return chosen
    if isinstance(targets, str):
        try:
            pattern = re.compile(targets)
        except re.error as error:
            raise ValueError(f"{targets!r} is not a regular expression: {error}") from error
        matched = [name for name in modules if name and pattern.fullmatch(name)]
    else:
        matched = [name for name in targets if name in modules]
        unknown = [name for name in targets if name not in modules]
        if unknown:
            raise ValueError(f"no layer is called {unknown[0]!r}. {_near(unknown[0], fit)}")
    if not matched:
        raise ValueError(
            f"no layer's whole name matches {targets!r} (nor is it one of {TARGET_SETS}). "
            f"{_near(str(targets), fit)}"
        )
    bad = [(name, why_not(modules[name])) for name in matched if why_not(modules[name])]
    if bad:
        name, reason = bad[0]
        more = f" (and {len(bad) - 1} more like it)" if len(bad) > 1 else ""
        raise ValueError(f"{name} is {reason}{more}. {_near(name, fit)}")
    return matched


def _in_set(name: str, layer: nn.Module, targets: str) -> bool:
    is_1x1 = not isinstance(layer, nn.Conv2d) or layer.kernel_size == (1, 1)
    if targets != "default":
        return is_1x1 and targets in ("all", tower_of(name))
    parent = name.rpartition(".")[0]
    in_attention = parent.rpartition(".")[2] in ("attn", "token_mixer")
    return isinstance(layer, nn.Linear) and (
        in_attention or name.endswith(("head.fc", "trunk.head"))
    )


def _near(name: str, fit: Sequence[str]) -> str:
    """A sentence with some names that would work, those in or beside `name` first."""
    plain = name.replace("\\", "").replace(".*", "").strip("^$()")
    near = [n for n in fit if n.startswith(plain)]
    near = near or [n for n in fit if plain.rpartition(".")[2] in n] or list(fit)
    shown = ", ".join(near[:6]) + (", …" if len(near) > 6 else "")
    return f"These would work: {shown}"


# ------------------------------------------------------------------------------------ batch norm


class _Frozen:
    """Mixed into a batch norm's class: it stays in `eval`, whatever `.train()` says."""

    def train(self, mode: bool = True):
        return super().train(False)


@functools.cache
def _frozen_class(kind: type) -> type:
    return type(f"Frozen{kind.__name__}", (_Frozen, kind), {})


def freeze_batch_norm(model: nn.Module) -> int:
    """Keep every batch norm's running statistics as they are, also under `.train()`; in place.

    Without this, training moves them though every parameter is frozen, and the adapter file does
    not hold them. Changes no parameter's or buffer's name. Returns how many it froze.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [m for m in norms if not isinstance(m, _Frozen)]
    for norm in norms:
        norm.__class__ = _frozen_class(type(norm))
        norm.eval()
    return len(norms)


def unfreeze_batch_norm(model: nn.Module) -> int:
    """Undo `freeze_batch_norm`, in place. Returns how many it set free."""
    norms = [m for m in model.modules() if isinstance(m, _Frozen)]
    for norm in norms:
        norm.__class__ = type(norm).__mro__[2]
        norm.train(model.training)
    return len(norms)


# ---------------------------------------------------------------------------------------- inject


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
    A refused call leaves the model as it was. Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation
    of Large Language Models".
    """
    if any(isinstance(m, LoraLayer) for m in model.modules()):
        raise ValueError("this model has LoRA adapters already; load a fresh one, or merge them")
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
    # A regular expression of whole names. PEFT would take those in a list for the ends of names:
    # `transformer.…` (the text tower of ViT-B-32) also for `visual.transformer.…`.
    whole = "|".join(re.escape(name) for name in names)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=whole, bias="none"
    )
    peft = get_peft_model(model, config)
    wrapped = {name for name, m in model.named_modules() if isinstance(m, LoraLayer)}
    if wrapped != set(names):
        raise RuntimeError(f"PEFT put adapters on other layers than asked: {wrapped ^ set(names)}")
    return peft


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """`(name, layer)` of every layer with an adapter; names as in the model without PEFT."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield clean_name(name), module
