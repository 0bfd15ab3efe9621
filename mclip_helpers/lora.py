"""LoRA on a MobileCLIP, with PEFT's ordinary adapters underneath.

What is done here and not by PEFT: attention is rewritten as Linear layers that are really called
(`attention.py`), targets are checked by their full names, batch norm is kept still, and an adapter
knows which base it was made for.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from torch import nn

from .attention import PROJECTIONS, SplitAttention, fuse_attention, split_attention

TARGET_SETS = ("default", "image", "text", "all")
BASE_FILE = "base_model.json"


# --------------------------------------------------------------------------------------- targets


def tower_of(name: str) -> str | None:
    """ "image" or "text": the tower that a parameter or module belongs to; None for neither."""
    name = name.removeprefix("base_model.model.")
    if name == "visual" or name.startswith("visual."):
        return "image"
    return None if name in ("", "logit_scale", "logit_bias") else "text"


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
            yield name.removeprefix("base_model.model."), module


# ---------------------------------------------------------------------------- the base underneath


def base_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict that open_clip would give for the base: no adapters, attention fused."""
    state = {}
    for name, value in model.state_dict().items():
        if ".lora_" not in name:
            name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            state[name] = value
    for name, module in model.named_modules():
        if isinstance(module, SplitAttention):
            name = name.removeprefix("base_model.model.")
            for kind in ("weight", "bias"):
                parts = [state.pop(f"{name}.{p}.{kind}", None) for p in PROJECTIONS]
                if parts[0] is not None:
                    state[f"{name}.in_proj_{kind}"] = torch.cat(parts)
    return state


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The numbers of `tensor` as they lie in memory, row by row."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def fingerprint(model: nn.Module) -> str:
    """A hash of all the base's numbers but `logit_scale`, which may be trained with an adapter."""
    digest = hashlib.sha256()
    for name, value in sorted(base_state_dict(model).items()):
        if name != "logit_scale" and not name.endswith("num_batches_tracked"):
            digest.update(name.encode())
            digest.update(tensor_bytes(value))
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------------------ save, load, merge


def save_adapter(peft: PeftModel, path: str | Path) -> Path:
    """Write the adapter to the folder `path`: whole, or not at all.

    Beside PEFT's `adapter_config.json` and `adapter_model.safetensors` lie `base_model.json` (the
    base's name and fingerprint, the value of `logit_scale`, a checksum) and a model card. Returns
    the folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        fresh = Path(temporary) / "adapter"
        # No embedding is trained; left to itself, PEFT would ask the hub for the base's config.
        peft.save_pretrained(fresh, save_embedding_layers=False)
        base = {
            "name": getattr(peft.get_base_model(), "name_or_path", "unnamed"),
            "fingerprint": fingerprint(peft),
            "logit_scale": peft.get_base_model().logit_scale.item(),
            "adapter_sha256": _sha256(fresh / SAFETENSORS_WEIGHTS_NAME),
        }
        (fresh / BASE_FILE).write_text(json.dumps(base, indent=2) + "\n")
        (fresh / "README.md").write_text(_card(base["name"], peft), encoding="utf-8")
        old = Path(temporary) / "old"
        if path.exists():
            path.rename(old)
        try:
            fresh.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _card(base: str, peft: PeftModel) -> str:
    """The model card: what it is and how to load it. (PEFT's own is a form to fill in.)"""
    name, _, weights = base.partition("/")
    config = peft.peft_config["default"]
    return f"""---
library_name: peft
base_model: {base}
tags: [lora, mobileclip]
---

# LoRA adapter for {name} (weights: {weights})

Rank {config.r}, alpha {config.lora_alpha}, on {sum(1 for _ in lora_layers(peft))} layers. It fits
this base alone, and `load_adapter` checks that it is this one:

    import mclip_helpers as mh

    clip = mh.load_model("{name}", pretrained="{weights}")
    peft = mh.load_adapter(clip.model, "the folder of this file")

The licence of the base holds for the adapter, too.
"""


def load_adapter(model: nn.Module, path: str | Path, *, trainable: bool = False) -> PeftModel:
    """Put the adapter saved in `path` on `model`, in place; its outputs are those of before.

    Raises FileNotFoundError if the folder is not a saved adapter, and ValueError, before anything
    is changed, if it is damaged or was made for another base: both names are given.
    """
    path = Path(path)
    files = (BASE_FILE, CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME)
    missing = [file for file in files if not (path / file).is_file()]
    if missing:
        raise FileNotFoundError(f"{path} is not an adapter saved by save_adapter: no {missing[0]}")
    if any(isinstance(m, LoraLayer) for m in model.modules()):
        raise ValueError("this model has LoRA adapters already; load a fresh one, or merge them")
    base = json.loads((path / BASE_FILE).read_text())
    # PEFT would only warn of a missing tensor, and leave that adapter at its random start.
    if base.get("adapter_sha256") != _sha256(path / SAFETENSORS_WEIGHTS_NAME):
        raise ValueError(
            f"{path / SAFETENSORS_WEIGHTS_NAME} is damaged, or not the file that {BASE_FILE} "
            f"beside it belongs to; save the adapter again"
        )
    name = getattr(model, "name_or_path", "unnamed")
    if base["name"] != name:
        raise ValueError(f"the adapter in {path} was made for {base['name']!r}, not for {name!r}")
    here = fingerprint(model)
    if base["fingerprint"] != here:
        raise ValueError(
            f"the adapter in {path} was made for {base['name']!r} with other weights (fingerprint "
            f"{base['fingerprint']}) than this {name!r} has ({here})"
        )
    split_attention(model)
    freeze_batch_norm(model)
    peft = PeftModel.from_pretrained(model, path, is_trainable=trainable)
    with torch.no_grad():
        model.logit_scale.fill_(base["logit_scale"])
    return peft.eval()


def merge_adapter(peft: PeftModel) -> nn.Module:
    """Add every (alpha / rank) · B A to its W, and give back a plain open_clip model.

    Works in place: `peft` is used up. The result's state dict loads into a fresh open_clip model
    with `strict=True`. It equals the adapted model up to rounding.
    """
    model = peft.merge_and_unload(safe_merge=True)
    fuse_attention(model)
    unfreeze_batch_norm(model)
    return model.eval()
