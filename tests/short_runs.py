"""Short runs of `train` that several test files share, and what is compared of them."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import fresh
from PIL import Image
from safetensors import safe_open

import mclip_helpers as mh
from mclip_helpers.training.checkpoint import METADATA_KEY

State = dict[str, torch.Tensor]


def trainable(clip: mh.Clip) -> State:
    return {n: p.detach().clone() for n, p in clip.model.named_parameters() if p.requires_grad}


def everything(clip: mh.Clip) -> State:
    tensors = [*clip.model.named_parameters(), *clip.model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in tensors}


def same_bits(state: State, before: State) -> None:
    assert list(state) == list(before)
    different = [name for name in state if not torch.equal(state[name], before[name])]
    assert different == []


def tilt(picture: Image.Image) -> Image.Image:
    """An augmentation that draws from both of the random states that a checkpoint keeps."""
    degrees = random.uniform(-20, 20)
    size = int(torch.randint(56, 73, ()))
    return picture.rotate(degrees, fillcolor="white").resize((size, size))


def adapted(**lora) -> mh.Clip:
    """`nano` with adapters that are the same in every process."""
    clip = fresh("nano")
    torch.manual_seed(1)
    mh.inject_lora(clip.model, **{"rank": 4, "dropout": 0.2} | lora)
    return clip


def run(clip: mh.Clip, dataset: mh.PictureDataset, **options) -> mh.History:
    """A short run: 3 steps an epoch on 24 pairs."""
    return mh.train(
        clip,
        dataset,
        **{"epochs": 2, "batch_size": 8, "augment": tilt, "progress": False} | options,
    )


def stored(checkpoint: Path) -> tuple[State, dict]:
    """The tensors and the notes of a checkpoint."""
    with safe_open(checkpoint, framework="pt") as file:
        notes = json.loads(file.metadata()[METADATA_KEY])
        return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118


class Stop(Exception):
    """Raised where a run is to break off."""


def stop_after(pictures: int) -> Callable[[Image.Image], Image.Image]:
    count = itertools.count(1)

    def augment(picture: Image.Image) -> Image.Image:
        if next(count) > pictures:
            raise Stop
        return tilt(picture)

    return augment


def broken_off(path: Path, dataset: mh.PictureDataset) -> Path:
    """`path`, with the checkpoint of a run of 3 epochs that broke off in its second."""
    with pytest.raises(Stop):
        run(adapted(), dataset, epochs=3, augment=stop_after(30), checkpoint=path)
    return path
