"""What a training step of each way costs: time, beside the others, and what autograd keeps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from ..gradient import trace
from ..model import Clip
from ..speed import take_turns
from ..training.objective import Objective
from ..training.state import trainable_parameters
from .ways import Way


@dataclass(frozen=True)
class Cost:
    """One step: its `seconds` (the median), the bytes that autograd has `kept` for the backward
    pass, and how many parameters are `trained`.
    """

    seconds: float
    kept: int
    trained: int

    @property
    def state(self) -> int:
        """Bytes of the gradients and of AdamW's two averages, in fp32."""
        return 3 * 4 * self.trained


def costs(
    base: Callable[[], Clip],
    ways: Mapping[str, Way],
    images: torch.Tensor,
    tokens: torch.Tensor,
    rounds: int = 5,
) -> dict[str, Cost]:
    """The cost of a step (forward and backward) of each of `ways` that trains something.

    `base()` loads a fresh model for each, and all take turns, `rounds` times after a first one that
    does not count: the machine may be busy, but it is for all of them. Compare the seconds with
    each other; what is kept depends on the model and the batch alone.
    """
    clips, kept = {}, {}
    for name, way in ways.items():
        if way.prepare is None:
            continue
        clips[name] = base()
        way.prepare(clips[name])
        with trace(clips[name].model) as tape:
            _step(clips[name], images, tokens)
        kept[name] = tape.graph.saved.total
    steps = {name: partial(_step, clip, images, tokens) for name, clip in clips.items()}
    seconds = take_turns(steps, rounds)
    found = {}
    for name, clip in clips.items():
        numbers = sum(p.numel() for p in trainable_parameters(clip.model).values())
        found[name] = Cost(statistics.median(seconds[name]), kept[name], numbers)
    return found


def _step(clip: Clip, images: torch.Tensor, tokens: torch.Tensor) -> None:
    model = clip.model.train()
    Objective.plain(clip).backward(images, tokens)
    for parameter in model.parameters():
        parameter.grad = None
    model.eval()
