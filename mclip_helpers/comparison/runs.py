"""One way to adapt a model, trained once and measured picture by picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from peft import PeftModel
from PIL import Image

from ..data import Jitter, PictureDataset
from ..evaluation import embed, ranks
from ..lora import fold
from ..model import Clip
from ..training.loop import TrainingDiverged, train
from ..training.state import trainable_parameters
from .ways import Way, adapt_batch_norm


@dataclass(frozen=True)
class Task:
    """What is to be learned, and what tells whether it was.

    `learn` is trained on, replay included, in batches of `batch_size`. `new` and `kept` are
    evaluated: pictures of the new kind, and of the kind that is not to be forgotten (None if there
    is none). `base()` loads a fresh model. `classes` and `fast` are those of `train`; with `fast`,
    a trunk that gets adapters is folded, too.
    """

    base: Callable[[], Clip]
    learn: PictureDataset
    new: PictureDataset
    kept: PictureDataset | None
    batch_size: int
    augment: Callable[[Image.Image], Image.Image] | None = field(default_factory=Jitter)
    classes: bool = False
    fast: bool = True


@dataclass(frozen=True)
class Run:
    """How one run ended.

    `trained` counts the parameters that were trained. `new` and `kept` have, for each picture, the
    rank of its best caption (1 is best); `kept` is empty without such pictures. `seconds` is what
    training took. `diverged`: it stopped early, at a loss or gradient that was not finite.
    """

    trained: int
    seconds: float
    new: list[int]
    kept: list[int]
    diverged: bool = False

    def __str__(self) -> str:
        kept = f", kept {self.recall_kept():.1%}" if self.kept else ""
        end = ", diverged" if self.diverged else ""
        return f"R@1 {self.recall():.1%}, R@5 {self.recall(5):.1%}{kept}; {self.seconds:.0f} s{end}"

    def recall(self, k: int = 1) -> float:
        """The share of the new pictures whose caption is among the first k."""
        return recall(self.new, k)

    def recall_kept(self, k: int = 1) -> float:
        """The same of the pictures that were not to be forgotten; NaN if there are none."""
        return recall(self.kept, k)


def recall(picture_ranks: Sequence[int], k: int = 1) -> float:
    """The share of ranks up to k; NaN of none."""
    hits = [rank <= k for rank in picture_ranks]
    return sum(hits) / len(hits) if hits else float("nan")


def picture_ranks(clip: Clip, dataset: PictureDataset, *, shown: bool = True) -> list[int]:
    """For each picture, the rank of its best caption among all captions of the dataset."""
    images, texts = embed(clip, dataset, progress=shown)
    groups, text_groups = torch.tensor(dataset.groups), torch.tensor(dataset.caption_groups)
    return ranks(images @ texts.T, groups[:, None] == text_groups[None, :]).tolist()


@dataclass(frozen=True)
class Adapted:
    """A clip that was adapted, and what it took; the rest as in `Run`.

    `lora_model` is what `inject_lora` returned, where that was the way: `save_adapter` takes it.
    """

    clip: Clip
    trained: int = 0
    seconds: float = 0.0
    diverged: bool = False
    lora_model: PeftModel | None = None


def adapt(
    task: Task, way: Way, *, lr: float, epochs: int, seed: int, shown: bool = True
) -> Adapted:
    """A fresh base, adapted by `way`.

    `seed` decides the random start of adapters, the batches and the augmentation. `lr` and `epochs`
    mean nothing to the way that trains nothing. Where training diverges, the clip is as the last
    whole step left it.
    """
    clip, prepare = task.base(), way.prepare
    if prepare is None:
        began = time.perf_counter()
        adapt_batch_norm(
            clip, task.learn, task.batch_size, seed=seed, classes=task.classes, shown=shown
        )
        return Adapted(clip, seconds=time.perf_counter() - began)
    if task.fast and way.method == "LoRA":
        fold(clip.model)  # the same adapters on the same layers, in less time
    torch.manual_seed(seed)
    prepared = prepare(clip)
    trained = sum(p.numel() for p in trainable_parameters(clip.model).values())
    began, diverged = time.perf_counter(), False
    try:
        train(
            clip,
            task.learn,
            epochs=epochs,
            batch_size=task.batch_size,
            lr=lr,
            seed=seed,
            augment=task.augment,
            classes=task.classes,
            fast=task.fast,
            progress=shown,
        )
    except TrainingDiverged:
        diverged = True
    seconds = time.perf_counter() - began
    lora_model = prepared if isinstance(prepared, PeftModel) else None
    return Adapted(clip, trained, seconds, diverged, lora_model)


def measure(adapted: Adapted, task: Task, *, shown: bool = True) -> Run:
    """What a clip, adapted or not, makes of the task's pictures."""
    clip = adapted.clip
    return Run(
        trained=adapted.trained,
        seconds=adapted.seconds,
        new=picture_ranks(clip, task.new, shown=shown),
        kept=[] if task.kept is None else picture_ranks(clip, task.kept, shown=shown),
        diverged=adapted.diverged,
    )


def run(task: Task, way: Way, *, lr: float, epochs: int, seed: int, shown: bool = True) -> Run:
    """`adapt`, and then `measure`."""
    adapted = adapt(task, way, lr=lr, epochs=epochs, seed=seed, shown=shown)
    return measure(adapted, task, shown=shown)
