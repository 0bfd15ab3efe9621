"""The learning-rate schedule."""

from __future__ import annotations

import math

WARMUP = 0.1  # the share of the steps in which the learning rate rises


def warmup_cosine(step: int, total: int, warmup: float = WARMUP) -> float:
    """The factor on the learning rate at `step` of `total`, counted from 0.

    It rises linearly over the first `warmup` share of the steps (at least one) and then falls to 0
    along half a cosine. The first step already has a factor above 0.
    """
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
