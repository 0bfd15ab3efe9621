"""How sure a difference between two ways is, over the test pictures and over the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

RESAMPLES = 10_000
CHUNK = 500  # resamples at a time: memory for CHUNK × pictures numbers


@dataclass(frozen=True)
class Difference:
    """The share of hits of one way minus that of another, with its interval of 95 %."""

    mean: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        # Adding 0 turns a rounded −0 into 0.
        points = (round(100 * value, 1) + 0.0 for value in (self.mean, self.low, self.high))
        return "{:+.1f} points [{:+.1f}, {:+.1f}]".format(*points)


def difference(
    ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]], k: int = 1, seed: int = 0
) -> Difference:
    """R@k of `ours` minus R@k of `theirs`, by a paired bootstrap (Efron and Tibshirani 1993).

    Each has, for each of its runs, the rank of every test picture, in the same order. Each resample
    draws pictures with replacement, the same for both, and runs of each with replacement; the
    interval goes from the 2.5th to the 97.5th percentile. ValueError if there is nothing to draw
    from, or the pictures are not as many.
    """
    mine, other = (_hits(side, k) for side in (ours, theirs))
    if mine.shape[1] != other.shape[1]:
        raise ValueError(
            f"ranks of {mine.shape[1]} and of {other.shape[1]} pictures: a paired comparison needs "
            f"the same pictures on both sides"
        )
    generator = torch.Generator().manual_seed(seed)
    parts = [_resample(mine, other, CHUNK, generator) for _ in range(RESAMPLES // CHUNK)]
    low, high = torch.cat(parts).quantile(torch.tensor([0.025, 0.975], dtype=mine.dtype)).tolist()
    return Difference((mine.mean() - other.mean()).item(), low, high)


def _hits(runs: Sequence[Sequence[int]], k: int) -> torch.Tensor:
    """(runs, pictures), 1 where the rank is at most k."""
    if not runs or not runs[0] or len({len(ranks) for ranks in runs}) > 1:
        raise ValueError("give the ranks of at least one run, as many of each, and at least one")
    return (torch.tensor(runs) <= k).double()


def _resample(
    mine: torch.Tensor, other: torch.Tensor, count: int, generator: torch.Generator
) -> torch.Tensor:
    """The difference in each of `count` resamples."""
    pictures = mine.shape[1]
    drawn = torch.randint(pictures, (count, pictures), generator=generator)
    weights = torch.zeros(count, pictures, dtype=mine.dtype)
    weights.scatter_add_(1, drawn, torch.full_like(drawn, 1, dtype=mine.dtype) / pictures)
    share = []
    for hits in (mine, other):
        of_runs = hits @ weights.T  # (runs, count)
        runs = torch.randint(len(hits), (len(hits), count), generator=generator)
        share.append(of_runs.gather(0, runs).mean(0))
    return share[0] - share[1]
