"""The study behind notebooks 05 and 06: which way to adapt `nano` suits which new look.

    python data/study.py                  # goes on where it stopped; adds lines to study.jsonl
    python data/study.py --looks sketch   # one look, so that several can be made side by side
    python data/study.py --show           # the tables, of what is there so far

For each look and each way (`mclip_helpers.comparison.WAYS`):

1. **Choose.** Every way has eight tries, four learning rates times two lengths. It is trained on a
   part of the train families in both looks, and evaluated on the other part and the validation
   split. Of the tries that don't diverge, the one with the best R@1 in the new look wins. (Letting
   batch norm see the pictures has nothing to choose.)
2. **Measure.** With what was chosen, it is trained on all train families with three seeds, and
   evaluated on the test split, which nothing else has looked at.

A line of study.jsonl is one run, with the rank of every picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import mclip_helpers as mh
from mclip_helpers.comparison import WAYS, Run, Task, difference, run
from mclip_helpers.comparison.runs import Adapted, measure
from mclip_helpers.files import data_folder

LOOKS = ("thermal", "sketch", "openmoji")
OLD = "twemoji"
BATCH_SIZE = 128
SEEDS = range(3)
EPOCHS = (10, 20)
RATES = {  # each about three times the one before
    "heads": (1e-3, 3e-3, 1e-2, 3e-2),
    "LoRA": (1e-3, 3e-3, 1e-2, 3e-2),
    "LoRA, first layers": (1e-3, 3e-3, 1e-2, 3e-2),
    "full, batch norm held": (1e-4, 3e-4, 1e-3, 3e-3),
    "full": (1e-4, 3e-4, 1e-3, 3e-3),
}
HELD_OUT = 0.4  # of the train families, to choose with
BASE = "base"  # in the place of a way: nothing was done


@dataclasses.dataclass(frozen=True)
class Job:
    """One run to do: `purpose` is "choose" or "measure"."""

    purpose: str
    look: str
    way: str
    lr: float | None = None
    epochs: int | None = None
    seed: int = 0


Results = dict[Job, Run]


def families(look: str, learn: bool) -> mh.PictureDataset:
    """The train families to learn from while choosing, or the others and the validation split."""
    family = {f"{look}/{item.code}": item.family for item in mh.emoji_catalogue()}
    train = mh.emoji_dataset(look, "train")
    held = [
        hashlib.sha256(family[pair.name].encode()).digest()[31] < 256 * HELD_OUT
        for pair in train.pairs
    ]
    part = train.subset(i for i, is_held in enumerate(held) if is_held != learn)
    return part if learn else part + mh.emoji_dataset(look, "val")


@functools.cache
def task(purpose: str, look: str) -> Task:
    base = functools.partial(mh.load_model, "nano", device="cpu")
    if purpose == "choose":
        learn = families(look, learn=True) + families(OLD, learn=True)
        return Task(base, learn, families(look, False), families(OLD, False), BATCH_SIZE)
    learn = mh.emoji_dataset(look, "train") + mh.emoji_dataset(OLD, "train")
    test, old = (mh.emoji_dataset(style, "test") for style in (look, OLD))
    return Task(base, learn, test, old, BATCH_SIZE)


def tries(look: str, way: str) -> list[Job]:
    """What is tried for a way that trains something."""
    return [Job("choose", look, way, lr, epochs) for epochs in EPOCHS for lr in RATES[way]]


def chosen(results: Results, look: str, way: str) -> Job:
    """The best try that did not diverge. KeyError if one has not been run."""
    whole = [job for job in tries(look, way) if not results[job].diverged]
    return max(whole, key=lambda job: results[job].recall())


def final(results: Results, look: str, way: str) -> list[Job]:
    """What is measured, with what was chosen. KeyError while a try has not been run."""
    trains = WAYS[way].prepare is not None
    job = chosen(results, look, way) if trains else Job("choose", look, way)
    return [dataclasses.replace(job, purpose="measure", seed=seed) for seed in SEEDS]


def jobs(results: Results, looks: Sequence[str]) -> Iterator[Job]:
    """Everything in its order; what is measured depends on what was chosen."""
    for look in looks:
        yield Job("choose", look, BASE)
        yield Job("measure", look, BASE)
        for way in WAYS:
            if WAYS[way].prepare is not None:
                yield from tries(look, way)
            yield from final(results, look, way)


def do(job: Job) -> Run:
    its_task = task(job.purpose, job.look)
    if job.way == BASE:
        return measure(Adapted(its_task.base()), its_task, shown=False)
    numbers = {"lr": job.lr or 0.0, "epochs": job.epochs or 0}
    return run(its_task, job.way, **numbers, seed=job.seed, shown=False)


def read(path: Path) -> Results:
    """What study.jsonl has: a line for each run."""
    results: Results = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            results[Job(**entry["job"])] = Run(**entry["run"])
    return results


def study(path: Path, looks: Sequence[str]) -> None:
    """Do what is missing, and write each run down as soon as it is done."""
    results = read(path)
    for job in jobs(results, looks):
        if job in results:
            continue
        result = results[job] = do(job)
        entry = {"job": dataclasses.asdict(job), "run": dataclasses.asdict(result)}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        numbers = "" if job.lr is None else f" lr {job.lr:g} × {job.epochs}"
        print(
            f"{job.purpose} {job.look}: {job.way}{numbers} seed {job.seed}: "
            f"R@1 {result.recall():.1%}, R@5 {result.recall(5):.1%}, "
            f"kept {result.recall_kept():.1%}; {result.seconds:.0f} s"
            + ("; diverged" if result.diverged else ""),
            flush=True,
        )


def show(results: Results) -> None:
    for look in LOOKS:
        base = results.get(Job("measure", look, BASE))
        if base is None:
            continue
        rows = [["base", "–", f"{base.recall():.1%}", f"{base.recall(5):.1%}"]]
        rows[0] += [f"{base.recall_kept():.1%}", "–"]
        for way in WAYS:
            try:
                measured = [job for job in final(results, look, way) if job in results]
            except KeyError:  # its tries are not done
                continue
            if not measured:
                continue
            job, runs = measured[0], [results[job] for job in measured]
            setting = "–" if job.lr is None else f"{job.lr:g} × {job.epochs}"
            shares = [
                sum(values) / len(runs)
                for values in (
                    [r.recall() for r in runs],
                    [r.recall(5) for r in runs],
                    [r.recall_kept() for r in runs],
                )
            ]
            gain = difference([r.new for r in runs], [base.new])
            rows.append([way, setting, *(f"{share:.1%}" for share in shares), str(gain)])
        heading = ["", "chosen", "R@1", "R@5", "kept", "R@1 more than the base"]
        print(f"\n{look}\n{mh.draw.Table(heading, rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", action="store_true", help="only show what is there so far")
    parser.add_argument("--looks", nargs="+", choices=LOOKS, default=LOOKS)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same sums on every machine, and room for one look on each core
    path = data_folder() / "study.jsonl"
    if not args.show:
        study(path, args.looks)
    show(read(path))


if __name__ == "__main__":
    main()
