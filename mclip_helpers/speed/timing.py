"""Times that can be compared: everything takes turns, on a machine that may be busy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def take_turns(
    steps: Mapping[str, Callable[[], object]], rounds: int = 5
) -> dict[str, list[float]]:
    """The seconds of each of `steps` in each of `rounds`, after a first round that does not count.

    All run once in each round, one after the other, so that a slow minute of the machine is slow
    for all. On a GPU each call is waited for.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            _wait()
            began = time.perf_counter()
            step()
            _wait()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(ours: list[float], theirs: list[float]) -> str:
    """How many times as long ours takes: the median over the rounds, and the range."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
