"""What was measured on `nano`, run by run, as data/study.py writes it to data/study.jsonl."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from ..lora import lora_targets
from .choose import choose
from .runs import Run
from .ways import WAYS, Way, first_layers, lora, regions

LOOKS = ("thermal", "sketch", "openmoji")
BASE = "base"  # in the place of a way: nothing was done
SEEDS = range(3)
BATCH_SIZE = 128  # half of it new pictures, half of it replay
# How many epochs the shorter tries have. An epoch of few pictures is short: with all 718, and with
# 256 and 64, the steps are about as many; with 16, the batches are smaller, too.
EPOCHS: dict[int | None, int] = {None: 10, 256: 28, 64: 110, 16: 110}

# One region of the image tower at a time, and one number of directions at a time.
REGIONS = ("stem", "block 0", "block 1", "block 2", "block 3", "head")
RANKS = ((1, 2), (2, 4), (4, 8), (16, 32), (32, 64), (8, 4), (8, 64))  # (rank, alpha)
FIXED = (1e-2, 10)  # learning rate and epochs where nothing is chosen


def _region(region: str) -> Way:
    def names(model: nn.Module) -> list[str]:
        return regions(model)[region]

    return lora(names, f"adapters of rank 8 on the image tower's {region} alone")


def _rank(rank: int, alpha: float) -> Way:
    says = f"adapters of rank {rank} and alpha {alpha} on the first half of the image tower"
    return lora(first_layers, says, rank, alpha)


def _text_tower(model: nn.Module) -> list[str]:
    return lora_targets(model, "text")


BY_REGION = {f"LoRA, {region}": _region(region) for region in REGIONS}
BY_REGION["LoRA, text tower"] = lora(_text_tower, "adapters of rank 8 on the text tower")
BY_RANK = {f"LoRA, rank {rank}, alpha {alpha}": _rank(rank, alpha) for rank, alpha in RANKS}
ALL_WAYS = WAYS | BY_REGION | BY_RANK


@dataclasses.dataclass(frozen=True)
class Job:
    """One run to do.

    `purpose` is "choose" (trained on a part of the train families, evaluated on the others and the
    validation split) or "measure" (all train families, and the test split). `pictures`: how many of
    the new look, with as many of the old one; None is all. Without `replay`, none of the old one.
    """

    purpose: str
    look: str
    way: str
    lr: float | None = None
    epochs: int | None = None
    seed: int = 0
    pictures: int | None = None
    replay: bool = True


class Study:
    """Runs by their job. One that is not there is asked of `missing(job)`, once."""

    def __init__(self, runs: Mapping[Job, Run], missing: Callable[[Job], Run] | None = None):
        self.runs = dict(runs)
        self.missing = missing

    def run(self, job: Job) -> Run:
        """KeyError if it is not there, and nobody does it."""
        if job not in self.runs:
            if self.missing is None:
                raise KeyError(f"{job} is not in the study; data/study.py does what is missing")
            self.runs[job] = self.missing(job)
        return self.runs[job]

    def base(self, look: str) -> Run:
        """What the base makes of the test split."""
        return self.run(Job("measure", look, BASE))

    def chosen(self, look: str, way: str, pictures: int | None = None) -> tuple[float, int] | None:
        """Learning rate and epochs; None for a way that trains nothing."""
        if WAYS[way].prepare is None:
            return None

        def attempt(lr: float, epochs: int) -> Run:
            return self.run(Job("choose", look, way, lr, epochs, pictures=pictures))

        return choose(attempt, WAYS[way], EPOCHS[pictures])

    def measured(self, look: str, way: str, pictures: int | None = None) -> list[Run]:
        """The three seeds on the test split, with what was chosen."""
        lr, epochs = self.chosen(look, way, pictures) or (None, None)
        job = Job("measure", look, way, lr, epochs, pictures=pictures)
        return self._seeds(job)

    def without_replay(self, look: str, way: str) -> list[Run]:
        """The same with as many steps, and no picture of the old look."""
        lr, epochs = self.chosen(look, way) or (None, None)
        epochs = None if epochs is None else 2 * epochs
        return self._seeds(Job("measure", look, way, lr, epochs, replay=False))

    def fixed(self, look: str, way: str) -> list[Run]:
        """The three seeds with FIXED, for ways that are to differ in one thing alone."""
        return self._seeds(Job("measure", look, way, *FIXED))

    def _seeds(self, job: Job) -> list[Run]:
        return [self.run(dataclasses.replace(job, seed=seed)) for seed in SEEDS]


def read_study(path: Path, missing: Callable[[Job], Run] | None = None) -> Study:
    """The runs in `path`, a line for each; none if there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    entries = map(json.loads, lines)
    return Study({Job(**e["job"]): Run(**e["run"]) for e in entries}, missing)
