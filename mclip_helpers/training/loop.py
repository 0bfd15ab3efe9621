"""The training loop of notebook 05 as a function, with checkpoints and a stop at the first NaN."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..data import PictureDataset, set_epoch
from ..evaluation import evaluate
from ..loss import NotFiniteError, clamp_logit_scale, contrastive_loss
from ..model import Clip, ClipModel, OutOfMemory
from .checkpoint import Checkpoint
from .fingerprint import run_fingerprint
from .first_step import require_reached
from .history import History
from .schedule import WARMUP
from .setup import Settings, set_up
from .state import TrainingState, trainable_parameters


class TrainingDiverged(RuntimeError):
    """The loss or its gradient is no longer finite. That step was not taken."""


def train(
    clip: Clip,
    dataset: PictureDataset,
    *,
    epochs: int = 5,
    batch_size: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    warmup: float = WARMUP,
    seed: int = 0,
    augment: Callable[[Image.Image], Image.Image] | None = None,
    train_logit_scale: bool = False,
    evaluate_on: Mapping[str, PictureDataset] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> History:
    """Train every parameter of `clip.model` that requires a gradient (after `inject_lora`: A, B).

    AdamW, with `warmup_cosine` over all steps. After each epoch, R@1 from picture to text is
    recorded for each dataset of `evaluate_on`. With `train_logit_scale` the temperature is trained
    too, and the multiplier stays at most 100. `clip.compute` decides device, precision and workers;
    in fp16, the gradient scaler skips a step whose scaled gradients overflow.

    `checkpoint` is a file that is replaced after each epoch. If it exists, the run goes on from
    there and ends bit for bit where an uninterrupted run would; it keeps the random states of
    PyTorch and Python, not NumPy's. ValueError if it is of a run with other settings, pictures,
    captions, adapters or base. (`augment` and `evaluate_on` can't be compared.)

    Raises TrainingDiverged at the first loss or gradient that is not finite, OutOfMemory, with
    advice, where a step does not fit into memory, and DeadAdapterError, a ValueError, at the first
    step of a call if an adapter can't learn from this loss. That step is not taken.
    """
    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        warmup=warmup,
        seed=seed,
        train_logit_scale=train_logit_scale,
    )
    batches, state = set_up(clip, dataset, settings, augment)
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(Path(checkpoint), run_fingerprint(clip.model, dataset, settings))
        saved.resume(state)

    history = state.history
    for epoch in range(len(history.epochs), epochs):
        set_epoch(batches, epoch)
        clip.model.train()
        bar = _progress_bar(batches, batch_size, f"epoch {epoch + 1}/{epochs}", progress)
        with bar, _clean_exit(state):
            for images, tokens in bar:
                with clip.compute.memory_advice(batch_size):
                    loss = train_step(clip, state, images, tokens)
                history.steps.append({"loss": loss, "lr": state.lr})
                state.scheduler.step()
                bar.set_postfix_str(f"loss {loss:.3f}")
        mean = sum(step["loss"] for step in history.steps[-len(batches) :]) / len(batches)
        watched = (evaluate_on or {}).items()
        recall = {name: evaluate(clip, held_out).image_to_text[1] for name, held_out in watched}
        history.epochs.append({"epoch": epoch + 1, "loss": mean, **recall})
        if saved is not None:
            saved.save(state)
    return history


def train_step(
    clip: Clip, state: TrainingState, images: torch.Tensor, tokens: torch.Tensor
) -> float:
    """One step of the optimizer on one batch; returns the loss.

    NotFiniteError, before any parameter changes, if the loss or a gradient is not finite.
    """
    model, optimizer, scaler = state.model, state.optimizer, state.scaler
    optimizer.zero_grad()
    loss = _loss(clip, model, images, tokens)
    scaler.scale(loss).backward()
    if scaler.is_enabled():
        scaler.unscale_(optimizer)
        if scaler.get_scale() < 1:
            raise NotFiniteError("the gradient overflows in fp16 even unscaled")
    else:
        _check_gradients(model)
    if not state.reached:
        require_reached(model, lambda: scaler.scale(_loss(clip, model, images, tokens)))
        state.reached = True
    scaler.step(optimizer)
    scaler.update()
    if model.logit_scale.requires_grad:
        clamp_logit_scale(model.logit_scale)
    return loss.item()


def _loss(clip: Clip, model: ClipModel, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    with clip.compute.autocast():
        image_features = model.encode_image(images.to(clip.device))
        text_features = model.encode_text(tokens.to(clip.device))
    scale = model.logit_scale.exp()
    return contrastive_loss(image_features.float(), text_features.float(), scale)


def _progress_bar(batches: DataLoader, batch_size: int, title: str, shown: bool) -> tqdm:
    return tqdm(
        batches,
        desc=title,
        unit=" pairs",
        unit_scale=batch_size,
        file=sys.stdout,
        disable=not shown,
    )


def _check_gradients(model: nn.Module) -> None:
    gradients = {
        name: p.grad for name, p in trainable_parameters(model).items() if p.grad is not None
    }
    if not torch.nn.utils.get_total_norm(gradients.values()).isfinite():
        bad = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
        shown = bad[0] if bad else "all together (each is finite, their norm overflows)"
        raise NotFiniteError(f"the gradient is not finite in {len(bad)} parameters, first: {shown}")


@contextmanager
def _clean_exit(state: TrainingState) -> Iterator[None]:
    """However the block ends, the model is in eval mode after it; errors say what to do."""
    steps_before = len(state.history.steps)
    try:
        yield
    except NotFiniteError as error:
        step = len(state.history.steps) - steps_before + 1
        raise TrainingDiverged(
            f"stopped at step {step} of epoch {len(state.history.epochs) + 1}, learning rate "
            f"{state.lr:.2e}: {error}. This step was not taken, and the "
            f"checkpoint, if there is one, is of the last whole epoch. Try a third of the learning "
            f"rate or a longer warm-up, and look for broken pictures."
        ) from error
    except OutOfMemory:
        state.optimizer.zero_grad()  # gradients would take up memory that the next try needs
        raise
    finally:
        state.model.eval()
