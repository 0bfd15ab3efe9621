"""The ways to adapt a model to new pictures: what each of them trains, and what it leaves alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..data import PictureDataset, loader
from ..lora import TARGET_SETS, batch_norms, freeze_batch_norm, inject_lora, regions
from ..model import Clip
from ..progress_bar import progress_bar

RANK, ALPHA = 8, 16


@dataclass(frozen=True)
class Way:
    """One way to adapt a model.

    `says` is what it trains, in words. `prepare(clip)` makes a fresh clip ready for `train`: what
    is to be trained requires a gradient. It is None for the way that trains nothing. `method` is
    what a recipe calls it: its learning rates are `recipe(clip).rates[method]`.
    """

    says: str
    prepare: Callable[[Clip], object] | None
    method: str = ""


def adapt_batch_norm(
    clip: Clip,
    dataset: PictureDataset,
    batch_size: int,
    *,
    seed: int = 0,
    classes: bool = False,
    shown: bool = True,
) -> None:
    """Let the image tower's batch norm see all pictures once, in shuffled batches; no gradient.

    Its running mean and variance move towards the batches' own, by the layers' momentum (0.1).
    Nothing else changes. `classes` as in `train`. ValueError if the image tower has no batch norm.
    Source: Li et al. 2016, "Revisiting Batch Normalization for Practical Domain Adaptation"
    (AdaBN).
    """
    norms = batch_norms(clip.model.get_submodule("visual"))
    if not norms:
        raise ValueError("this model's image tower has no batch norm")
    batches = loader(
        dataset,
        clip,
        batch_size,
        shuffle=True,
        seed=seed,
        workers=clip.compute.workers,
        classes=classes,
    )
    clip.model.eval()
    for norm in norms:
        norm.train()
    with torch.no_grad():
        for images, _ in progress_bar(batches, "batch norm", "batches", shown=shown):
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


def lora(targets: str, says: str, rank: int = RANK, alpha: float = ALPHA) -> Way:
    """Adapters on the layers that `targets` names: a target set, or a region of the image tower."""

    def prepare(clip: Clip) -> object:
        names = targets if targets in TARGET_SETS else regions(clip.model)[targets]
        return inject_lora(clip.model, rank, alpha, targets=names)

    return Way(says, prepare, "LoRA")


def _full_held(clip: Clip) -> None:
    freeze_batch_norm(clip.model)
    clip.model.requires_grad_(True)


def _full(clip: Clip) -> None:
    clip.model.requires_grad_(True)


WAYS = {
    "batch norm": Way("nothing: batch norm's statistics see the new pictures once", None),
    "heads": Way("the last layer of each tower", _heads, "heads"),
    "LoRA": lora("image", f"adapters of rank {RANK} on every layer of the image tower"),
    "LoRA, first layers": lora(
        "first", f"adapters of rank {RANK} on the first half of the image tower"
    ),
    "full, batch norm held": Way(
        "every parameter; batch norm's statistics stay", _full_held, "full"
    ),
    "full": Way("every parameter, and batch norm's statistics move", _full, "full"),
}


def possible_ways(model: nn.Module) -> list[str]:
    """Those of WAYS that are not the same in this model: without batch norm, two of them are."""
    if batch_norms(model.get_submodule("visual")):
        return list(WAYS)
    return [way for way in WAYS if way not in ("batch norm", "full, batch norm held")]
