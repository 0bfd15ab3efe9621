"""Several ways side by side, and which of them to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..display import Drawable
from .bootstrap import Difference, difference
from .runs import Run

# From what costs least time and memory to what costs most.
BY_COST = ("batch norm", "heads", "LoRA, first layers", "LoRA", "full, batch norm held", "full")


@dataclass(frozen=True)
class Comparison(Drawable):
    """The base, and the runs of each way with their learning rate and epochs, on one test split."""

    base: Run
    runs: Mapping[str, Sequence[Run]]
    settings: Mapping[str, tuple[float, int] | None]

    def mean(self, way: str, k: int = 1) -> float:
        """R@k of the new pictures, over the seeds."""
        return _mean([run.recall(k) for run in self.runs[way]])

    def kept(self, way: str) -> float:
        """R@1 of the pictures that were not to be forgotten, over the seeds; NaN without any."""
        return _mean([run.recall_kept() for run in self.runs[way]])

    def gain(self, way: str, over: str | None = None) -> Difference:
        """R@1 more than another way has, or than the base."""
        others = [self.base] if over is None else self.runs[over]
        return difference([run.new for run in self.runs[way]], [run.new for run in others])

    def loss_of_old(self, way: str) -> Difference:
        """R@1 of the kept pictures, less than the base's. ValueError without such pictures."""
        return difference([self.base.kept], [run.kept for run in self.runs[way]])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True)
class Recommendation:
    """The way to begin with: the cheapest that nothing is surely better than.

    None if no way is surely better than the base. `best` has the highest R@1. `gain` is what `best`
    has more than the base. `equals` are the other ways that can't be told from `best`.
    """

    way: str | None
    best: str
    gain: Difference
    equals: tuple[str, ...]


def recommend(comparison: Comparison) -> Recommendation:
    """What a comparison says, as far as its test pictures can tell (95 % intervals)."""
    best = max(comparison.runs, key=comparison.mean)
    gain = comparison.gain(best)
    others = [way for way in comparison.runs if way != best]
    equals = [way for way in others if not comparison.gain(best, way).is_sure]
    better = [way for way in (best, *equals) if comparison.gain(way).low > 0]
    way = min(better, key=BY_COST.index) if gain.low > 0 else None
    return Recommendation(way, best, gain, tuple(equals))
