"""Which way suits your own pictures: chosen and measured as the study does it for `nano`."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data import PictureDataset, require_dataset, split, with_replay
from ..lora import fingerprint
from ..model import Clip
from ..training.fingerprint import dataset_hash
from ..training.recipes import Recipe, recipe
from .result import Comparison
from .runs import Run, Task
from .study import SEEDS, Job, Study, do_job, read_runs, write_run
from .ways import WAYS, possible_ways

VAL, TEST = 0.15, 0.25  # shares of the pictures; the rest is learned
STEPS = 110  # about as many as the study's shorter tries have
FEWEST_EPOCHS = 3
NAME = "yours"  # in the place of a look
MANY = 2  # pictures for each caption, on average: then captions are names of classes


@dataclass(frozen=True)
class Plan:
    """What will be compared: `describe` says it before anything runs."""

    choose: Task
    measure: Task
    settings: Recipe
    epochs: int
    ways: tuple[str, ...]
    replay: float
    key: str  # a hash of all that decides how the runs end

    @property
    def runs(self) -> int:
        """How many runs there are, the base's own included."""
        tries = {way: 5 if WAYS[way].prepare is not None else 0 for way in self.ways}
        return 1 + sum(count + len(SEEDS) for count in tries.values())


def are_classes(pictures: PictureDataset) -> bool:
    """Whether captions repeat so often that they are names of classes."""
    captions = {caption for pair in pictures.pairs for caption in pair.captions}
    return len(pictures) >= MANY * len(captions)


def plan(
    base: Callable[[], Clip],
    pictures: PictureDataset,
    *,
    known: PictureDataset | None = None,
    replay: float = 0.0,
    classes: bool = False,
    ways: Sequence[str] | None = None,
    epochs: int | None = None,
) -> Plan:
    """What `compare` is to do.

    `base()` loads a fresh model. The pictures are split into those to learn from, to choose with
    (15 %) and to measure with (25 %); see `split` for `classes`. `known` are pictures of what is
    not to be forgotten: a quarter of them is measured, and pictures of the rest are a share of
    `replay` of what is learned from. `ways` are names of WAYS, all that are possible by default.
    `epochs` is the length of the shorter tries.

    ValueError for a way that is not there, or for replay without `known`; DataError if the pictures
    can't be split.
    """
    clip = base()
    possible = possible_ways(clip.model)
    ways = possible if ways is None else list(ways)
    if strange := [way for way in ways if way not in possible]:
        raise ValueError(f"there is no way {strange[0]!r} for this model, only {possible}")
    parts = split(require_dataset(pictures, "pictures"), VAL, TEST, classes=classes)
    learn, kept = parts["train"], None
    if known is not None:
        known_parts = split(known, 0.0, TEST)
        learn, kept = with_replay(learn, known_parts["train"], replay), known_parts["test"]
    elif replay:
        raise ValueError("replay needs known pictures to draw from: known=…")
    settings = recipe(clip, None if classes else learn)
    batch_size = min(settings.batch_size, max(2, len(learn) // 2))
    if epochs is None:
        epochs = max(FEWEST_EPOCHS, round(STEPS / max(1, len(learn) // batch_size)))

    def task(part: str, kept: PictureDataset | None) -> Task:
        return Task(base, learn, parts[part], kept, batch_size, classes=classes)

    choose, measure = task("val", None), task("test", kept)
    key = _key(clip, choose, measure, epochs)
    return Plan(choose, measure, settings, epochs, tuple(ways), replay, key)


def describe(it: Plan) -> str:
    """In a few lines what a plan will do."""
    task = it.measure
    kept = "nothing tells what is forgotten"
    if task.kept is not None:
        kept = f"{len(task.kept)} known pictures tell what is forgotten"
    captions = "captions are names of classes" if task.classes else "captions are sentences"
    return (
        f"{len(task.learn)} pictures to learn from ({it.replay:.0%} of them replay), "
        f"{len(it.choose.new)} to choose with, {len(task.new)} to measure with; {captions}; "
        f"{kept}\n"
        f"{it.runs} runs ({'; '.join(it.ways)}), batches of {task.batch_size}, {it.epochs} or "
        f"{2 * it.epochs} epochs"
    )


def compare(it: Plan, folder: str | Path, *, shown: bool = True) -> Comparison:
    """Do what is planned. Each run is written into `folder` at once, and a second call goes on.

    With other pictures, another model or other settings it begins anew, in another file there.
    """
    path = Path(folder) / f"runs-{it.key}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = read_runs(path)
    done, bars = len(runs), shown and sys.stdout.isatty()  # in a file, bars are only noise

    def do(job: Job) -> Run:
        nonlocal done
        task = it.choose if job.purpose == "choose" else it.measure
        result = do_job(job, task, shown=bars)
        write_run(path, job, result)
        done += 1
        if shown:
            print(f"[{done}/{it.runs}] {job}: {result}", flush=True)
        return result

    study = Study(runs, do, rates=it.settings.rates, epochs={None: it.epochs})
    return study.compared(NAME, it.ways)


def _key(clip: Clip, choose: Task, measure: Task, epochs: int) -> str:
    datasets = (measure.learn, choose.new, measure.new, measure.kept)
    parts = [
        *("" if dataset is None else dataset_hash(dataset) for dataset in datasets),
        clip.name,
        fingerprint(clip.model),
        str((measure.batch_size, measure.classes, epochs)),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
