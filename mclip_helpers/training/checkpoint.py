"""A run in one file, from which it goes on as if it had never stopped.

The file is in safetensors format: tensors as tensors, all else as JSON in the metadata. Nothing in
it is unpickled, so loading it runs no code.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .fingerprint import differences
from .history import History
from .state import TrainingState, trainable_parameters

FORMAT = 2  # to be raised when the layout of the file changes; the first one held no number
METADATA_KEY = "notes"

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """The file of one run; `fingerprint` tells it from other runs (see `run_fingerprint`)."""

    path: Path
    fingerprint: Mapping[str, Any]

    def save(self, state: TrainingState) -> None:
        """Write `state` and the random state, as a whole; if that fails, the old file stays."""
        notes = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "history": asdict(state.history),
            "optimizer": _optimizer_notes(state.optimizer),
            "scheduler": state.scheduler.state_dict(),
            "scaler": state.scaler.state_dict(),
            "python's random state": random.getstate(),
        }
        tensors = {
            **_model_tensors(state.model),
            **_optimizer_tensors(state.optimizer),
            **_random_tensors(),
        }
        _write(self.path, notes, tensors)

    def resume(self, state: TrainingState) -> None:
        """Put back what `save` wrote; without a file, leave everything as it is.

        ValueError, before anything is changed, if the file is not a checkpoint or is of a run with
        another fingerprint; the message names what differs.
        """
        if not self.path.exists():
            return
        notes, tensors = _read(self.path)
        differing = differences(notes["fingerprint"], self.fingerprint)
        if differing:
            raise ValueError(
                f"{self.path} is of another run: {'; '.join(differing)}. "
                f"Take another checkpoint file, or delete this one."
            )
        with torch.no_grad():
            for name, tensor in _model_tensors(state.model).items():
                tensor.copy_(tensors[name])
        state.optimizer.load_state_dict(_optimizer_state(notes["optimizer"], tensors))
        state.scheduler.load_state_dict(notes["scheduler"])
        if state.scaler.is_enabled() and notes["scaler"]:  # {} if it was saved in other precision
            state.scaler.load_state_dict(notes["scaler"])
        state.history = History(**notes["history"])
        _restore_random_state(notes["python's random state"], tensors)


# ---------------------------------------------------------------------------- the parts of a file


def _model_tensors(model: nn.Module) -> Tensors:
    """What training can change: the trained parameters, and the buffers (batch norm's)."""
    parameters = {f"parameter/{name}": p for name, p in trainable_parameters(model).items()}
    return {**parameters, **{f"buffer/{name}": buffer for name, buffer in model.named_buffers()}}


def _optimizer_tensor_name(index: int, key: str) -> str:
    return f"optimizer/{index}/{key}"


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """What the optimizer keeps for each parameter; parameters are numbered as in `state_dict`."""
    return {
        _optimizer_tensor_name(index, key): value
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def _optimizer_notes(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """`state_dict` with the names of the tensors in the place of the tensors."""
    state = optimizer.state_dict()
    keys = [[index, list(values)] for index, values in state["state"].items()]
    return {"param_groups": state["param_groups"], "state": keys}


def _optimizer_state(notes: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
    """The `state_dict` that `_optimizer_notes` and `_optimizer_tensors` were made from."""
    state = {
        index: {key: tensors[_optimizer_tensor_name(index, key)] for key in keys}
        for index, keys in notes["state"]
    }
    return {"param_groups": notes["param_groups"], "state": state}


def _random_tensors() -> Tensors:
    tensors = {"random/torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    return tensors


def _restore_random_state(python: list[Any], tensors: Tensors) -> None:
    version, numbers, gauss = python
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(tensors["random/torch"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])


# --------------------------------------------------------------------------------------- the file


def _write(path: Path, notes: dict[str, Any], tensors: Tensors) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(notes)})
    with open(temporary, "r+b") as file:
        os.fsync(file.fileno())  # on the disk before it takes the place of the last one
    temporary.replace(path)


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {})[METADATA_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a checkpoint of train() ({error!r})") from error
    written = notes.get("format", 1)
    if written != FORMAT:
        raise ValueError(
            f"{path} is a checkpoint in format {written}, and this version of the package reads "
            f"format {FORMAT}. Take another checkpoint file, or delete this one."
        )
    return notes, tensors
