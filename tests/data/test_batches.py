"""Batches without false negatives, drawn captions, and the loader with its workers."""

from __future__ import annotations

import itertools
import pickle
import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import load_once
from fake_pairs import numbered
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomAffine

import mclip_helpers as mh
from mclip_helpers.data import Pair
from mclip_helpers.data.batches import DrawnCaptions

SLOW_IS_FINE = settings(deadline=None)  # tests run on busy machines


# ------------------------------------------------------------------------------------------ batches


@st.composite
def grouped_batches(draw) -> tuple[list[int], int]:
    groups = draw(st.lists(st.integers(0, 9), min_size=2, max_size=40))
    distinct = len(set(groups))
    if distinct < 2:
        groups, distinct = [*groups, 10], 2
    return groups, draw(st.integers(2, distinct))


@SLOW_IS_FINE
@given(grouped_batches(), st.integers(0, 5), st.integers(0, 5))
def test_batches_are_full_without_two_of_one_group_and_use_no_pair_twice(case, seed, epoch):
    groups, batch_size = case
    sampler = mh.DistinctBatches(groups, batch_size, seed)
    sampler.epoch = epoch
    batches = list(sampler)
    assert len(sampler) == len(batches) > 0
    for batch in batches:
        assert len(batch) == len({groups[i] for i in batch}) == batch_size
    used = [i for batch in batches for i in batch]
    assert len(used) == len(set(used))
    assert set(used) <= set(range(len(groups)))
    left_over = {groups[i] for i in set(range(len(groups))) - set(used)}
    assert len(left_over) < batch_size, "what is dropped could have filled another batch"


@SLOW_IS_FINE
@given(st.integers(4, 60), st.integers(2, 9))
def test_without_duplicates_only_the_remainder_is_dropped(n, batch_size):
    batch_size = min(batch_size, n)
    sampler = mh.DistinctBatches(range(n), batch_size)
    assert len(sampler) == n // batch_size


@SLOW_IS_FINE
@given(grouped_batches(), st.integers(0, 5), st.integers(0, 5))
def test_the_order_depends_on_seed_and_epoch_alone(case, seed, epoch):
    groups, batch_size = case
    orders = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        sampler = mh.DistinctBatches(groups, batch_size, seed)
        list(sampler)  # an epoch that came before
        sampler.epoch = epoch
        orders.append(list(sampler))
    assert orders[0] == orders[1]


def test_no_two_epochs_and_no_two_seeds_have_the_same_order():
    orders = set()
    for seed, epoch in itertools.product(range(3), range(3)):
        sampler = mh.DistinctBatches(range(100), 10, seed)
        sampler.epoch = epoch
        orders.add(tuple(map(tuple, sampler)))
    assert len(orders) == 9


def one_after_the_other(groups: list, batch_size: int, order: list[int]) -> list[list[int]]:
    """The definition: each batch goes through what is left, and passes over what it has."""
    batches = []
    while True:
        batch: dict = {}
        for index in order:
            if len(batch) < batch_size:
                batch.setdefault(groups[index], index)
        if len(batch) < batch_size:
            return batches
        batches.append(list(batch.values()))
        order = [index for index in order if index not in batches[-1]]


@SLOW_IS_FINE
@given(grouped_batches(), st.integers(0, 5))
def test_each_batch_takes_the_first_that_differ_of_what_is_left(case, seed):
    groups, batch_size = case
    sampler = mh.DistinctBatches(groups, batch_size, seed)
    generator = torch.Generator().manual_seed(sampler.random_seed)
    order = torch.randperm(len(groups), generator=generator).tolist()
    assert list(sampler) == one_after_the_other(groups, batch_size, order)


def of_kinds(*counts: int) -> mh.PictureDataset:
    """So many pictures of each kind, which share a caption."""
    names = [(kind, i) for kind, count in enumerate(counts) for i in range(count)]
    return mh.PictureDataset(
        [Pair(f"{k}-{i}", (f"kind {k}",), f"{k}-{i}", blank) for k, i in names]
    )


def test_what_repeats_cost_an_epoch_is_said_with_a_batch_size_that_helps():
    dataset = of_kinds(30, 20, 10, 10)
    with pytest.warns(UserWarning, match="are left out of every epoch") as caught:
        mh.loader(dataset, SENDABLE, 4, shuffle=True)
    [warning] = caught
    assert "of 70 pairs" in str(warning.message) and "batch_size=2" in str(warning.message)
    assert mh.DistinctBatches(dataset.groups, 4).lost >= 0.4 * 70
    assert mh.DistinctBatches(dataset.groups, 2).lost <= 0.1 * 70


@pytest.mark.parametrize("counts", [(1,) * 11, (2,) * 10, (1,) * 30 + (2,) * 2])
def test_a_batch_that_is_not_filled_at_the_end_is_no_reason_to_warn(counts, recwarn):
    mh.loader(of_kinds(*counts), SENDABLE, 8, shuffle=True)
    mh.loader(of_kinds(30, 20, 10), SENDABLE, 3)
    assert not recwarn.list


@pytest.mark.parametrize("batch_size", [-1, 0, 1, 4])
def test_a_batch_size_below_two_or_above_the_number_of_groups_is_refused(batch_size):
    with pytest.raises(ValueError, match=rf"batch_size is {batch_size};.*at most 3"):
        mh.DistinctBatches([0, 0, 1, 2, 2], batch_size)


# ------------------------------------------------------------------------------------------- loader


def test_the_loader_gives_what_preprocess_and_tokenizer_give_in_order(nano):
    dataset = mh.emoji_dataset("openmoji", "val").subset(range(7))
    batches = list(mh.loader(dataset, nano, 3))
    assert [len(images) for images, _ in batches] == [3, 3, 1]
    images, tokens = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(images, torch.stack([nano.preprocess(p) for p, _ in dataset]))
    assert torch.equal(tokens, nano.tokenizer(dataset.captions))


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_shuffling_loader_gives_the_batches_of_distinct_batches(epoch):
    dataset, clip = numbered(50)
    batches = mh.loader(dataset, clip, 8, shuffle=True, seed=5)
    batches.batch_sampler.epoch = epoch
    expected = mh.DistinctBatches(dataset.groups, 8, seed=5)
    expected.epoch = epoch
    loaded = list(batches)
    assert [images.tolist() for images, _ in loaded] == list(expected)
    assert all(torch.equal(images, tokens) for images, tokens in loaded), "pairs stay together"


def test_a_shuffling_loader_keeps_equally_good_pairs_apart():
    dataset, clip = numbered(12)
    doubled = dataset + dataset
    for images, _ in mh.loader(doubled, clip, 6, shuffle=True):
        assert len(set(images.tolist())) == 6


def test_augment_changes_the_picture_before_the_models_own_transform():
    dataset, clip = numbered(4)

    def brighter(picture: Image.Image) -> Image.Image:
        return picture.point(lambda value: value + 100)

    [(images, tokens)] = mh.loader(dataset, clip, 4, augment=brighter)
    assert images.tolist() == [100, 101, 102, 103]
    assert tokens.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_draws_nothing_from_the_global_random_numbers(shuffle):
    dataset, clip = numbered(10)
    before = torch.get_rng_state()
    list(mh.loader(dataset, clip, 4, shuffle=shuffle))
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------- captions drawn by epoch


def drawn(dataset: mh.PictureDataset, batch_size: int, seed: int, epoch: int) -> dict[int, int]:
    """Which caption of each picture an epoch takes."""
    sampler = DrawnCaptions(dataset, batch_size, seed)
    sampler.epoch = epoch
    return {i: k for batch in sampler for i, k in batch}


@pytest.mark.parametrize("epoch", [0, 3])
def test_with_one_caption_each_the_batches_are_those_of_distinct_batches(epoch):
    dataset, _ = numbered(30)
    sampler = DrawnCaptions(dataset, 7, seed=2)
    expected = mh.DistinctBatches(dataset.groups, 7, seed=2)
    sampler.epoch = expected.epoch = epoch
    assert list(sampler) == [[(i, 0) for i in batch] for batch in expected]
    assert len(sampler) == len(expected)


def test_an_epoch_draws_one_caption_of_each_picture_whatever_the_batches():
    dataset, _ = numbered(40, captions=4)
    assert drawn(dataset, 8, 1, 5) == drawn(dataset, 10, 1, 5)
    assert len(drawn(dataset, 8, 1, 5)) == 40
    assert len({tuple(drawn(dataset, 8, s, e).items()) for s in range(3) for e in range(3)}) == 9


def test_every_caption_has_its_turn_about_as_often_as_the_others():
    dataset, _ = numbered(50, captions=4)
    counts = Counter(k for epoch in range(40) for k in drawn(dataset, 10, 0, epoch).values())
    assert set(counts) == {0, 1, 2, 3}
    assert all(abs(count - 500) < 100 for count in counts.values())
    first = {drawn(dataset, 10, 0, epoch)[0] for epoch in range(40)}
    assert first == {0, 1, 2, 3}


def test_a_shuffling_loader_gives_the_drawn_caption_and_an_ordered_one_the_first():
    dataset, clip = numbered(24, captions=3)
    batches = mh.loader(dataset, clip, 6, shuffle=True, seed=4)
    mh.set_epoch(batches, 2)
    expected = drawn(dataset, 6, 4, 2)
    for images, tokens in batches:
        assert tokens.tolist() == [i + 100 * expected[i] for i in images.tolist()]
    [(images, tokens)] = mh.loader(dataset, clip, 24)
    assert tokens.tolist() == images.tolist() == list(range(24))


# ------------------------------------------------------------------------------ epochs and workers


def noisy(picture: Image.Image) -> Image.Image:
    """An augmentation that draws from all three kinds of random numbers."""
    draws = [random.random(), np.random.random(), torch.rand(()).item()]
    return Image.new("RGB", (1, 1), tuple(int(256 * value) for value in draws))


def colour(picture: Image.Image) -> torch.Tensor:
    return torch.tensor(picture.getpixel((0, 0)))


def lengths(texts: list[str]) -> torch.Tensor:
    return torch.tensor([len(text) for text in texts])


SENDABLE = SimpleNamespace(preprocess=colour, tokenizer=lengths)


def blank() -> Image.Image:
    return Image.new("RGB", (1, 1))


def sendable(n: int) -> mh.PictureDataset:
    """A dataset that pickle can send to a worker."""
    return mh.PictureDataset([Pair(str(i), ("x" * i,), str(i), blank) for i in range(1, n + 1)])


def test_what_workers_draw_depends_on_seed_and_epoch_and_not_on_the_epochs_before():
    runs = []
    for seed, epochs in ((0, [0, 1, 2]), (0, [2]), (1, [2]), (0, [1])):
        torch.manual_seed(len(runs))
        options = {"shuffle": True, "seed": seed, "augment": noisy, "workers": 1}
        batches = mh.loader(sendable(6), SENDABLE, 3, **options)
        for epoch in epochs:
            mh.set_epoch(batches, epoch)
            drawn_colours = torch.cat([images for images, _ in batches])
        runs.append(drawn_colours)
    whole, resumed, other_seed, other_epoch = runs
    assert torch.equal(whole, resumed)
    assert not torch.equal(whole, other_seed)
    assert not torch.equal(whole, other_epoch)


def test_set_epoch_refuses_a_loader_that_does_not_shuffle():
    with pytest.raises(ValueError, match="shuffle=True"):
        mh.set_epoch(mh.loader(sendable(4), SENDABLE, 2), 1)


@pytest.mark.parametrize("name", ["nano", "MobileCLIP2-S0"])
def test_what_a_worker_needs_survives_the_way_there(name):
    clip = load_once(name)
    dataset = mh.emoji_dataset("twemoji", "val").subset(range(3))
    batches = mh.loader(dataset, clip, 3, augment=RandomAffine(0))
    sent, collate = pickle.loads(pickle.dumps((batches.dataset, batches.collate_fn)))
    there = collate([sent[i] for i in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(next(iter(batches)), there, strict=True))


def test_a_worker_that_starts_afresh_gives_the_same_batches():
    """As on Windows and macOS, where nothing is inherited and everything is sent."""
    clip = load_once("nano")
    dataset = mh.emoji_dataset("twemoji", "val").subset(range(6))
    here = mh.loader(dataset, clip, 3, shuffle=True)
    there = mh.loader(dataset, clip, 3, shuffle=True, workers=1)
    there.multiprocessing_context = "spawn"
    both = list(zip(here, there, strict=True))
    assert len(both) == 2
    for one, other in both:
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
