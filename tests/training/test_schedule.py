"""The learning-rate schedule."""

from __future__ import annotations

import math

import pytest

import mclip_helpers as mh


def test_warmup_cosine_has_the_values_computed_on_paper():
    """10 steps, the first 2 rising; then a cosine over 8: 1 at its start, ½ half-way."""
    rising = [0.5, 1.0]
    falling = [(1 + math.cos(math.pi * i / 8)) / 2 for i in range(8)]
    assert [mh.warmup_cosine(i, 10, 0.2) for i in range(10)] == pytest.approx(rising + falling)
    assert mh.warmup_cosine(6, 10, 0.2) == pytest.approx(0.5)
    assert mh.warmup_cosine(10, 10, 0.2) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("total", [1, 2, 3, 10, 997])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
def test_warmup_cosine_rises_to_1_and_falls_and_is_never_0_in_a_run(total: int, warmup: float):
    factors = [mh.warmup_cosine(i, total, warmup) for i in range(total)]
    top = factors.index(max(factors))
    assert max(factors) == pytest.approx(1)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert min(factors) > 0
