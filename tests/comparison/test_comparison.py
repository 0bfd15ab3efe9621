"""The ways to adapt a model, one run of each, and how sure a difference between them is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from conftest import fresh

import mclip_helpers as mh
from mclip_helpers.comparison import (
    WAYS,
    Difference,
    Run,
    Task,
    adapt_batch_norm,
    choose,
    difference,
    run,
)
from mclip_helpers.comparison.runs import Adapted, adapt, measure, picture_ranks
from mclip_helpers.gradient import gradient_diff
from mclip_helpers.lora import base_state_dict
from mclip_helpers.lora.fold import folded_modules


@pytest.fixture
def task(emoji, twemoji) -> Task:
    return Task(lambda: fresh("nano"), emoji + twemoji, emoji.head(12), twemoji, batch_size=16)


def changed(before: mh.Clip, after: mh.Clip) -> set[str]:
    """The names in the state dict whose numbers differ, and those that are new."""
    old = before.model.state_dict()
    return {
        name
        for name, value in base_state_dict(after.model).items()
        if name not in old or not torch.equal(value, old[name])
    }


def test_batch_norm_alone_changes_the_image_towers_statistics_and_nothing_else(emoji):
    clip = fresh("nano")
    adapt_batch_norm(clip, emoji, 8, shown=False)
    names = changed(fresh("nano"), clip)
    assert names and all(
        name.startswith("visual.") and name.endswith(("running_mean", "running_var", "tracked"))
        for name in names
    )
    assert not any(module.training for module in clip.model.modules())


@pytest.mark.parametrize(
    ("way", "moves_statistics"),
    [("heads", False), ("full, batch norm held", False), ("full", True)],
)
def test_which_ways_move_batch_norm(task, way, moves_statistics):
    adapted = adapt(task, WAYS[way], lr=1e-4, epochs=1, seed=0, shown=False)
    clip = adapted.clip
    names = changed(fresh("nano"), clip)
    assert any("running" in name for name in names) == moves_statistics
    parameters = {name for name, _ in clip.model.named_parameters()}
    if way == "heads":
        assert all("head." in name or "text_projection" in name for name in names)
    else:
        # The temperature is not trained, and most rows of the token table are not used.
        assert len(parameters - names) <= 2
    assert adapted.trained > 0


@pytest.mark.parametrize("way", WAYS)
def test_a_run_counts_what_it_trained_and_ranks_every_picture(task, way):
    result = run(task, WAYS[way], lr=1e-3, epochs=1, seed=0, shown=False)
    assert (len(result.new), len(result.kept)) == (len(task.new), len(task.kept))
    assert all(rank >= 1 for rank in result.new + result.kept)
    assert (result.trained > 0) == (WAYS[way].prepare is not None)
    assert result.recall(1) <= result.recall(5) <= 1


def test_a_fast_task_folds_the_trunk_and_trains_the_same_adapters(task):
    found = []
    for fast in (False, True):
        adapted = adapt(
            replace(task, fast=fast), WAYS["LoRA"], lr=1e-4, epochs=1, seed=0, shown=False
        )
        assert bool(list(folded_modules(adapted.clip.model))) == fast
        found.append({n: p for n, p in adapted.clip.model.named_parameters() if ".lora_" in n})
    assert gradient_diff(*found).total < 1e-3  # of any tensors by name


def test_the_same_seed_gives_the_same_run_and_another_seed_another(task):
    first, again, other = (
        run(task, WAYS["LoRA"], lr=3e-3, epochs=2, seed=seed, shown=False) for seed in (0, 0, 1)
    )
    assert first.new == again.new
    assert first.new != other.new


def test_a_run_that_diverges_says_so_and_is_measured_where_it_stopped(task):
    result = run(task, WAYS["full"], lr=1e6, epochs=3, seed=0, shown=False)
    assert result.diverged
    assert len(result.new) == len(task.new)
    assert not run(task, WAYS["LoRA"], lr=1e-3, epochs=1, seed=0, shown=False).diverged


RATES = (1e-3, 3e-3, 1e-2, 3e-2)


def attempts(recalls: dict[tuple[float, int], int], diverged: set[tuple[float, int]] = frozenset()):
    """What is tried, in order, and a function that finds so many of ten pictures."""
    tried: list[tuple[float, int]] = []

    def attempt(lr: float, epochs: int) -> Run:
        tried.append((lr, epochs))
        found = recalls.get((lr, epochs), 0)
        return Run(1, 0.0, [1] * found + [2] * (10 - found), [], (lr, epochs) in diverged)

    return tried, attempt


def test_the_best_rate_is_tried_for_twice_as_long():
    tried, attempt = attempts({(3e-3, 10): 5, (1e-2, 10): 4, (3e-3, 20): 6})
    assert choose(attempt, RATES, 10) == (3e-3, 20)
    assert sorted(set(tried)) == sorted([*((lr, 10) for lr in RATES), (3e-3, 20)])
    _, attempt = attempts({(3e-3, 10): 5, (3e-3, 20): 4})
    assert choose(attempt, RATES, 10) == (3e-3, 10)


def test_a_try_that_diverges_is_not_chosen():
    _, attempt = attempts({(1e-2, 10): 9, (3e-3, 10): 5, (3e-3, 20): 8}, {(1e-2, 10), (3e-3, 20)})
    assert choose(attempt, RATES, 10) == (3e-3, 10)
    everything = {(lr, 10) for lr in RATES}
    with pytest.raises(ValueError, match="diverges at each"):
        choose(attempts({}, everything)[1], RATES, 10)


def test_ranks_are_those_that_evaluate_counts(nano, emoji):
    ranks = picture_ranks(nano, emoji, shown=False)
    recall = mh.evaluate(nano, emoji).image_to_text
    for k in (1, 5, 10):
        assert sum(rank <= k for rank in ranks) / len(ranks) == pytest.approx(recall[k])


def test_a_task_without_pictures_to_keep_says_nan(task):
    alone = Task(task.base, task.learn, task.new, None, task.batch_size)
    assert math.isnan(measure(Adapted(task.base()), alone, shown=False).recall_kept())


def test_a_difference_of_nothing_has_an_interval_around_zero():
    ranks = [[1, 2] * 100, [2, 1] * 100]
    found = difference(ranks, ranks)
    assert found.mean == 0 and found.low < 0 < found.high and not found.is_sure


def test_a_difference_is_that_of_the_shares_and_its_interval_holds_it():
    ours, theirs = [[1] * 60 + [9] * 40], [[1] * 40 + [9] * 60]
    found = difference(ours, theirs)
    assert found.mean == pytest.approx(0.2)
    assert found.low < 0.2 < found.high and found.is_sure
    assert str(found).startswith("+20.0 points [+1")


def test_a_difference_of_nothing_is_not_minus_nothing():
    assert str(Difference(-0.0001, -0.0004, 0.0)) == "+0.0 points [+0.0, +0.0]"


def test_an_interval_is_as_wide_as_theory_says():
    """Of one run each, and no picture in common: the standard error is √(p (1 − p) / n)."""
    generator = torch.Generator().manual_seed(0)
    hits = torch.rand(1000, generator=generator) < 0.3
    found = difference([torch.where(hits, 1, 9).tolist()], [[9] * 1000])
    p = hits.double().mean().item()
    error = math.sqrt(p * (1 - p) / 1000)
    assert found.low == pytest.approx(p - 1.96 * error, abs=0.003)
    assert found.high == pytest.approx(p + 1.96 * error, abs=0.003)


def test_pairing_makes_an_interval_narrower():
    generator = torch.Generator().manual_seed(1)
    base = torch.rand(400, generator=generator) < 0.5
    better = base | (torch.rand(400, generator=generator) < 0.1)
    ranks = [torch.where(hits, 1, 9).tolist() for hits in (better, base)]
    shuffled = torch.where(base[torch.randperm(400, generator=generator)], 1, 9).tolist()
    paired, unpaired = difference([ranks[0]], [ranks[1]]), difference([ranks[0]], [shuffled])
    assert paired.mean == pytest.approx(unpaired.mean)
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)


def test_the_spread_of_the_runs_makes_an_interval_wider():
    same = [[1] * 50 + [9] * 50] * 3
    spread = [[1] * n + [9] * (100 - n) for n in (20, 50, 80)]
    base = [[9] * 100]
    narrow, wide = difference(same, base), difference(spread, base)
    assert narrow.mean == pytest.approx(wide.mean)
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    ("ours", "theirs"), [([], [[1]]), ([[]], [[1]]), ([[1, 2], [1]], [[1]]), ([[1, 2]], [[1]])]
)
def test_what_can_not_be_compared_is_refused(ours, theirs):
    with pytest.raises(ValueError, match=r"at least one|same pictures"):
        difference(ours, theirs)
