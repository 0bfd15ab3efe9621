"""A run that was killed goes on from its file as if it had never stopped."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import fresh
from PIL import Image
from safetensors.torch import save, save_file
from short_runs import (
    Stop,
    adapted,
    broken_off,
    everything,
    run,
    same_bits,
    stop_after,
    stored,
    tilt,
    trainable,
)

import mclip_helpers as mh
from mclip_helpers.training import checkpoint as checkpoint_module
from mclip_helpers.training.checkpoint import FORMAT, METADATA_KEY, Checkpoint
from mclip_helpers.training.setup import Settings, set_up

# Two steps into the second of three epochs.
VICTIM_STOPS_AT = 24 + 12
RUN = {"epochs": 3, "train_logit_scale": True, "weight_decay": 0.01}


def epochs_in(notes: dict) -> int:
    return len(notes["history"]["epochs"])


@pytest.fixture
def interrupted(emoji: mh.PictureDataset, tmp_path: Path) -> Path:
    """The checkpoint of a run of 3 epochs that broke off in its second."""
    return broken_off(tmp_path / "runs" / "checkpoint", emoji)


def whole_run(checkpoint: Path, dataset: mh.PictureDataset, augment: Callable) -> mh.History:
    """The run that is killed, resumed, and compared: the same in every process."""
    clip = adapted()
    return run(
        clip,
        dataset,
        **RUN,
        augment=augment,
        evaluate_on={"seen": dataset.subset(range(6))},
        checkpoint=checkpoint,
    )


# What a process of its own does: `sys.argv` is where the tests lie, the checkpoint, and, for the
# one to be killed, a file to write once it is in the middle of its second epoch, waiting.
PROCESS = """
import sys, time
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/training"]
from pathlib import Path
import conftest, test_checkpoint
calls = 0
def augment(picture):
    global calls
    calls += 1
    if len(sys.argv) > 3 and calls > test_checkpoint.VICTIM_STOPS_AT:
        Path(sys.argv[3]).touch()
        time.sleep(600)
    return test_checkpoint.tilt(picture)
test_checkpoint.whole_run(Path(sys.argv[2]), conftest.emoji_pairs(), augment)
"""


def start(*arguments: Path) -> subprocess.Popen:
    here = Path(__file__).parent.parent
    return subprocess.Popen([sys.executable, "-c", PROCESS, here, *arguments])


def test_a_killed_run_that_is_resumed_ends_with_the_bits_of_one_that_was_not(
    emoji: mh.PictureDataset, tmp_path: Path
):
    killed, whole, ready = (tmp_path / name for name in ("killed", "whole", "ready"))
    victim = start(killed, ready)
    try:
        history = whole_run(whole, emoji, tilt)
        deadline = time.monotonic() + 180
        while not ready.exists():
            assert victim.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline, "it never came to its second epoch"
            time.sleep(0.1)
    finally:
        victim.kill()  # SIGKILL: no clean-up, no last words
        victim.wait()

    _, notes = stored(killed)
    assert epochs_in(notes) == 1 and len(notes["history"]["steps"]) == 3
    assert start(killed).wait(timeout=180) == 0

    (tensors, notes), (expected, expected_notes) = stored(killed), stored(whole)
    same_bits(tensors, expected)
    assert notes == expected_notes
    assert epochs_in(notes) == 3 and notes["history"]["steps"] == history.steps
    kept = {key for _, keys in notes["optimizer"]["state"] for key in keys}
    assert kept == {"exp_avg", "exp_avg_sq", "step"}
    assert any(".lora_A." in name for name in tensors)
    assert "parameter/logit_scale" in tensors and "random/torch" in tensors


def test_only_the_epochs_that_are_missing_are_run(interrupted: Path, emoji: mh.PictureDataset):
    count = itertools.count()

    def counting(picture: Image.Image) -> Image.Image:
        next(count)
        return tilt(picture)

    history = run(adapted(), emoji, epochs=3, checkpoint=interrupted, augment=counting)
    assert next(count) == 2 * 24
    assert [record["epoch"] for record in history.epochs] == [1, 2, 3]
    assert len(history.steps) == 9


def test_a_finished_run_is_given_back_without_a_step(emoji: mh.PictureDataset, tmp_path: Path):
    first, second = adapted(), adapted()
    history = run(first, emoji, checkpoint=tmp_path / "checkpoint")
    again = run(second, emoji, checkpoint=tmp_path / "checkpoint", augment=stop_after(0))
    assert again == history
    same_bits(trainable(second), trainable(first))


def test_a_checkpoint_changes_no_bit_of_the_run(emoji: mh.PictureDataset, tmp_path: Path):
    plain, saved = adapted(), adapted()
    assert run(plain, emoji) == run(saved, emoji, checkpoint=tmp_path / "checkpoint")
    same_bits(trainable(saved), trainable(plain))


def test_after_diverging_the_checkpoint_is_of_the_last_whole_epoch(
    emoji: mh.PictureDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clip, calls = adapted(), itertools.count(1)
    encode = clip.model.encode_image
    monkeypatch.setattr(
        clip.model, "encode_image", lambda x: encode(x) * (math.nan if next(calls) == 5 else 1)
    )
    with pytest.raises(mh.TrainingDiverged):
        run(clip, emoji, checkpoint=tmp_path / "checkpoint")
    tensors, notes = stored(tmp_path / "checkpoint")
    assert epochs_in(notes) == 1
    assert all(t.isfinite().all() for name, t in tensors.items() if name.startswith("parameter/"))


# ---- what is refused ----------------------------------------------------------------------------


NOT_A_CHECKPOINT = {
    "empty": b"",
    "text": b"not safetensors at all",
    "safetensors of another program": save({"a": torch.ones(2)}, metadata={"format": "pt"}),
    "safetensors without notes": save({"a": torch.ones(2)}),
    "notes that are no JSON": save({"a": torch.ones(2)}, metadata={METADATA_KEY: "{"}),
}


@pytest.mark.parametrize("content", NOT_A_CHECKPOINT.values(), ids=NOT_A_CHECKPOINT)
def test_a_file_that_is_no_checkpoint_is_refused(emoji, tmp_path: Path, content: bytes):
    path = tmp_path / "checkpoint"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint is not a checkpoint of train\(\)"):
        run(adapted(), emoji, checkpoint=path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("where", ["while writing", "before renaming"])
def test_a_failed_save_leaves_the_checkpoint_before_it(
    emoji: mh.PictureDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    path = tmp_path / "checkpoint"
    save, fsync, saves = checkpoint_module.save_file, os.fsync, itertools.count(1)

    def save_half(tensors, file, metadata):
        save(tensors, file, metadata=metadata)
        if where == "while writing" and next(saves) == 2:
            Path(file).write_bytes(Path(file).read_bytes()[:1000])
            raise OSError("no space left on device")

    def sync_once(file):
        fsync(file)
        if where == "before renaming" and next(saves) == 2:
            raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint_module, "save_file", save_half)
    monkeypatch.setattr(os, "fsync", sync_once)
    with pytest.raises(OSError, match="no space left"):
        run(adapted(), emoji, epochs=3, checkpoint=path)
    monkeypatch.undo()
    assert epochs_in(stored(path)[1]) == 1

    resumed, whole = adapted(), adapted()
    assert run(resumed, emoji, epochs=3, checkpoint=path) == run(whole, emoji, epochs=3)
    same_bits(trainable(resumed), trainable(whole))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(("written", "named"), [({}, 1), ({"format": 99}, 99)], ids=str)
def test_a_checkpoint_of_another_format_is_refused(
    interrupted: Path, emoji: mh.PictureDataset, written: dict, named: int
):
    tensors, notes = stored(interrupted)
    del notes["format"]
    save_file(tensors, interrupted, metadata={METADATA_KEY: json.dumps(notes | written)})
    with pytest.raises(ValueError, match=rf"in format {named}, and .* reads format {FORMAT}\."):
        run(adapted(), emoji, epochs=3, checkpoint=interrupted)


def test_half_a_checkpoint_is_refused(interrupted: Path, emoji: mh.PictureDataset):
    interrupted.write_bytes(interrupted.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"is not a checkpoint of train\(\)"):
        run(adapted(), emoji, epochs=3, checkpoint=interrupted)


# ---- what comes back ----------------------------------------------------------------------------


def test_full_fine_tuning_is_resumed_to_the_bit(emoji: mh.PictureDataset, tmp_path: Path):
    """Parameters in channels_last, buffers that move, and no adapter anywhere."""
    whole, interrupted, resumed = (fresh("nano") for _ in range(3))
    for clip in (whole, interrupted, resumed):
        clip.model.requires_grad_(True)
    options = {"checkpoint": tmp_path / "checkpoint", "train_logit_scale": True}
    with pytest.raises(Stop):
        run(interrupted, emoji, augment=stop_after(30), **options)
    assert epochs_in(stored(tmp_path / "checkpoint")[1]) == 1
    run(resumed, emoji, **options)
    run(whole, emoji, train_logit_scale=True)
    same_bits(everything(resumed), everything(whole))


def test_optimizer_schedule_and_scaler_come_back_as_their_own_state_dicts(
    emoji: mh.PictureDataset, tmp_path: Path
):
    settings = Settings(
        epochs=4,
        batch_size=8,
        lr=1e-2,
        weight_decay=0.1,
        warmup=0.3,
        seed=1,
        train_logit_scale=True,
        classes=False,
    )
    path = tmp_path / "checkpoint"
    _, state, _ = set_up(adapted(), emoji, settings, None, None, None)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for p in mh.trainable_parameters(state.model).values():
        p.grad = torch.randn_like(p)
    for _ in range(3):
        state.optimizer.step()
        state.scheduler.step()
        state.history.steps.append({"loss": 1 / 3, "lr": state.lr})
    state.history.epochs.append({"epoch": 1, "loss": 1 / 3})
    Checkpoint(path, {"epochs": 4}).save(state)

    _, other, _ = set_up(adapted(), emoji, settings, None, None, None)
    other.scaler = torch.amp.GradScaler("cpu")
    assert Checkpoint(path, {"epochs": 4}).resume(other)
    assert other.history == state.history
    assert other.lr == state.lr
    assert other.scheduler.state_dict() == state.scheduler.state_dict()
    assert other.scaler.get_scale() == 8
    found, expected = other.optimizer.state_dict(), state.optimizer.state_dict()
    assert json.dumps(found["param_groups"]) == json.dumps(expected["param_groups"])
    for index, values in expected["state"].items():
        same_bits(found["state"][index], values)


def test_without_a_file_nothing_is_put_back(emoji: mh.PictureDataset, tmp_path: Path):
    history = run(adapted(), emoji, epochs=1)
    assert run(adapted(), emoji, epochs=1, checkpoint=tmp_path / "new" / "checkpoint") == history
