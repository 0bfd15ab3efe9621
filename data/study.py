"""The study behind notebooks 05 and 06: which way to adapt `nano` suits which new look.

    python data/study.py                  # goes on where it stopped; adds lines to study.jsonl
    python data/study.py --looks sketch   # one look, so that several can be made side by side
    python data/study.py --parts ways     # one part
    python data/study.py --show           # the tables, of what is there so far

A line of study.jsonl is one run, with the rank of every picture. The parts:

- **ways**: every way of `mclip_helpers.comparison.WAYS`. First, learning rate and length are
  *chosen*, by the same five tries for each (`comparison.choose`): trained on a part of the train
  families in both looks, and evaluated on the other part and the validation split. Then it is
  *measured*: trained with three seeds on all train families with what was chosen, and evaluated on
  the test split, which nothing else has looked at.
- **pictures**: the same with 16, 64 and 256 pictures of the new look.
- **regions**, **ranks**: adapters on one region of the tower, or of another rank; learning rate and
  length are the same for all, so that nothing else differs.
- **replay**: the chosen settings, as many steps, without a picture of the old look.
- **batches**: batches of 16 to 512, with the rate chosen for each, and as many pictures seen.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import mclip_helpers as mh
from mclip_helpers.comparison import WAYS, Run, Study, Task
from mclip_helpers.comparison.study import (
    BASE,
    BATCH_EPOCHS,
    BATCH_SIZE,
    BY_RANK,
    BY_REGION,
    EPOCHS,
    LOOKS,
    Job,
    do_job,
    read_runs,
    write_run,
)
from mclip_helpers.files import data_folder

OLD = "twemoji"
HELD_OUT = 0.4  # of the train families, to choose with
FEW = ("heads", "LoRA, first layers", "full, batch norm held")


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


def few(dataset: mh.PictureDataset, pictures: int | None) -> mh.PictureDataset:
    """So many pictures of a look, the same concepts in each; all of them for None."""
    order = sorted(
        range(len(dataset)), key=lambda i: hashlib.sha256(code(dataset, i).encode()).digest()
    )
    return dataset if pictures is None else dataset.subset(sorted(order[:pictures]))


def code(dataset: mh.PictureDataset, i: int) -> str:
    return dataset.pairs[i].name.rpartition("/")[2]


@functools.cache
def task(
    purpose: str,
    look: str,
    pictures: int | None = None,
    replay: bool = True,
    batch_size: int | None = None,
) -> Task:
    """What a job trains on, and what it is evaluated on."""
    if purpose == "choose":
        learn, old = families(look, learn=True), families(OLD, learn=True)
        new, kept = families(look, learn=False), families(OLD, learn=False)
    else:
        learn, old = (mh.emoji_dataset(style, "train") for style in (look, OLD))
        new, kept = (mh.emoji_dataset(style, "test") for style in (look, OLD))
    learn = few(learn, pictures)
    together = learn + few(old, pictures) if replay else learn
    base = functools.partial(mh.load_model, "nano", device="cpu")
    batch_size = min(
        batch_size or BATCH_SIZE, len(set(together.groups))
    )  # a concept has two pictures
    return Task(base, together, new, kept, batch_size, fast=False)  # the same to the last bit


def do(job: Job) -> Run:
    its_task = task(job.purpose, job.look, job.pictures, job.replay, job.batch_size)
    return do_job(job, its_task, shown=False)


def do_and_write(path: Path, job: Job) -> Run:
    """Do a run that is missing, add its line to the file as soon as it is done, and say so."""
    result = do(job)
    write_run(path, job, result)
    print(f"{job}: {result}", flush=True)
    return result


def open_study(path: Path) -> Study:
    """What the file has; what is missing is done when it is asked for."""
    return Study(read_runs(path), functools.partial(do_and_write, path))


def ways(study: Study, look: str) -> None:
    study.run(Job("choose", look, BASE))
    study.base(look)
    for way in WAYS:
        study.measured(look, way)


def pictures(study: Study, look: str) -> None:
    for count in filter(None, EPOCHS):
        for way in FEW:
            study.measured(look, way, count)


def by_region(study: Study, look: str) -> None:
    for way in (*BY_REGION, "LoRA", "LoRA, first layers"):
        study.fixed(look, way)


def by_rank(study: Study, look: str) -> None:
    for way in (*BY_RANK, "LoRA, first layers"):
        study.fixed(look, way)


def replay(study: Study, look: str) -> None:
    for way in WAYS:
        study.without_replay(look, way)


def batches(study: Study, look: str) -> None:
    for batch_size in BATCH_EPOCHS:
        study.by_batch(look, "LoRA, first layers", batch_size)


PARTS: dict[str, tuple[Callable[[Study, str], None], Sequence[str]]] = {
    "ways": (ways, LOOKS),
    "regions": (by_region, LOOKS),
    "ranks": (by_rank, ("thermal",)),
    "replay": (replay, ("thermal",)),
    "pictures": (pictures, ("thermal",)),
    "batches": (batches, ("thermal",)),
}


def show(study: Study) -> None:
    """The tables of the first part, as far as they are known."""
    for look in LOOKS:
        known = [way for way in WAYS if is_known(study, look, way)]
        if known:
            print(f"\n{look}\n{mh.draw.ways(study.compared(look, known))}")


def is_known(study: Study, look: str, way: str) -> bool:
    try:
        return bool(study.base(look) and study.measured(look, way))
    except KeyError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", action="store_true", help="only show what is there so far")
    parser.add_argument("--looks", nargs="+", choices=LOOKS, default=LOOKS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same sums on every machine, and room for one look on each core
    path = data_folder() / "study.jsonl"
    if args.show:
        show(Study(read_runs(path)))
        return
    study = open_study(path)
    for part in args.parts:
        its_own, its_looks = PARTS[part]
        for look in args.looks:
            if look in its_looks:
                its_own(study, look)
    show(study)


if __name__ == "__main__":
    main()
