"""The learning-rate schedule."""

from __future__ import annotations

import math

from ..checks import finite_number, whole_number

WARMUP = 0.1  # the share of the steps in which the learning rate rises


def warmup_cosine(step: int, total: int, warmup: float = WARMUP) -> float:
    """The factor on the learning rate at `step` of `total`, counted from 0.

    It rises linearly over the first `warmup` share of the steps (at least one) and then falls to 0
    along half a cosine, where it stays. The first step already has a factor above 0. ValueError
    for numbers that can't be these.
    """
    step, total = whole_number("step", step, least=0), whole_number("total", total, least=1)
    warmup = finite_number("warmup", warmup, least=0, most=1)
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    fallen = math.pi * (step - rising) / max(1, total - rising)
    return 0.5 * (1 + math.cos(min(math.pi, fallen)))
