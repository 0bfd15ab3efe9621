"""Processes that are killed at a random moment, and at which stage that was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

import torch
from conftest import fresh
from short_runs import adapted, everything, run

import mclip_helpers as mh
from mclip_helpers.training import checkpoint, loop

EPOCHS = 3
ENOUGH = 120.0  # seconds: a process that is alive after so long hangs


class Stage(IntEnum):
    """How far a process has come. It says so itself, in memory that it shares with us."""

    SETTING_UP = 0
    TRAINING = 1
    WRITING = 2
    DONE = 3

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


class Process:
    """A copy of this process that runs `work(report)` and ends; `report` takes its stage.

    It is made by a fork, so torch need not be imported again. (Only for this is the number of
    torch's threads set to one before anything is computed.)
    """

    def __init__(self, work: Callable[[Callable[[Stage], None]], None]) -> None:
        self._shared = mmap.mmap(-1, 2)
        self.pid = os.fork()
        if self.pid:
            return
        os.setpgid(0, 0)
        try:
            work(self._report)
            self._shared[0] = Stage.DONE
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _report(self, stage: Stage) -> None:
        self._shared[1] += stage is Stage.WRITING
        self._shared[0] = stage

    @property
    def stage(self) -> Stage:
        return Stage(self._shared[0])

    @property
    def writes(self) -> int:
        """How often it has begun to write."""
        return self._shared[1]

    def succeeds(self) -> bool:
        """Wait until it ends, and say whether it ended well."""
        return self.kill_after(ENOUGH) is None and self.stage is Stage.DONE

    def kill_after(
        self, seconds: float, *, stage: Stage = Stage.SETTING_UP, writes: int = 0
    ) -> Stage | None:
        """Kill it that long after it came to `stage`, and began to write for the so-manieth time.

        At which stage it was killed; None if it had ended before.
        """
        begun = start = time.monotonic()
        while time.monotonic() - start < seconds and time.monotonic() - begun < ENOUGH:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return None
            if self.stage < stage or self.writes < writes:
                start = time.monotonic()
            time.sleep(2e-4)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return None if self.stage is Stage.DONE else self.stage


# ----------------------------------------------------------------------------------------- training


def train(
    path: Path, result: Path, dataset: mh.PictureDataset, workers: int, report: Callable
) -> None:
    """A short run with a checkpoint at `path`; the hash of all that it ends with, in `result`."""
    save = checkpoint.Checkpoint.save
    step = loop.train_step

    def reported_save(self: checkpoint.Checkpoint, state: object) -> None:
        report(Stage.WRITING)
        save(self, state)
        report(Stage.TRAINING)

    def reported_step(*arguments: object) -> float:
        report(Stage.TRAINING)
        return step(*arguments)

    checkpoint.Checkpoint.save, loop.train_step = reported_save, reported_step
    clip = adapted()
    clip.compute = dataclasses.replace(clip.compute, workers=workers)
    history = run(clip, dataset, epochs=EPOCHS, checkpoint=path)
    result.write_text(_digest(clip, history))


def _digest(clip: mh.Clip, history: mh.History) -> str:
    found = hashlib.sha256(json.dumps(dataclasses.asdict(history)).encode())
    for name, tensor in everything(clip).items():
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    found.update(torch.get_rng_state().numpy().tobytes() + repr(random.getstate()).encode())
    return found.hexdigest()


@dataclasses.dataclass(frozen=True)
class Whole:
    """An uninterrupted run: the hash that it ends with, and how many seconds its parts take."""

    digest: str
    setting_up: float
    training: float


def whole_run(folder: Path, dataset: mh.PictureDataset, workers: int) -> Whole:
    """Run it; RuntimeError if it fails."""
    path, result = folder / "whole.safetensors", folder / "whole.txt"
    start = time.monotonic()
    process = Process(lambda report: train(path, result, dataset, workers, report))
    while process.stage is Stage.SETTING_UP and time.monotonic() - start < ENOUGH:
        time.sleep(1e-3)
    begun = time.monotonic()
    if not process.succeeds():
        raise RuntimeError("an uninterrupted run failed: see above")
    return Whole(result.read_text(), begun - start, time.monotonic() - begun)


def killed_run(
    folder: Path, dataset: mh.PictureDataset, workers: int, whole: Whole, chance: random.Random
) -> tuple[str, list[Stage], int]:
    """The hash that a run ends with which was killed one to three times, where, and what was left.

    The last is how often it went on from a checkpoint. Of the kills, four in ten fall into the
    writing of a checkpoint, and as many into the training.
    """
    path, result = folder / "run.safetensors", folder / "run.txt"
    for left in folder.glob("*run.*"):
        left.unlink()
    killed: list[Stage] = []
    went_on = 0
    for _ in range(chance.randint(1, 3)):
        went_on += path.exists()
        process = Process(lambda report: train(path, result, dataset, workers, report))
        dice = chance.random()
        if dice < 0.4:
            stage = process.kill_after(chance.uniform(0, 0.012), writes=chance.randint(1, EPOCHS))
        elif dice < 0.8:
            seconds = chance.uniform(0, whole.training)
            stage = process.kill_after(seconds, stage=Stage.TRAINING)
        else:
            stage = process.kill_after(chance.uniform(0, whole.setting_up))
        if stage is None:
            break
        killed.append(stage)
    went_on += path.exists()
    if not Process(lambda report: train(path, result, dataset, workers, report)).succeeds():
        return "it could not go on", killed, went_on
    return result.read_text(), killed, went_on


# ----------------------------------------------------------------------------------------- adapters


def some_adapter(seed: int) -> object:
    """`nano` with adapters full of random numbers."""
    lora_model = mh.inject_lora(fresh("nano").model, rank=4)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in mh.trainable_parameters(lora_model).values():
            parameter.normal_()
    return lora_model


def tensors_of(lora_model: object) -> dict[str, torch.Tensor]:
    return {
        name: p.detach().clone() for name, p in lora_model.named_parameters() if ".lora_" in name
    }


def killed_save(path: Path, lora_model: object, seconds: float) -> Stage | None:
    """Save `lora_model` over what is at `path`, and kill that process after `seconds`."""

    def work(report: Callable) -> None:
        report(Stage.WRITING)
        mh.save_adapter(lora_model, path)

    return Process(work).kill_after(seconds, writes=1)


def loaded(path: Path) -> dict[str, torch.Tensor] | str:
    """The adapter at `path` as it loads, or what is said instead."""
    try:
        return tensors_of(mh.load_adapter(fresh("nano").model, path))
    except (OSError, ValueError) as error:
        return str(error)
