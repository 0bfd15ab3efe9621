"""The weights underneath adapters: the base's own, the merged ones, and the base's fingerprint.

All under the names that open_clip gives them, with attention fused and convolutions unfolded.
"""

from __future__ import annotations

import hashlib

import torch
from peft import PeftModel
from torch import nn

from ..model.weights import StateDict
from ..names import clean_name, is_adapter
from .attention import PROJECTIONS, SplitAttention
from .fold import folded_modules, unfolded_state
from .inject import lora_layers

# The numbers that turn cosines into logits. They may be trained with an adapter, and travel with it
# in `base_model.json`; SigLIP has the second.
SCALARS = ("logit_scale", "logit_bias")


def base_state_dict(model: nn.Module) -> StateDict:
    """The state dict that open_clip would give for the base: no adapters, nothing rewritten."""
    return _as_open_clip(model, _without_adapters(model))


def merged_state_dict(lora_model: PeftModel) -> StateDict:
    """`base_state_dict` with (alpha / rank) · B A added to each W; `lora_model` stays as it is."""
    state = _without_adapters(lora_model)
    state |= {f"{name}.weight": weight for name, weight in merged_weights(lora_model).items()}
    return _as_open_clip(lora_model, state)


@torch.no_grad()
def merged_weights(lora_model: nn.Module) -> StateDict:
    """W + (alpha / rank) · B A of each layer with an adapter, by the layer's name."""
    weights = {}
    for name, layer in lora_layers(lora_model):
        weights[name] = layer.get_base_layer().get_parameter("weight").detach()
        on = [adapter for adapter in layer.active_adapters if adapter in layer.lora_A]
        for adapter in on:  # one that is on somewhere else is not on this layer
            # Each kind of LoraLayer has this method, but not the class itself.
            delta = layer.get_delta_weight(adapter)  # type: ignore[attr-defined]
            weights[name] = weights[name] + delta
    return weights


def _without_adapters(model: nn.Module) -> StateDict:
    state = model.state_dict()
    return {clean_name(name): value for name, value in state.items() if not is_adapter(name)}


def _as_open_clip(model: nn.Module, state: StateDict) -> StateDict:
    """`state` with what was folded unfolded, and the projections of attention in one tensor."""
    for name, module in folded_modules(model):
        prefix = f"{clean_name(name)}."
        inside = {k.removeprefix(prefix): state.pop(k) for k in list(state) if k.startswith(prefix)}
        state |= {f"{prefix}{k}": v for k, v in unfolded_state(module, inside).items()}
    for name, module in model.named_modules():
        if isinstance(module, SplitAttention):
            name = clean_name(name)
            for kind in ("weight", "bias"):
                parts = [f"{name}.{projection}.{kind}" for projection in PROJECTIONS]
                if parts[0] in state:
                    state[f"{name}.in_proj_{kind}"] = torch.cat([state.pop(p) for p in parts])
    return state


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of `tensor`'s numbers, in row-major order."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def scalars(model: nn.Module) -> dict[str, float]:
    """The values of those of SCALARS that `model` has."""
    found = {name: getattr(model, name, None) for name in SCALARS}
    return {name: value.item() for name, value in found.items() if value is not None}


def fingerprint(model: nn.Module) -> str:
    """A hash of the base's numbers except SCALARS, which may be trained with an adapter."""
    digest = hashlib.sha256()
    for name, value in sorted(base_state_dict(model).items()):
        if name not in SCALARS and not name.endswith("num_batches_tracked"):
            digest.update(name.encode())
            digest.update(tensor_bytes(value))
    return digest.hexdigest()[:16]
