"""Recorded steps that several test files ask questions of: of a CLIP, and of less than that."""

from __future__ import annotations

import functools

import torch
from conftest import fresh
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import Graph

IMAGE_B = "stages.3.blocks.0.token_mixer.qkv.lora_B"  # in nano and in MobileCLIP2-S0


def clip_loss(clip: mh.Clip) -> torch.Tensor:
    """The contrastive loss of two random pictures and two captions, the same each time."""
    torch.manual_seed(0)
    size = clip.model.visual.image_size
    pictures = torch.rand(2, 3, *(size if isinstance(size, tuple) else (size, size)))
    image = clip.model.encode_image(pictures)
    text = clip.model.encode_text(clip.tokenizer(["a cat", "a dog"]))
    return mh.contrastive_loss(image, text, clip.model.logit_scale.exp())


@functools.cache
def step_of(name: str, lora: bool = True) -> Graph:
    """A step of a CLIP, with fresh adapters or with all its parameters; recorded once."""
    torch.manual_seed(0)
    clip = fresh(name)
    model = mh.inject_lora(clip.model) if lora else clip.model
    with mh.trace(model) as tape:
        clip_loss(clip).backward()
    return tape.graph


def algebra() -> Graph:
    """One line of algebra, and no module."""
    w, b = torch.randn(4, 2, requires_grad=True), torch.zeros(2, requires_grad=True)
    with mh.trace({"w": w, "b": b}) as tape:
        ((torch.randn(3, 4) @ w + b).relu() ** 2).mean().backward()
    return tape.graph


def sequential() -> Graph:
    """A model of no towers."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with mh.trace(model) as tape:
        model(torch.randn(3, 4)).square().mean().backward()
    return tape.graph


def nameless() -> Graph:
    """One operation on a tensor that has no name."""
    x = torch.randn(3, requires_grad=True)
    with mh.trace({"other": torch.zeros(1)}) as tape:
        (x * 2).sum().backward()
    return tape.graph
