"""All exercises by their numbers, and where the learner stands among them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..display import ShownAsPicture
from . import (
    nb00_start,
    nb01_load,
    nb02_lora,
    nb03_loss,
    nb04_gradient,
    nb05_train,
    nb06_tool,
    nb07_fast,
    nb08_ship,
    records,
)
from .findings import Kind
from .forms import Exercise
from .records import DamagedRecords, Record

NOTEBOOKS = {
    "00": "Start here",
    "01": "Load MobileCLIP",
    "02": "Inject LoRA",
    "03": "The contrastive loss",
    "04": "Follow the gradient",
    "05": "Train",
    "06": "Which tool?",
    "07": "Fast and large",
    "08": "Ship it",
}

EXERCISES: dict[str, Exercise] = {
    e.id: e
    for module in (
        nb00_start,
        nb01_load,
        nb02_lora,
        nb03_loss,
        nb04_gradient,
        nb05_train,
        nb06_tool,
        nb07_fast,
        nb08_ship,
    )
    for e in module.EXERCISES
}


def exercise(id: str) -> Exercise:
    """The exercise of this number, such as "03.1": the first of notebook 03.

    Show it to read what is asked. `.check(answer)` says what is right or which mistake it is,
    `.hint()` helps, and `.solution()` tells. ValueError if there is none of this number.
    """
    found = EXERCISES.get(id) if isinstance(id, str) else None
    if found is None:
        raise ValueError(f"there is no exercise {id!r:.40}; there are: {', '.join(EXERCISES)}")
    return found


@dataclass(frozen=True)
class Progress(ShownAsPicture):
    """Where a learner stands: which exercises are solved, and which were tried."""

    records: tuple[Record, ...]
    trouble: str = ""  # why the file could not be read

    @property
    def solved(self) -> set[str]:
        """The ids of exercises whose check once said "right"."""
        return {r.exercise for r in self.records if r.kind == Kind.RIGHT} & EXERCISES.keys()

    @property
    def tried(self) -> set[str]:
        """The ids of exercises that were checked, and are not solved yet."""
        return {r.exercise for r in self.records} & EXERCISES.keys() - self.solved

    @property
    def next(self) -> Exercise | None:
        """The first exercise that is not solved; None if all are."""
        return next((e for e in EXERCISES.values() if e.id not in self.solved), None)

    def of(self, notebook: str) -> tuple[int, int]:
        """How many of a notebook's exercises are solved, and how many there are."""
        ids = [e.id for e in EXERCISES.values() if e.notebook == notebook]
        return len(self.solved.intersection(ids)), len(ids)

    @property
    def mistakes(self) -> Counter[tuple[str, str]]:
        """How often each known mistake was made, by exercise and name."""
        counts: Counter[tuple[str, str]] = Counter()
        for r in self.records:
            if r.mistake:
                counts[r.exercise, r.mistake] += r.count
        return counts

    def __str__(self) -> str:
        lines = [f"{len(self.solved)} of {len(EXERCISES)} exercises are solved"]
        for notebook, title in NOTEBOOKS.items():
            ids = [e.id for e in EXERCISES.values() if e.notebook == notebook]
            signs = ["●" if i in self.solved else "◐" if i in self.tried else "○" for i in ids]
            lines.append(f"{notebook} · {title:22}{' '.join(signs)}".rstrip())
        return "\n".join(lines + ([self.trouble] if self.trouble else []))

    __repr__ = __str__


def progress() -> Progress:
    """The map of the series, with the exercises that you have solved and tried.

    It is read from one file on this machine, `runs/progress.json`; delete it to start anew.
    """
    try:
        return Progress(tuple(records.read()))
    except (DamagedRecords, OSError) as error:
        return Progress((), f"What was done so far can't be read: {error}")
