"""Endurance: what must hold not once but every time. `make endure` prints the README's figures.

Runs of `train` are killed at random moments, while a checkpoint is written as well, and must go on
to the same bits; `save_adapter` is killed over an adapter that exists; the recorder records again
and again. Each series says what it counted. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from conftest import emoji_pairs, fresh
from killed import Stage, killed_run, killed_save, loaded, some_adapter, tensors_of, whole_run
from recorded_steps import clip_loss
from recordings import ENDS, Left

import mclip_helpers as mh
from mclip_helpers.display import Table
from mclip_helpers.progress_bar import progress_bar


@dataclass
class Series:
    """One row of the table: what was done how often, what happened meanwhile, and what failed."""

    what: str
    promise: str
    count: int
    meanwhile: str = ""
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def row(self) -> tuple[str, str, str, str, str]:
        held = f"{self.count - len(self.failures)} of {self.count}"
        return self.what, self.meanwhile, self.promise, held, f"{self.seconds / 60:.1f}"


def training(count: int, workers: int, seed: int, folder: Path) -> Series:
    """Runs that are killed and go on."""
    series = Series(
        "training runs" + (f", {workers} loader workers" if workers else ""),
        "end with the bits of an uninterrupted run",
        count,
    )
    dataset = emoji_pairs()
    whole = whole_run(folder, dataset, workers)
    killed: Counter[Stage] = Counter()
    resumed = 0
    for i in progress_bar(range(count), series.what, "runs"):
        chance = random.Random(f"{seed} training {workers} {i}")
        found, stages, went_on = killed_run(folder, dataset, workers, whole, chance)
        killed.update(stages)
        resumed += went_on
        if found != whole.digest:
            series.failures.append(f"run {i}, killed while {', '.join(map(str, stages))}: {found}")
    series.meanwhile = f"{_where(killed)}; {resumed} went on from a checkpoint"
    return series


def _seconds_of_a_save(lora_model: object, path: Path) -> float:
    start = time.monotonic()
    mh.save_adapter(lora_model, path)
    return time.monotonic() - start


def saving(count: int, seed: int, folder: Path) -> Series:
    """Saves of an adapter over another one, each killed."""
    series = Series("saves over an adapter", "the old one or the new one loads", count)
    path = folder / "adapter"
    adapters = {i: some_adapter(i) for i in (0, 1)}
    contents = {i: tensors_of(lora_model) for i, lora_model in adapters.items()}
    mh.save_adapter(adapters[0], path)
    # A process that has just been forked takes up to three times as long.
    seconds = min(_seconds_of_a_save(adapters[0], folder / "whole") for _ in range(3))
    there, outcome = 0, Counter[str]()
    for i in progress_bar(range(count), series.what, "saves"):
        chance = random.Random(f"{seed} saving {i}")
        stage = killed_save(path, adapters[1 - there], chance.uniform(0, 3 * seconds))
        found = loaded(path)
        fits = [n for n, tensors in contents.items() if _equal(found, tensors)]
        if not fits:
            series.failures.append(f"save {i}: {found if isinstance(found, str) else 'a mixture'}")
            mh.save_adapter(adapters[there], path)
            continue
        ended = "not killed in time" if stage is None else "killed"
        outcome[f"{ended}, {'old' if fits == [there] else 'new'} one there"] += 1
        [there] = fits
    mh.save_adapter(adapters[there], path)  # it clears away what a killed one left
    left = [p.name for p in folder.iterdir() if p.name not in ("adapter", "whole")]
    if left:
        series.failures.append(f"beside the adapter lie {', '.join(left)}")
    series.meanwhile = _where(outcome)
    return series


def _equal(found: dict[str, torch.Tensor] | str, tensors: dict[str, torch.Tensor]) -> bool:
    if isinstance(found, str) or found.keys() != tensors.keys():
        return False
    return all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def recording(count: int) -> Series:
    """Recordings that end in every way."""
    series = Series("recordings", "leave no tensor, hook, thread or file", count)
    clip = fresh("nano")
    model = mh.inject_lora(clip.model)

    def record(i: int) -> None:
        ENDS[i % len(ENDS)](model, lambda: clip_loss(clip))
        model.zero_grad()

    for i in range(len(ENDS)):  # once each, so that all that is made only once is there
        record(i)
    bar = progress_bar(range(count), series.what, "recordings")  # it has a thread of its own
    before = Left.now(model)
    for i in bar:
        record(i)
        if i % 100 == 99 and (now := Left.now(model)) != before:
            series.failures.append(f"after {i + 1}: {now}; before: {before}")
    now = Left.now(model)
    if now != before and not series.failures:
        series.failures.append(f"at the end: {now}; before: {before}")
    series.meanwhile = f"ended in {len(ENDS)} ways"
    return series


def _where(counts: Counter) -> str:
    return ", ".join(f"{counts[key]} {key}" for key in sorted(counts)) or "none"


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=200, help="training runs, and saves")
    parser.add_argument("--with-workers", type=int, default=20, help="runs with loader workers")
    parser.add_argument("--recordings", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    fresh("nano")  # loaded before the first fork, so that no process has to
    done = []
    for make in (
        lambda folder: training(options.runs, 0, options.seed, folder),
        lambda folder: training(options.with_workers, 2, options.seed, folder),
        lambda folder: saving(options.runs, options.seed, folder),
        lambda folder: recording(options.recordings),
    ):
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            series = make(Path(folder))
            series.seconds = time.monotonic() - start
        print(f"{series.what}: {series.row[3]}", flush=True)
        done.append(series)
    print(f"\nseed {options.seed}")
    print(
        Table(["what", "killed while", "what must hold", "held", "minutes"], [s.row for s in done])
    )
    failures = [f"{series.what}: {failure}" for series in done for failure in series.failures]
    print("".join(f"\n{failure}" for failure in failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
