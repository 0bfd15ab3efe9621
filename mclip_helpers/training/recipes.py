"""Settings to start from, for each model: what a notebook needs instead of asking for its name.

For `nano` they were measured (data/study.py). For Apple's models they come from the literature,
with a batch that fits into memory; treat them as a first guess.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from textwrap import fill

import torch

from ..data import PictureDataset, require_dataset
from ..model import NANO, Clip, require_clip

LARGEST_BATCH, CPU_BATCH = 128, 32
# MB that autograd keeps for one pair of picture and caption in fp32, with adapters on all of the
# image tower: `python benchmarks/memory.py`.
MB_PER_PAIR = {
    "MobileCLIP-B": 118,
    "MobileCLIP-S1": 229,
    "MobileCLIP-S2": 301,
    "MobileCLIP2-B": 118,
    "MobileCLIP2-L-14": 407,
    "MobileCLIP2-S0": 129,
    "MobileCLIP2-S2": 301,
    "MobileCLIP2-S3": 345,
    "MobileCLIP2-S4": 464,
}
NANO_RATES = {  # each about three times the one before
    "LoRA": (1e-3, 3e-3, 1e-2, 3e-2),
    "full": (1e-4, 3e-4, 1e-3, 3e-3),
    "heads": (1e-3, 3e-3, 1e-2, 3e-2),
}
UNKNOWN_MODEL_MB = 500  # more than any of those
MEMORY_SHARE = 0.5  # the rest is for weights, for gradients in flight, and for other notebooks


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune one model on one machine; `str()` is the readable form.

    `lr` has a learning rate for each method: "LoRA", "full" (every parameter) and "heads" (the last
    layer of each tower); `rates` has those to choose from. `expect` says what the model knows, and
    where the numbers come from.
    """

    targets: str
    rank: int
    alpha: float
    batch_size: int
    epochs: int
    lr: Mapping[str, float]
    rates: Mapping[str, tuple[float, ...]]
    expect: str

    def __str__(self) -> str:
        rates = ", ".join(f"{method} {lr:g}" for method, lr in self.lr.items())
        return (
            f"LoRA of rank {self.rank}, alpha {self.alpha:g}, on the {self.targets!r} targets; "
            f"batches of {self.batch_size}, {self.epochs} epochs\n"
            f"learning rates: {rates}\n{fill(self.expect, 90)}"
        )


def budget(full: int | None, short: int = 1) -> int | None:
    """`full`, or `short` where the environment variable MCLIP_SHORT is set, as in tests.

    Notebooks call it for numbers of epochs, seeds and pictures. None stands for no limit.
    """
    return short if os.environ.get("MCLIP_SHORT") else full


def recipe(clip: Clip, dataset: PictureDataset | None = None) -> Recipe:
    """The recipe for `clip` on its device, and for what it is to be trained on.

    With `dataset`, the batch is at most so large that its pairs, as far as they differ, give two.

    Sources: `nano`'s numbers were measured here. For other models, 1e-5 is the usual rate for full
    fine-tuning of CLIP, and 2e-4 is the rate for LoRA in Zanella and Ben Ayed 2024, "Low-Rank
    Few-Shot Adaptation of Vision-Language Models".
    """
    require_clip(clip)
    found = _of_model(clip)
    if dataset is None:
        return found
    distinct = len(set(require_dataset(dataset).groups))
    return replace(found, batch_size=min(found.batch_size, max(2, distinct // 2)))


def _of_model(clip: Clip) -> Recipe:
    if clip.name == NANO:
        return Recipe(
            targets="first",
            rank=8,
            alpha=16,
            batch_size=128,
            epochs=20,
            lr={"LoRA": 3e-2, "full": 1e-3, "heads": 3e-3},
            rates=NANO_RATES,
            expect="nano knows emoji by their names, most of all in Twemoji's style, and nothing "
            "else. These numbers were chosen for thermal pictures, without their test split.",
        )
    lr = {"LoRA": 2e-4, "full": 1e-5, "heads": 1e-4}
    return Recipe(
        targets="image",
        rank=8,
        alpha=16,
        batch_size=_batch_that_fits(clip),
        epochs=5,
        lr=lr,
        rates={method: _around(rate) for method, rate in lr.items()},
        expect=f"{clip.name} has read captions of the open web: emoji are a small part of what it "
        "knows, photographs a large one. These numbers are a first guess from the literature; "
        "choose your own on a validation split.",
    )


def _around(rate: float) -> tuple[float, ...]:
    """Four learning rates from a third of `rate` to ten times as much, of one digit each."""
    return tuple(float(f"{rate * factor:.0e}") for factor in (1 / 3, 1, 3, 10))


def _batch_that_fits(clip: Clip) -> int:
    """The largest power of two, from 8 to LARGEST_BATCH, that takes at most MEMORY_SHARE of memory.

    Half precision halves what is kept for matrix products and convolutions, and little else.
    """
    if clip.device.type == "cpu":
        return CPU_BATCH  # memory is no limit, but twice the pictures take twice as long
    per_pair = MB_PER_PAIR.get(clip.name, UNKNOWN_MODEL_MB) * 1e6
    if clip.compute.precision != torch.float32:
        per_pair *= 0.7
    batch = LARGEST_BATCH
    while batch > 8 and batch * per_pair > MEMORY_SHARE * clip.compute.free_memory:
        batch //= 2
    return batch
