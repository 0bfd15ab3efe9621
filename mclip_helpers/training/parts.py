"""The parts of a checkpoint: the state of a run as tensors and notes, and back."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import nn

from .state import trainable_parameters

Tensors = dict[str, torch.Tensor]
TORCH, CUDA = "random/torch", "random/cuda"


def model_tensors(model: nn.Module) -> Tensors:
    """What training can change: the trained parameters, and the buffers (batch norm's)."""
    parameters = {f"parameter/{name}": p for name, p in trainable_parameters(model).items()}
    return {**parameters, **{f"buffer/{name}": buffer for name, buffer in model.named_buffers()}}


def optimizer_tensor_name(index: int, key: str) -> str:
    return f"optimizer/{index}/{key}"


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """What the optimizer keeps for each parameter; parameters are numbered as in `state_dict`."""
    return {
        optimizer_tensor_name(index, key): value
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def optimizer_notes(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """`state_dict` with the names of the tensors in the place of the tensors."""
    state = optimizer.state_dict()
    keys = [[index, list(values)] for index, values in state["state"].items()]
    return {"param_groups": state["param_groups"], "state": keys}


def optimizer_state(notes: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
    """The `state_dict` that `optimizer_notes` and `optimizer_tensors` were made from."""
    state = {
        index: {key: tensors[optimizer_tensor_name(index, key)] for key in keys}
        for index, keys in notes["state"]
    }
    return {"param_groups": notes["param_groups"], "state": state}


def random_tensors() -> Tensors:
    tensors = {TORCH: torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors[CUDA] = torch.cuda.get_rng_state()
    return tensors


def restore_random_state(python: list[Any], tensors: Tensors) -> None:
    version, numbers, gauss = python
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(tensors[TORCH])
    if CUDA in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[CUDA])
