"""What can't be true of a checkpoint whose hash is right: what does not fit the run, or itself."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from .parts import CUDA, TORCH, Tensors, model_tensors, optimizer_tensor_name, random_tensors
from .state import TrainingState, trainable_parameters

ADAMW = {"step", "exp_avg", "exp_avg_sq"}  # what it keeps for each parameter


def what_is_wrong(notes: Mapping[str, Any], tensors: Tensors, state: TrainingState) -> str | None:
    """The first thing that can't be, in a few words. `state` is that of the run before a step."""
    checks = (_of_tensors, _of_optimizer, _of_history, _of_schedule, _of_random_states)
    try:
        return next((wrong for check in checks for wrong in check(notes, tensors, state)), None)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        return f"its notes can't be read ({error!r})"


def not_finite(tensors: Tensors) -> str | None:
    """The name of a tensor with NaN or infinity in it, where neither may be.

    Buffers may hold infinity: an attention mask does.
    """
    for name, tensor in tensors.items():
        fine = ~tensor.isnan() if name.startswith("buffer/") else tensor.isfinite()
        if not fine.all():
            return name
    return None


def _of_tensors(notes: Mapping, tensors: Tensors, state: TrainingState) -> Iterator[str]:
    wanted = {**model_tensors(state.model), **_kept_by_optimizer(notes, state)}
    wanted[TORCH] = random_tensors()[TORCH]
    missing, more = wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys() - {CUDA}
    if missing or more:
        yield f"{min(missing) + ' is missing' if missing else min(more) + ' belongs to nothing'}"
    for name, tensor in wanted.items():
        found = tensors[name]
        if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            yield (
                f"{name} has the shape {tuple(found.shape)} ({found.dtype}) and not "
                f"{tuple(tensor.shape)} ({tensor.dtype})"
            )
    broken = not_finite(tensors)
    if broken:
        yield f"{broken} has NaN or infinite values"


def _kept_by_optimizer(notes: Mapping, state: TrainingState) -> Tensors:
    """Tensors of the names and shapes that the optimizer's should have."""
    parameters = list(trainable_parameters(state.model).values())
    return {
        optimizer_tensor_name(index, key): torch.zeros(()) if key == "step" else parameters[index]
        for index, keys in notes["optimizer"]["state"]
        for key in keys
    }


def _of_optimizer(notes: Mapping, tensors: Tensors, state: TrainingState) -> Iterator[str]:
    saved = notes["optimizer"]
    if any(set(keys) != ADAMW for _, keys in saved["state"]):
        yield "the optimizer's averages are incomplete"
    if not saved["state"] and not notes["scaler"]:  # in fp16, each step may have been skipped
        yield "the optimizer's averages are missing"
    moving = {"lr"}
    fresh = json.loads(json.dumps(state.optimizer.state_dict()["param_groups"]))
    if not _equal_but(moving, saved["param_groups"], fresh):
        yield "the optimizer's settings are others"


def _of_history(notes: Mapping, tensors: Tensors, state: TrainingState) -> Iterator[str]:
    steps, epochs = notes["history"]["steps"], notes["history"]["epochs"]
    asked = notes["fingerprint"]["epochs"]
    if [record["epoch"] for record in epochs] != list(range(1, len(epochs) + 1)):
        yield "its epochs are not numbered from 1 on"
    if not 1 <= len(epochs) <= min(asked, len(steps)):
        yield f"it has {len(epochs)} epochs of {asked}, and {len(steps)} steps"
    if not all(math.isfinite(value) for record in steps + epochs for value in record.values()):
        yield "its history has a number that is not finite"
    if not all(set(record) == {"loss", "lr"} for record in steps):
        yield "its history has a step without loss or learning rate"


def _of_schedule(notes: Mapping, tensors: Tensors, state: TrainingState) -> Iterator[str]:
    steps = len(notes["history"]["steps"])
    saved, fresh = notes["scheduler"], json.loads(json.dumps(state.scheduler.state_dict()))
    moving = {"last_epoch", "_step_count", "_last_lr"}
    if not _equal_but(moving, [saved], [fresh]) or saved["last_epoch"] != steps:
        yield f"its schedule is not one of {steps} steps"
    now = saved["_last_lr"] == [group["lr"] for group in notes["optimizer"]["param_groups"]]
    if not now or not all(math.isfinite(lr) for lr in saved["_last_lr"]):
        yield "its learning rate is not that of its schedule"
    scale = notes["scaler"].get("scale", 1.0)
    if not (math.isfinite(scale) and scale > 0):
        yield f"the gradient scaler's factor is {scale}"


def _of_random_states(notes: Mapping, tensors: Tensors, state: TrainingState) -> Iterator[str]:
    version, numbers, gauss = notes["python's random state"]
    try:
        random.Random().setstate((version, tuple(numbers), gauss))
        torch.Generator().set_state(tensors[TORCH])
    except (TypeError, ValueError, RuntimeError, OverflowError):
        yield "its random states are none"
    here = random_tensors()
    if CUDA in here and CUDA in tensors and here[CUDA].shape != tensors[CUDA].shape:
        yield "its random state of the GPU is none"


def _equal_but(moving: set[str], saved: list[dict], fresh: list[dict]) -> bool:
    """Whether both have the same keys and, except for those that move, the same values."""
    return len(saved) == len(fresh) and all(
        one.keys() == other.keys()
        and all(one[key] == other[key] for key in one if key not in moving)
        for one, other in zip(saved, fresh, strict=True)
    )
