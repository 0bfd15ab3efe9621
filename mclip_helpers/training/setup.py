"""What stands before the loop: checks, batches, the optimizer and its schedule, seeds.

Nothing here changes the model, apart from the flag of `logit_scale`, and nothing draws a number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from ..checks import finite_number, seed_number, true_or_false, whole_number
from ..data import (
    EPOCHS_PER_SEED,
    PictureDataset,
    loader,
    require_dataset,
    set_epoch,
)
from ..lora.batch_norm import BATCH_NORM
from ..model import Clip
from ..speed import (
    CaptionTable,
    PrefixCache,
    is_constant,
    is_distributed,
    moves,
    plain_encoders,
    share,
)
from .history import RUN_COLUMNS
from .objective import Objective
from .schedule import warmup_cosine
from .state import TrainingState, trainable_parameters

ChangeBatch: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """The numbers that `train` is called with; its docstring says what they mean.

    ValueError for one that can't work.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup: float
    seed: int
    train_logit_scale: bool
    classes: bool
    fast: bool = True
    chunk: int | None = None
    prefix: str | None = None

    def __post_init__(self) -> None:
        checked = {
            "epochs": whole_number("epochs", self.epochs, least=1, most=EPOCHS_PER_SEED),
            "batch_size": whole_number("batch_size", self.batch_size),
            "lr": finite_number("lr", self.lr, above=0),
            "weight_decay": finite_number("weight_decay", self.weight_decay, least=0),
            "warmup": finite_number("warmup", self.warmup, least=0, most=1),
            "seed": seed_number(self.seed),
        }
        for name, value in checked.items():  # plain numbers, which JSON can hold
            object.__setattr__(self, name, value)
        if self.chunk is not None:
            object.__setattr__(self, "chunk", whole_number("chunk", self.chunk, least=1))
        for name in ("train_logit_scale", "classes", "fast"):
            true_or_false(name, getattr(self, name))


def require_evaluable(evaluate_on: object) -> None:
    """Raise TypeError or ValueError unless it maps names to datasets, or is None."""
    if evaluate_on is None:
        return
    if not isinstance(evaluate_on, Mapping):
        raise TypeError(
            f"evaluate_on is a {type(evaluate_on).__name__}; it must be a dict of datasets by "
            f"their names, such as {{'val': parts['val']}}"
        )
    if not evaluate_on:
        raise ValueError("evaluate_on is empty; leave it out, or give {'val': parts['val']}")
    for name, dataset in evaluate_on.items():
        if not isinstance(name, str) or not name.strip() or name in RUN_COLUMNS:
            raise ValueError(
                f"evaluate_on has a dataset called {name!r}; its name must be a text that stands "
                f"for it in the record of each epoch, beside {' and '.join(RUN_COLUMNS)}"
            )
        require_dataset(dataset, f"evaluate_on[{name!r}]")


def require_multiplier(log_scale: torch.Tensor) -> None:
    """Raise ValueError if the model's temperature is broken; `log_scale` is `model.logit_scale`."""
    multiplier = log_scale.detach().exp()
    if not (multiplier.isfinite() & (multiplier > 0)).all():
        raise ValueError(
            f"model.logit_scale is {log_scale.detach().flatten().tolist()[0]:g}, the logarithm of "
            f"the multiplier, and with that no loss can be computed: load the weights again, or "
            f"fill it with math.log(1 / 0.07), where CLIP starts"
        )


def require_change(augment_batches: object, prefix: PrefixCache | None) -> None:
    """TypeError unless it is a function or None; ValueError beside a prefix: no pixels come."""
    if augment_batches is None:
        return
    if not callable(augment_batches):
        raise TypeError(
            f"augment_batches is a {type(augment_batches).__name__}; it must be a function from "
            f"images (N, 3, H, W) to changed images, such as Jitter().batch, or None"
        )
    if prefix is not None:
        raise ValueError(
            "augment_batches changes images, and with prefix none are loaded; give augment to "
            "cache_prefix instead"
        )


def require_still_batch_norm(model: nn.Module, why: str) -> None:
    """Raise ValueError if a batch norm would see only a part of each batch, because of `why`."""
    moving = [n for n, m in model.named_modules() if isinstance(m, BATCH_NORM) and moves(m)]
    if moving:
        raise ValueError(
            f"{len(moving)} batch norms would be computed from a part of each batch ({why}), which "
            f"is another training than that of the whole batch; the first is {moving[0]}. Call "
            f"freeze_batch_norm(model) before, as inject_lora does"
        )


def set_up(
    clip: Clip,
    dataset: PictureDataset,
    settings: Settings,
    augment: Callable[[Image.Image], Image.Image] | None,
    augment_batches: ChangeBatch | None,
    prefix: PrefixCache | None,
) -> tuple[DataLoader, TrainingState, Objective]:
    """The shuffled batches, the state before the first step, and what a step minimises.

    `logit_scale` asks for a gradient from now on if `settings` say so, and otherwise does not.
    """
    if prefix is not None:
        prefix.require_for(clip, dataset)
    require_change(augment_batches, prefix)
    batches = loader(
        dataset,
        clip,
        settings.batch_size,
        shuffle=True,
        seed=settings.seed,
        augment=augment,
        workers=clip.compute.workers,
        classes=settings.classes,
        images=prefix,
        share=share(),
    )
    require_multiplier(clip.model.logit_scale)
    if settings.chunk is not None:
        require_still_batch_norm(clip.model, f"chunk={settings.chunk}")
    if is_distributed():
        require_still_batch_norm(clip.model, f"{share()[1]} processes")
    clip.model.logit_scale.requires_grad_(settings.train_logit_scale)
    objective = _objective(clip, dataset, settings, augment_batches, prefix)
    steps = _count_steps(batches, settings.epochs)
    optimizer = torch.optim.AdamW(
        trainable_parameters(clip.model).values(),
        lr=settings.lr,
        weight_decay=settings.weight_decay,
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
    return batches, state, objective


def _objective(
    clip: Clip,
    dataset: PictureDataset,
    settings: Settings,
    augment_batches: ChangeBatch | None,
    prefix: PrefixCache | None,
) -> Objective:
    """The loss, with the encoders that the settings ask for."""
    encoders = plain_encoders(clip)
    if augment_batches is not None:
        encode = encoders.image

        def changed(images: torch.Tensor) -> torch.Tensor:
            return encode(augment_batches(images.to(clip.device)))

        encoders = replace(encoders, image=changed)
    if settings.fast and is_constant(clip.model, "text"):
        encoders = replace(encoders, text=CaptionTable(clip, dataset.all_captions))
    if prefix is not None:
        encoders = replace(encoders, image=prefix.encode)
    return Objective(clip, encoders, settings.classes, settings.chunk)


def draw_from(seed: int) -> None:
    """Seed what an epoch draws from beside its batches: dropout, and augmentations."""
    torch.manual_seed(seed)
    random.seed(seed)


def draw_apart(seed: int, epoch: int) -> None:
    """The same for an epoch of one of several processes: each draws numbers of its own.

    They depend on the seed, the epoch and the process alone, so that a run can go on without the
    random states of all of them.
    """
    if is_distributed():
        draw_from(random.Random(f"{seed} {epoch} {share()[0]}").getrandbits(32))


def _count_steps(batches: DataLoader, epochs: int) -> int:
    """The steps of all epochs. Each is counted: duplicates can make one epoch shorter."""
    steps = 0
    for epoch in range(epochs):
        set_epoch(batches, epoch)
        steps += len(batches)
    return steps
