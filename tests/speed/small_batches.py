"""A small batch for any model, and adapters that do something; the same each time."""

from __future__ import annotations

import torch
from torch import nn

import mclip_helpers as mh

THINGS = ["cat", "dog", "car", "tree", "house", "apple", "moon", "hand"]


def small_batch(clip: mh.Clip) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight random pictures, in the precision of the model, and the tokens of eight captions."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(8, 3, *clip.image_size, generator=generator)
    return pictures.to(clip.model.logit_scale.dtype), clip.tokenizer([f"a {t}" for t in THINGS])


def with_adapters(clip: mh.Clip, targets: str = "default") -> mh.Clip:
    """`clip` with adapters as in the middle of training, neither A nor B zero, in training mode."""
    torch.manual_seed(0)
    lora_model = mh.inject_lora(clip.model, rank=2, targets=targets)
    for _, layer in mh.lora_layers(lora_model):
        nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    clip.model.train()
    return clip


def in_float64(clip: mh.Clip) -> mh.Clip:
    """`clip` with adapters everywhere and a trained temperature, for proofs."""
    with_adapters(clip, "all").model.double()
    clip.model.logit_scale.requires_grad_(True)
    return clip
