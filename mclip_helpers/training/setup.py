"""What stands before the loop: seeds, batches, the optimizer and its schedule."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch.utils.data import DataLoader

from ..data import PictureDataset, loader, set_epoch
from ..model import Clip
from .schedule import warmup_cosine
from .state import TrainingState, trainable_parameters


@dataclass(frozen=True)
class Settings:
    """The numbers that `train` is called with; its docstring says what they mean."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup: float
    seed: int
    train_logit_scale: bool


def set_up(
    clip: Clip,
    dataset: PictureDataset,
    settings: Settings,
    augment: Callable[[Image.Image], Image.Image] | None,
) -> tuple[DataLoader, TrainingState]:
    """The shuffled batches and the state before the first step; torch and Python are seeded."""
    clip.model.logit_scale.requires_grad_(settings.train_logit_scale)
    parameters = trainable_parameters(clip.model)
    torch.manual_seed(settings.seed)
    random.seed(settings.seed)
    batches = loader(
        dataset,
        clip,
        settings.batch_size,
        shuffle=True,
        seed=settings.seed,
        augment=augment,
        workers=clip.compute.workers,
    )
    steps = _count_steps(batches, settings.epochs)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, steps, settings.warmup)
    )
    state = TrainingState(
        model=clip.model,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=clip.compute.scaler(),
    )
    return batches, state


def _count_steps(batches: DataLoader, epochs: int) -> int:
    """The steps of all epochs. Each is counted: duplicates can make one epoch shorter."""
    steps = 0
    for epoch in range(epochs):
        set_epoch(batches, epoch)
        steps += len(batches)
    return steps
