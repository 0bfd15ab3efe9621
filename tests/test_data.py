"""Datasets and their groups, splits without leaks, and batches."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import partition
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mclip_helpers as mh

SLOW_IS_FINE = settings(deadline=None)  # tests run on busy machines


# ------------------------------------------------------------------------ datasets and their groups


def no_picture() -> Image.Image:
    raise AssertionError("no picture is needed here")


def pair(digest: str, *captions: str, look: bytes | None = None) -> mh.Pair:
    """A pair without a picture behind it."""
    return mh.Pair(digest, captions, digest, no_picture, look)


def dataset_of(keys: list[tuple[str, str]], credit: str = "") -> mh.PictureDataset:
    """A dataset with these digests and captions, and no pictures behind them."""

    def load() -> Image.Image:
        raise AssertionError("no picture is needed here")

    pairs = [mh.Pair(str(i), (caption,), digest, load) for i, (digest, caption) in enumerate(keys)]
    return mh.PictureDataset(pairs, credit)


def components(keys: list[tuple[str, str]]) -> set[frozenset[int]]:
    """By the definition: the transitive closure of "same pixels or same caption"."""
    n = len(keys)
    linked = np.array([[a[0] == b[0] or a[1] == b[1] for b in keys] for a in keys])
    linked = linked.reshape(n, n)
    for via in range(n):
        linked |= linked[:, via : via + 1] & linked[via : via + 1, :]
    return {frozenset(np.flatnonzero(row).tolist()) for row in linked}


# The letters of digests and captions overlap: a caption must never count as somebody's pixels.
KEYS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=14)


@SLOW_IS_FINE
@given(KEYS)
def test_groups_are_the_connected_components_of_same_pixels_or_same_caption(keys):
    groups = dataset_of(keys).groups
    assert len(groups) == len(keys)
    assert partition(groups) == components(keys)


def test_a_chain_of_shared_pixels_and_captions_is_one_group():
    chain = [("p", "x"), ("q", "x"), ("q", "y"), ("r", "y"), ("s", "z")]
    assert partition(dataset_of(chain).groups) == {frozenset({0, 1, 2, 3}), frozenset({4})}


def test_plus_says_each_credit_once_and_leaves_out_empty_ones():
    a, b, none = (dataset_of([("p", "x")], credit) for credit in ("A", "B", ""))
    assert (a + a).credit == "A"
    assert (a + none).credit == (none + a).credit == "A"
    assert (a + b).credit == "A; B"


def test_subset_keeps_the_asked_order_and_the_credit_and_groups_anew():
    whole = dataset_of([("p", "x"), ("q", "y"), ("r", "z"), ("q", "w")], "A")
    part = whole.subset(iter([3, 0, 1]))
    assert part.captions == ["w", "x", "y"]
    assert part.credit == "A"
    assert partition(part.groups) == {frozenset({0, 2}), frozenset({1})}


def test_find_gives_the_first_pair_with_each_caption_in_the_asked_order():
    whole = dataset_of([("p", "x"), ("q", "y"), ("r", "x")])
    assert [pair.digest for pair in whole.find("y", "x").pairs] == ["q", "p"]


def test_find_names_every_caption_that_is_not_there():
    with pytest.raises(KeyError, match=r"'v', 'w'") as caught:
        dataset_of([("p", "x")]).find("x", "v", "w")
    assert "'x'" not in str(caught.value)


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


def numbered(n: int) -> tuple[mh.PictureDataset, SimpleNamespace]:
    """Pictures whose red is their number, and a stand-in for a model that reads it."""

    def number(picture: Image.Image) -> torch.Tensor:
        return torch.tensor(picture.getpixel((0, 0))[0])

    def load(i: int) -> Image.Image:
        return Image.new("RGB", (1, 1), (i, 0, 0))

    pairs = [mh.Pair(str(i), (str(i),), str(i), lambda i=i: load(i)) for i in range(n)]
    clip = SimpleNamespace(
        preprocess=number, tokenizer=lambda texts: torch.tensor([int(text) for text in texts])
    )
    return mh.PictureDataset(pairs), clip


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_shuffling_loader_gives_the_batches_of_distinct_batches(epoch):
    dataset, clip = numbered(50)
    batches = mh.loader(dataset, clip, 8, shuffle=True, seed=5)
    batches.batch_sampler.epoch = epoch
    expected = mh.DistinctBatches(dataset.groups, 8, seed=5)
    expected.epoch = epoch
    found = list(batches)
    assert [images.tolist() for images, _ in found] == list(expected)
    assert all(torch.equal(images, tokens) for images, tokens in found), "pairs stay together"


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
