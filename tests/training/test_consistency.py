"""What can't be true of a checkpoint is found, also where somebody fitted its hash to it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from short_runs import adapted, everything, run, same_bits, stored

import mclip_helpers as mh
from mclip_helpers.training import checkpoint as checkpoint_module
from mclip_helpers.training.checkpoint import HASH_KEY, METADATA_KEY


@pytest.fixture(scope="module")
def written(emoji: mh.PictureDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoint"
    run(adapted(), emoji, epochs=1, checkpoint=path)
    return path


def forged(written: Path, place: Path, change: Callable) -> Path:
    """`written` with `change`, and with the hash that fits."""
    tensors, notes = stored(written)
    change(tensors, notes)
    text = json.dumps(notes)
    metadata = {METADATA_KEY: text, HASH_KEY: checkpoint_module._hash(text, tensors)}
    save_file(tensors, place, metadata=metadata)
    return place


def test_a_forgery_that_changes_nothing_is_taken(written: Path, emoji, tmp_path: Path):
    path = forged(written, tmp_path / "checkpoint", lambda tensors, notes: None)
    assert len(run(adapted(), emoji, epochs=1, checkpoint=path).steps) == 3


NAME = "optimizer/0/exp_avg"
CHANGES = {
    f"{NAME} has NaN": lambda t, n: t[NAME].fill_(math.nan),
    f"{NAME} is missing": lambda t, n: t.pop(NAME),
    f"{NAME} has the shape": lambda t, n: t.update({NAME: torch.zeros(2)}),
    "thesis belongs to nothing": lambda t, n: t.update(thesis=torch.zeros(2)),
    "averages are missing": lambda t, n: (
        n["optimizer"].update(state=[]),
        [t.pop(name) for name in list(t) if name.startswith("optimizer/")],
    ),
    "averages are incomplete": lambda t, n: (
        n["optimizer"]["state"][0][1].remove("exp_avg"),
        t.pop(NAME),
    ),
    "optimizer's settings are others": lambda t, n: n["optimizer"]["param_groups"][0].update(
        weight_decay=7.0
    ),
    "random states are none": lambda t, n: t.update({"random/torch": t["random/torch"] * 0}),
    "2 epochs of 1": lambda t, n: n["history"]["epochs"].append({"epoch": 2, "loss": 1.0}),
    "0 epochs of 1": lambda t, n: n["history"].update(epochs=[]),
    "not numbered": lambda t, n: n["history"]["epochs"][0].update(epoch=-1),
    "not finite": lambda t, n: n["history"]["steps"][0].update(loss=math.nan),
    "not one of 2 steps": lambda t, n: n["history"]["steps"].pop(),
    "not one of 3 steps": lambda t, n: n["scheduler"].update(last_epoch=10**6),
    "learning rate is not": lambda t, n: n["scheduler"].update(_last_lr=[1.0]),
    "gradient scaler": lambda t, n: n["scaler"].update(scale=math.nan),
    "can't be read": lambda t, n: n.pop("scheduler"),
}


@pytest.mark.parametrize("words", CHANGES)
def test_what_can_not_be_is_named_before_anything_changes(
    written: Path, emoji: mh.PictureDataset, tmp_path: Path, words: str
):
    path = forged(written, tmp_path / "checkpoint", CHANGES[words])
    clip = adapted()
    before, content = everything(clip), path.read_bytes()
    with pytest.raises(ValueError, match="can't be a checkpoint of this run") as error:
        run(clip, emoji, epochs=1, checkpoint=path)
    assert words in str(error.value)
    same_bits(everything(clip), before)
    assert path.read_bytes() == content
