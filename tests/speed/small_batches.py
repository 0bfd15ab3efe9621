"""A small batch for any model, the same each time."""

from __future__ import annotations

import torch

import mclip_helpers as mh

THINGS = ["cat", "dog", "car", "tree", "house", "apple", "moon", "hand"]


def small_batch(clip: mh.Clip) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight random pictures, in the precision of the model, and the tokens of eight captions."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(8, 3, *clip.image_size, generator=generator)
    return pictures.to(clip.model.logit_scale.dtype), clip.tokenizer([f"a {t}" for t in THINGS])
