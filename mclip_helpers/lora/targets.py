"""Targets: the layers of a model that carry an adapter, by their full names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from ..names import tower_of

TARGET_SETS = ("default", "image", "text", "all")
# The attention of both towers, and the last layer of the image tower.
DEFAULT_NAMES = re.compile(r"(.*\.)?(attn|token_mixer)\.[^.]+|.*head\.fc|.*trunk\.head")


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
    children = [name for name, _ in module.named_children()]
    if children:
        return f"a container ({type(module).__name__}) of {', '.join(children[:4])}"
    return f"a {type(module).__name__}, not a Linear or Conv2d"


def lora_targets(model: nn.Module, targets: str | Sequence[str] = "default") -> list[str]:
    """The full names of the layers that `targets` stands for.

    - "default": the attention of both towers, and the image tower's last layer (its `head`);
    - "image", "text", "all": every Linear and every 1×1 convolution of that tower, or of both;
    - a regular expression for whole names, or a list of whole names.

    Call it after `split_attention`: before, the text tower's attention has no layers to name.
    Raises ValueError if nothing matches, or if a match can't carry an adapter.
    """
    modules = dict(model.named_modules())
    if isinstance(targets, str) and targets in TARGET_SETS:
        chosen = [n for n, m in modules.items() if why_not(m) is None and _in_set(n, m, targets)]
        if not chosen:
            raise ValueError(f"the target set {targets!r} is empty in this {type(model).__name__}")
        return chosen
    matched = _match(modules, targets)
    refused = {name: reason for name in matched if (reason := why_not(modules[name]))}
    if refused:
        name, reason = next(iter(refused.items()))
        more = f" (and {len(refused) - 1} more like it)" if len(refused) > 1 else ""
        raise ValueError(f"{name} is {reason}{more}. {_suggest(name, modules)}")
    return matched


def _in_set(name: str, layer: nn.Module, targets: str) -> bool:
    if targets == "default":
        return isinstance(layer, nn.Linear) and DEFAULT_NAMES.fullmatch(name) is not None
    pointwise = isinstance(layer, nn.Linear) or layer.kernel_size == (1, 1)
    return pointwise and targets in ("all", tower_of(name))


def _match(modules: Mapping[str, nn.Module], targets: str | Sequence[str]) -> list[str]:
    """The names that `targets`, a pattern or a list, gives. At least one, or ValueError."""
    if isinstance(targets, str):
        try:
            pattern = re.compile(targets)
        except re.error as error:
            raise ValueError(f"{targets!r} is not a regular expression: {error}") from error
        matched = [name for name in modules if name and pattern.fullmatch(name)]
    else:
        matched = list(targets)
        for name in matched:
            if name not in modules:
                raise ValueError(f"no layer is called {name!r}. {_suggest(name, modules)}")
    if not matched:
        raise ValueError(
            f"no layer's whole name matches {targets!r} (nor is it one of {TARGET_SETS}). "
            f"{_suggest(str(targets), modules)}"
        )
    return matched


def _suggest(name: str, modules: Mapping[str, nn.Module]) -> str:
    """A sentence with some names that would work, those in or beside `name` first."""
    fit = [n for n, module in modules.items() if why_not(module) is None]
    plain = name.replace("\\", "").replace(".*", "").strip("^$()")
    near = [n for n in fit if n.startswith(plain)]
    near = near or [n for n in fit if plain.rpartition(".")[2] in n] or fit
    shown = ", ".join(near[:6]) + (", …" if len(near) > 6 else "")
    return f"These would work: {shown}"
