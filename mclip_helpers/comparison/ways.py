"""The ways to adapt a model to new pictures: what each of them trains, and what it leaves alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..data import PictureDataset, loader
from ..lora import freeze_batch_norm, inject_lora, lora_targets
from ..model import Clip
from ..progress import progress

RANK, ALPHA = 8, 16
# How image towers number their blocks: visual.trunk.stages.1.…, visual.transformer.resblocks.7.…
BLOCK = re.compile(r"\.(?:stages|blocks|resblocks|layers|layer)\.(\d+)\.")


@dataclass(frozen=True)
class Way:
    """One way to adapt a model.

    `says` is what it trains, in words. `prepare(clip)` makes a fresh clip ready for `train`: what
    is to be trained requires a gradient. It is None for the way that trains nothing.
    """

    says: str
    prepare: Callable[[Clip], object] | None


def first_layers(model: nn.Module) -> list[str]:
    """The "image" targets in the first half of the image tower's blocks, and before them.

    In a MobileCLIP of four stages: stem and stages 0 and 1. ValueError if the blocks of the tower
    have no numbers in their names.
    """
    names = lora_targets(model, "image")
    number = {name: int(found[1]) for name in names if (found := BLOCK.search(name))}
    if not number:
        raise ValueError(
            "the blocks of this model's image tower have no numbers in their names; choose its "
            "first layers yourself, from lora_targets(model, 'image')"
        )
    half = (max(number.values()) + 1) / 2
    last = max(names.index(name) for name in number)  # what has no number comes before, or after
    return [
        name
        for place, name in enumerate(names)
        if (number[name] < half if name in number else place < last)
    ]


def adapt_batch_norm(
    clip: Clip, dataset: PictureDataset, batch_size: int, *, seed: int = 0, shown: bool = True
) -> None:
    """Let the image tower's batch norm see all pictures once, in shuffled batches; no gradient.

    Its running mean and variance move towards the batches' own, by the layers' momentum (0.1).
    Nothing else changes. ValueError if the image tower has no batch norm. Source: Li et al. 2016,
    "Revisiting Batch Normalization for Practical Domain Adaptation" (AdaBN).
    """
    kinds = nn.modules.batchnorm._BatchNorm
    norms = [layer for layer in clip.model.visual.modules() if isinstance(layer, kinds)]
    if not norms:
        raise ValueError("this model's image tower has no batch norm")
    batches = loader(
        dataset, clip, batch_size, shuffle=True, seed=seed, workers=clip.compute.workers
    )
    clip.model.eval()
    for norm in norms:
        norm.train()
    with torch.no_grad():
        for images, _ in progress(batches, "batch norm", "batches", shown=shown):
            clip.model.encode_image(images.to(clip.device))
    clip.model.eval()


def _heads(clip: Clip) -> None:
    """The last layer of each tower, found by its name in open_clip's models."""
    freeze_batch_norm(clip.model)
    heads = re.compile(r"(^|\.)head\.|(^|\.)text_projection|^visual\.proj$")
    for name, parameter in clip.model.named_parameters():
        parameter.requires_grad_(bool(heads.search(name)))
    if not any(parameter.requires_grad for parameter in clip.model.parameters()):
        raise ValueError(f"the last layers of a {type(clip.model).__name__} are not known here")


def _lora(clip: Clip) -> None:
    inject_lora(clip.model, RANK, ALPHA, targets="image")


def _lora_first_layers(clip: Clip) -> None:
    inject_lora(clip.model, RANK, ALPHA, targets=first_layers(clip.model))


def _full_held(clip: Clip) -> None:
    freeze_batch_norm(clip.model)
    clip.model.requires_grad_(True)


def _full(clip: Clip) -> None:
    clip.model.requires_grad_(True)


WAYS = {
    "batch norm": Way("nothing: batch norm's statistics see the new pictures once", None),
    "heads": Way("the last layer of each tower", _heads),
    "LoRA": Way(f"adapters of rank {RANK} on every layer of the image tower", _lora),
    "LoRA, first layers": Way(
        f"adapters of rank {RANK} on the first half of the image tower", _lora_first_layers
    ),
    "full, batch norm held": Way("every parameter; batch norm's statistics stay", _full_held),
    "full": Way("every parameter, and batch norm's statistics move", _full),
}
