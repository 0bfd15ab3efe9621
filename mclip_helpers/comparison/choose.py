"""Which learning rate, and how many epochs: chosen for each way by the same five tries."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .runs import Run


def choose(
    attempt: Callable[[float, int], Run], rates: Sequence[float], epochs: int
) -> tuple[float, int]:
    """The learning rate and the number of epochs for one way.

    `attempt(lr, epochs)` trains on one part of what there is to learn from, and evaluates on
    another. Each of the rates is tried for `epochs`, and the best of them for twice as long. R@1
    decides; a try that diverged is out. ValueError if all are.
    """

    def recall(tried: tuple[float, int]) -> float:
        result = attempt(*tried)
        return -1.0 if result.diverged else result.recall()

    best = max(((lr, epochs) for lr in rates), key=recall)
    if recall(best) < 0:
        raise ValueError(f"training diverges at each of the learning rates {rates}")
    return max(best, (best[0], 2 * epochs), key=recall)
