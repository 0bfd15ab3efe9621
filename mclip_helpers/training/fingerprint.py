"""What makes a run this run and no other: the values that a checkpoint is compared by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from peft.tuners.lora import LoraLayer
from torch import nn

from ..data import PictureDataset
from ..lora import lora_layers, tensor_bytes
from ..model import base_name
from .setup import Settings
from .state import trainable_parameters


def run_fingerprint(
    model: nn.Module, dataset: PictureDataset, settings: Settings
) -> dict[str, Any]:
    """What must be the same for a run to go on from a checkpoint, by name; JSON can hold it.

    Tensors, pictures and captions are represented by hashes.
    """
    parameters = trainable_parameters(model)
    return {
        "model": base_name(model),
        "pairs": len(dataset),
        "pictures and captions": dataset_hash(dataset),
        "trainable tensors": len(parameters),
        "trainable parameters": sum(p.numel() for p in parameters.values()),
        "names of trainable tensors": _hash(
            f"{name} {tuple(p.shape)} {p.dtype}".encode() for name, p in parameters.items()
        ),
        "adapters": _adapter_settings(model),
        "kinds of layers": _hash(kind.encode() for kind in _kinds_of_layers(model)),
        "frozen weights": _hash(tensor_bytes(p) for p in model.parameters() if not p.requires_grad),
        **asdict(settings),
    }


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """One phrase for each value of `current` that `saved` does not have."""
    return [
        f"{name}: {saved.get(name)} in the file, {value} now"
        for name, value in current.items()
        if saved.get(name) != value
    ]


def dataset_hash(dataset: PictureDataset) -> str:
    """A hash of the pixels and captions of all pairs, in their order."""
    return _hash(f"{pair.digest} {pair.captions}".encode() for pair in dataset.pairs)


def trainable_hash(model: nn.Module) -> str:
    """A hash of the numbers that are trained, as they are now."""
    return _hash(tensor_bytes(p) for p in trainable_parameters(model).values())


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part + b"\n")
    return digest.hexdigest()[:16]


def _adapter_settings(model: nn.Module) -> list[str]:
    """The settings of adapters that their shapes don't show.

    Where they are not the same for all, the last entry is a hash of all in their order.
    """
    settings = [
        f"alpha {layer.lora_alpha[name]}, dropout {getattr(dropout, 'p', 0.0)}"
        + _unusual_scaling(layer, name)
        for _, layer in lora_layers(model)
        for name, dropout in layer.lora_dropout.items()
    ]
    order = [_hash(text.encode() for text in settings)] if len(set(settings)) > 1 else []
    return sorted(set(settings)) + order


def _unusual_scaling(layer: LoraLayer, name: str) -> str:
    """What is said of an adapter whose factor is not alpha / rank (rsLoRA), or that is off."""
    usual = layer.lora_alpha[name] / layer.r[name]
    scaling = "" if layer.scaling[name] == usual else f", scaling {layer.scaling[name]:g}"
    on = name in layer.active_adapters and not layer.disable_adapters
    return scaling + ("" if on else ", off")


def _kinds_of_layers(model: nn.Module) -> list[str]:
    """Classes and settings of all modules: frozen or moving batch norm, dropout, and the like."""
    return sorted(f"{type(m).__name__}({m.extra_repr()})" for m in model.modules())
