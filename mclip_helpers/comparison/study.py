"""What was measured on `nano`, run by run, as data/study.py writes it to data/study.jsonl."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ..files import data_folder
from ..training.recipes import NANO_RATES
from .choose import choose
from .result import Comparison
from .runs import Adapted, Run, Task, measure, run
from .ways import WAYS, lora

LOOKS = ("thermal", "sketch", "openmoji")
BASE = "base"  # in the place of a way: nothing was done
SEEDS = range(3)
BATCH_SIZE = 128  # half of it new pictures, half of it replay
# How many epochs the shorter tries have. An epoch of few pictures is short: these are some hundred
# steps for all, of smaller batches where there are fewer pictures than a batch holds.
EPOCHS: dict[int | None, int] = {None: 10, 256: 28, 64: 55, 16: 55}

# Batches of other sizes, and how many epochs of each show as many pictures as ten of BATCH_SIZE do:
# a large batch leaves more of an epoch over, because it holds no concept twice.
BATCH_EPOCHS = {16: 10, 32: 10, 64: 10, 128: 10, 256: 11, 512: 14}

# One region of the image tower at a time, and one number of directions at a time.
REGIONS = ("stem", "block 0", "block 1", "block 2", "block 3", "head")
RANKS = ((1, 2), (2, 4), (4, 8), (16, 32), (32, 64), (8, 4), (8, 64))  # (rank, alpha)
FIXED = (1e-2, 10)  # learning rate and epochs where nothing is chosen


BY_REGION = {
    f"LoRA, {region}": lora(region, f"adapters of rank 8 on the image tower's {region} alone")
    for region in REGIONS
} | {"LoRA, text tower": lora("text", "adapters of rank 8 on the text tower")}
BY_RANK = {
    f"LoRA, rank {rank}, alpha {alpha}": lora(
        "first", f"adapters of rank {rank} and alpha {alpha} on the first half", rank, alpha
    )
    for rank, alpha in RANKS
}
ALL_WAYS = WAYS | BY_REGION | BY_RANK


@dataclasses.dataclass(frozen=True)
class Job:
    """One run to do.

    `purpose` is "choose" (trained on a part of the train families, evaluated on the others and the
    validation split) or "measure" (all train families, and the test split). `pictures`: how many of
    the new look, with as many of the old one; None is all. Without `replay`, none of the old one.
    `batch_size` is BATCH_SIZE for None.
    """

    purpose: str
    look: str
    way: str
    lr: float | None = None
    epochs: int | None = None
    seed: int = 0
    pictures: int | None = None
    replay: bool = True
    batch_size: int | None = None

    def __str__(self) -> str:
        setting = [] if self.lr is None else [f"lr {self.lr:g} × {self.epochs} epochs"]
        few = [] if self.pictures is None else [f"{self.pictures} pictures"]
        alone = [] if self.replay else ["no replay"]
        batch = [] if self.batch_size is None else [f"batches of {self.batch_size}"]
        more = ", ".join([*setting, *few, *alone, *batch, f"seed {self.seed}"])
        return f"{self.purpose} {self.look}, {self.way}: {more}"


def do_job(job: Job, task: Task, *, shown: bool = True) -> Run:
    """Train and measure what `job` says, on the pictures of `task`; or only measure the base."""
    if job.way == BASE:
        return measure(Adapted(task.base()), task, shown=shown)
    lr, epochs = job.lr or 0.0, job.epochs or 0  # they mean nothing to what trains nothing
    return run(task, ALL_WAYS[job.way], lr=lr, epochs=epochs, seed=job.seed, shown=shown)


class Study:
    """Runs by their job. One that is not there is asked of `do(job)`, once.

    `rates` are the learning rates of each method, and `epochs` the length of the shorter tries by
    the number of pictures.
    """

    def __init__(
        self,
        runs: Mapping[Job, Run],
        do: Callable[[Job], Run] | None = None,
        *,
        rates: Mapping[str, Sequence[float]] = NANO_RATES,
        epochs: Mapping[int | None, int] = EPOCHS,
    ):
        self.runs, self.do, self.rates, self.epochs = dict(runs), do, rates, epochs

    def run(self, job: Job) -> Run:
        """KeyError if it is not there, and nobody does it."""
        if job not in self.runs:
            if self.do is None:
                raise KeyError(f"{job} is not in the study; data/study.py does what is missing")
            self.runs[job] = self.do(job)
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

        return choose(attempt, self.rates[WAYS[way].method], self.epochs[pictures])

    def measured(self, look: str, way: str, pictures: int | None = None) -> list[Run]:
        """The three seeds on the test split, with what was chosen."""
        lr, epochs = self.chosen(look, way, pictures) or (None, None)
        return self._seeds(Job("measure", look, way, lr, epochs, pictures=pictures))

    def without_replay(self, look: str, way: str) -> list[Run]:
        """The same with as many steps, and no picture of the old look."""
        lr, epochs = self.chosen(look, way) or (None, None)
        epochs = None if epochs is None else 2 * epochs
        return self._seeds(Job("measure", look, way, lr, epochs, replay=False))

    def fixed(self, look: str, way: str) -> list[Run]:
        """The three seeds with FIXED, for ways that are to differ in one thing alone."""
        return self._seeds(Job("measure", look, way, *FIXED))

    def by_batch(self, look: str, way: str, batch_size: int) -> list[Run]:
        """The three seeds with batches of this size and as many pictures seen as with any other.

        Of the method's learning rates, the best is chosen for each size, all with one length.
        """
        asked = Job("choose", look, way, epochs=BATCH_EPOCHS[batch_size], batch_size=batch_size)
        tries = [dataclasses.replace(asked, lr=lr) for lr in self.rates[WAYS[way].method]]
        best = max(tries, key=lambda job: (not self.run(job).diverged, self.run(job).recall()))
        return self._seeds(dataclasses.replace(best, purpose="measure"))

    def compared(self, look: str, ways: Sequence[str] = tuple(WAYS)) -> Comparison:
        """The ways side by side, on the test split."""
        return Comparison(
            self.base(look),
            {way: self.measured(look, way) for way in ways},
            {way: self.chosen(look, way) for way in ways},
        )

    def _seeds(self, job: Job) -> list[Run]:
        return [self.run(dataclasses.replace(job, seed=seed)) for seed in SEEDS]


def read_runs(path: Path) -> dict[Job, Run]:
    """The runs in a file, a line for each; none if there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {Job(**entry["job"]): Run(**entry["run"]) for entry in map(json.loads, lines)}


def write_run(path: Path, job: Job, run: Run) -> None:
    """Add a line to the file, with the version of PyTorch that made it."""
    entry = {"job": asdict(job), "run": asdict(run), "torch": torch.__version__}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, separators=(",", ":")) + "\n")


def read_study() -> Study:
    """What was measured on `nano`: data/study.jsonl."""
    return Study(read_runs(data_folder() / "study.jsonl"))
