"""What the tables about training and evaluation share: a model, small pictures, a short run."""

from __future__ import annotations

import copy
import dataclasses
import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from conftest import fresh
from PIL import Image

import mclip_helpers as mh
from mclip_helpers.data import Pair

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "pink", "brown")


def plain_picture(colour: str) -> Image.Image:
    return Image.new("RGB", (8, 8), colour)


def pairs(count: int = 8) -> list[Pair]:
    return [Pair(c, (c,), c, functools.partial(plain_picture, c)) for c in COLOURS[:count]]


def colours(count: int = 8) -> mh.PictureDataset:
    """So many pictures of one colour each, with its name."""
    return mh.PictureDataset(pairs(count))


@functools.cache
def _original() -> mh.Clip:
    clip = fresh("nano")
    torch.manual_seed(1)
    mh.inject_lora(clip.model, rank=2, targets="text")
    clip.model.logit_scale.requires_grad_(True)
    clip.model.train()
    return clip


def adapted() -> mh.Clip:
    """`nano` with adapters, in training mode, and a temperature that asks for a gradient.

    None of which is as `train` leaves it: what it changes shows. This is a copy, to be trained.
    """
    clip = _original()
    return dataclasses.replace(clip, model=copy.deepcopy(clip.model))


_lent: list[tuple[mh.Clip, list[Any]]] = []


def adapted_to_be_left_alone() -> mh.Clip:
    """The same for a call that is to change nothing: one for all, until a call breaks that."""
    if not _lent or _of_model(_lent[0][0]) != _lent[0][1]:
        clip = adapted()
        _lent[:] = [(clip, _of_model(clip))]
    return _lent[0][0]


def run(clip: Any, dataset: Any = None, **options: Any) -> mh.History:
    """A run of two epochs of two steps."""
    settings = {"epochs": 2, "batch_size": 4, "progress": False} | options
    return mh.train(clip, colours() if dataset is None else dataset, **settings)


def weights(clip: mh.Clip) -> dict[str, bytes]:
    """What a step may change: the numbers that are trained, and the buffers."""
    moving = {n: p for n, p in clip.model.named_parameters() if p.requires_grad}
    moving |= dict(clip.model.named_buffers())
    return {name: value.detach().numpy().tobytes() for name, value in moving.items()}


def everything(clip: mh.Clip) -> list[Any]:
    """All that a refused call must leave: numbers, flags, modes, gradients, random states."""
    return [*_of_model(clip), torch.get_rng_state().numpy().tobytes(), random.getstate()]


def _of_model(clip: mh.Clip) -> list[Any]:
    """PyTorch counts each change of a tensor in `_version`."""
    tensors = [*clip.model.named_parameters(), *clip.model.named_buffers()]
    return [
        [(n, t.data_ptr(), t._version, t.requires_grad, t.grad is None) for n, t in tensors],
        [(n, type(m), m.training) for n, m in clip.model.named_modules()],
    ]


@dataclasses.dataclass
class Scene:
    """A model to train, and the folder for its checkpoint."""

    clip: mh.Clip
    folder: Path


def scene(folder: Path) -> Scene:
    """To be trained."""
    return Scene(adapted(), folder)


def untouchable(folder: Path) -> Scene:
    """To be left alone."""
    return Scene(adapted_to_be_left_alone(), folder)


def untouched(scene: Scene) -> list[Any]:
    return everything(scene.clip)


def raising(error: BaseException) -> Callable[..., Any]:
    def fails(*_: Any) -> Any:
        raise error

    return fails
