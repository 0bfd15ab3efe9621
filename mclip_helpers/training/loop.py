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

from ..data import DistinctBatches, PictureDataset, set_epoch
from ..evaluation import evaluate
from ..loss import NotFiniteError, clamp_logit_scale
from ..model import Clip, require_clip
from ..speed import CaptionTable, PrefixCache, is_distributed, is_main, require_alike
from .checkpoint import Checkpoint, file_path
from .fingerprint import run_fingerprint, trainable_hash
from .first_step import require_reached
from .history import History
from .objective import Objective
from .schedule import WARMUP
from .setup import Settings, draw_apart, draw_from, require_evaluable, set_up
from .state import LastStep, TrainingState, trainable_parameters


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
    augment_batches: Callable[[torch.Tensor], torch.Tensor] | None = None,
    train_logit_scale: bool = False,
    classes: bool = False,
    fast: bool = True,
    chunk: int | None = None,
    prefix: PrefixCache | None = None,
    evaluate_on: Mapping[str, PictureDataset] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> History:
    """Train every parameter of `clip.model` that requires a gradient (after `inject_lora`: A, B).

    AdamW, with `warmup_cosine` over all steps. After each epoch, R@1 from picture to text is
    recorded for each dataset of `evaluate_on`. With `train_logit_scale` the temperature is trained
    too, and the multiplier stays at most 100. `clip.compute` decides device, precision and workers;
    in fp16, the gradient scaler skips a step whose scaled gradients overflow. `seed` decides the
    batches, the captions drawn, dropout and augmentations; the random start of the adapters comes
    before, from `inject_lora`: call `torch.manual_seed` ahead of that.

    `augment` changes a picture where it is loaded, before the model's own transform.
    `augment_batches` changes the images (N, 3, H, W) of a batch behind it, on the model's device:
    with `Jitter().batch` and the pictures of `decode_once`, loading hardly costs anything.

    No batch holds two pairs that are equally good answers to each other (`PictureDataset`). Where
    many pictures share a caption, the name of a class, that leaves out too many: with `classes`,
    batches are of any pairs, and the loss counts every pair with the same caption as right.

    With `fast`, what changes nothing but the rounding is done in less time, and said: the captions
    of a frozen text tower are encoded once. Without, a step is that of notebook 05, bit for bit.
    `chunk` takes a batch through the towers in parts of so many pairs, with the same gradient
    (`cached_backward`): memory for the parts, and more time. `prefix`, from `cache_prefix`, has
    what the frozen first layers make of these pictures; it replaces `augment`.

    In several processes (`accelerate launch`, `torchrun`) each takes a part of every batch, and
    the step is that of the whole batch in one; the main process writes and shows.

    `checkpoint` is a file that is replaced after each epoch. If it exists, the run goes on from
    there and ends bit for bit where an uninterrupted run would (on the same kind of machine); it
    keeps the random states of PyTorch and Python, not NumPy's. ValueError if it is damaged, or of a
    run with other settings, pictures, captions, adapters or base. (`augment`, `augment_batches`,
    `evaluate_on` and the clip's transform can't be compared.)

    Arguments that can't work are refused before anything is changed: TypeError for another kind of
    object, ValueError for a value, OSError for a checkpoint that could not be written. Raises
    TrainingDiverged at the first loss or gradient that is not finite, OutOfMemory, with advice,
    where a step does not fit into memory, and DeadAdapterError, a ValueError, at the first step of
    a call if an adapter can't learn from this loss. After these, as after Ctrl-C and any other
    error, the model is as the last whole step left it, in eval mode and without gradients.
    """
    require_clip(clip)
    progress = progress and is_main()
    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        warmup=warmup,
        seed=seed,
        train_logit_scale=train_logit_scale,
        classes=classes,
        fast=fast,
        chunk=chunk,
        prefix=None if prefix is None else prefix.key,
    )
    require_evaluable(evaluate_on)
    path = None if checkpoint is None else file_path(checkpoint)
    with _flag_comes_back(clip.model.logit_scale):
        batches, state, objective = set_up(
            clip, dataset, settings, augment, augment_batches, prefix
        )
        table = objective.encoders.text
        if progress and isinstance(table, CaptionTable):
            print(
                f"the text tower is frozen: its {len(table):,} captions were encoded once, in "
                f"{table.seconds:.1f} s, and not again in each epoch"
            )
        saved, several = None, is_distributed()
        if path is not None or several:
            fingerprint = run_fingerprint(clip.model, dataset, settings)
            require_alike("the run", fingerprint)
            saved = None if path is None else Checkpoint(path, fingerprint)
        if saved is None or not saved.resume(state):
            draw_from(settings.seed)
        if several:
            require_alike("the start", trainable_hash(clip.model))

        with _whole_steps(state) as last_step:
            for epoch in range(len(state.history.epochs), settings.epochs):
                set_epoch(batches, epoch)
                draw_apart(settings.seed, epoch)
                bar = _progress_bar(batches, f"epoch {epoch + 1}/{settings.epochs}", progress)
                loss = _train_epoch(objective, state, last_step, bar)
                with _divergence(state, f"the end of epoch {epoch + 1}"):
                    recall = {
                        name: evaluate(clip, held_out, progress=progress).image_to_text[1]
                        for name, held_out in (evaluate_on or {}).items()
                    }
                    state.history.epochs.append({"epoch": epoch + 1, "loss": loss, **recall})
                    if saved is not None and is_main():
                        saved.save(state)
    return state.history


def _train_epoch(
    objective: Objective, state: TrainingState, last_step: LastStep, bar: tqdm
) -> float:
    """All steps of one epoch, whose batches `bar` gives; returns their mean loss."""
    history, clip = state.history, objective.clip
    losses: list[float] = []
    clip.model.train()
    with bar:
        for images, tokens in bar:
            where = f"step {len(losses) + 1} of epoch {len(history.epochs) + 1}"
            with _divergence(state, where), clip.compute.memory_advice(len(images)):
                loss = train_step(objective, state, images, tokens)
            last_step.keep()
            history.steps.append({"loss": loss, "lr": state.lr})
            state.scheduler.step()
            losses.append(loss)
            bar.set_postfix_str(f"loss {loss:.3f}")
    return sum(losses) / len(losses)


def train_step(
    objective: Objective, state: TrainingState, images: torch.Tensor, tokens: torch.Tensor
) -> float:
    """One step of the optimizer on one batch; returns the loss.

    NotFiniteError, before any parameter changes, if the loss or a gradient is not finite.
    """
    model, optimizer, scaler = state.model, state.optimizer, state.scaler
    optimizer.zero_grad()
    loss = objective.backward(images, tokens, scaler.scale)
    if scaler.is_enabled():
        scaler.unscale_(optimizer)
        if scaler.get_scale() < 1:
            raise NotFiniteError("the gradient overflows in fp16 even unscaled")
    else:
        _check_gradients(model)
    if not state.reached:
        part = slice(objective.chunk)
        require_reached(model, lambda: scaler.scale(objective.loss(images[part], tokens[part])))
        state.reached = True
    scaler.step(optimizer)
    scaler.update()
    if model.logit_scale.requires_grad:
        clamp_logit_scale(model.logit_scale)
    return loss.item()


def _progress_bar(batches: DataLoader, title: str, shown: bool) -> tqdm:
    """The bar of an epoch, which stays: it is the record of the run in a notebook."""
    sampler = batches.batch_sampler
    assert isinstance(sampler, DistinctBatches)
    return tqdm(
        batches,
        desc=title,
        unit=" pairs",
        unit_scale=sampler.batch_size,
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
def _flag_comes_back(parameter: nn.Parameter) -> Iterator[None]:
    """If the block fails, `parameter` requires a gradient if it did before."""
    before = parameter.requires_grad
    try:
        yield
    except BaseException:
        parameter.requires_grad_(before)
        raise


@contextmanager
def _whole_steps(state: TrainingState) -> Iterator[LastStep]:
    """However the block ends, the model is in eval mode and as the last whole step left it."""
    last_step = LastStep(state.model)
    try:
        yield last_step
    except BaseException as error:
        last_step.put_back()
        state.optimizer.zero_grad()  # gradients would take up memory that the next try needs
        error.add_note(
            f"Training stopped after {len(state.history.steps)} whole steps; the model is as the "
            f"last of them left it. With checkpoint=…, the same call goes on from the last whole "
            f"epoch."
        )
        raise
    finally:
        state.model.eval()


@contextmanager
def _divergence(state: TrainingState, where: str) -> Iterator[None]:
    """Turn a NotFiniteError of the block into TrainingDiverged, which says what to do."""
    try:
        yield
    except NotFiniteError as error:
        cure = "Try a third of the learning rate or a longer warm-up"
        if not state.history.steps:
            cure = "No step came before, so the learning rate is not the cause: load fresh weights"
        raise TrainingDiverged(
            f"stopped at {where}, learning rate {state.lr:.2e}: {error}. The model is as the last "
            f"whole step left it, and the checkpoint, if there is one, is of the last whole epoch. "
            f"{cure}, and look for broken pictures."
        ) from error
