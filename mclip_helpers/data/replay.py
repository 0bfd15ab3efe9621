"""Replay: pictures that the model knows, among those that it is to learn."""

from __future__ import annotations

import torch

from ..checks import finite_number, seed_number
from .pairs import PictureDataset, require_dataset


def with_replay(
    new: PictureDataset, known: PictureDataset, share: float = 0.5, seed: int = 0
) -> PictureDataset:
    """`new`, and pairs drawn from `known` that are `share` of the whole.

    Training on the new pictures alone, a model forgets what they don't show; replay reminds it.
    `seed` decides which pairs are drawn; none is drawn twice. ValueError if `known` has too few, or
    `share` is not from 0 to below 1; TypeError for anything but datasets. Source: Robins 1995,
    "Catastrophic forgetting, rehearsal and pseudorehearsal".
    """
    require_dataset(new, "new")
    require_dataset(known, "known", least=0)
    share = finite_number("share", share, least=0, below=1)
    count = round(len(new) * share / (1 - share))
    if count > len(known):
        most = len(known) / (len(known) + len(new))
        raise ValueError(
            f"share is {share:g}: beside {len(new)} new pairs that takes {count} known ones, and "
            f"there are {len(known)}; take a share of {most:.2f} or less, or more known pictures"
        )
    generator = torch.Generator().manual_seed(seed_number(seed))
    drawn = torch.randperm(len(known), generator=generator)[:count]
    return new + known.subset(drawn.sort().values.tolist())
