"""Datasets and their groups, splits without leaks, and batches."""

from __future__ import annotations

import itertools
import pickle
import random
import tracemalloc
from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import load_once, partition
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomAffine

import mclip_helpers as mh
from mclip_helpers.data import pairs as data
from mclip_helpers.data.images import LOOK_BYTES

SLOW_IS_FINE = settings(deadline=None)  # tests run on busy machines


# ------------------------------------------------------------------------ datasets and their groups


def numbered(n: int, captions: int = 1) -> tuple[mh.PictureDataset, SimpleNamespace]:
    """Pictures whose red is their number, and a stand-in for a model that reads it.

    The caption is the number too; each further caption of a picture is by 100 more.
    """

    def number(picture: Image.Image) -> torch.Tensor:
        return torch.tensor(picture.getpixel((0, 0))[0])

    def load(i: int) -> Image.Image:
        return Image.new("RGB", (1, 1), (i, 0, 0))

    pairs = [
        mh.Pair(str(i), tuple(str(i + 100 * k) for k in range(captions)), str(i), partial(load, i))
        for i in range(n)
    ]
    clip = SimpleNamespace(
        preprocess=number, tokenizer=lambda texts: torch.tensor([int(text) for text in texts])
    )
    return mh.PictureDataset(pairs), clip


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


# --------------------------------------------------------------------------------- several captions


def test_the_second_key_of_a_dataset_is_the_caption_and_the_first_is_the_default():
    dataset, _ = numbered(3, captions=2)
    assert [dataset[1][1], dataset[1, 0][1], dataset[1, 1][1]] == ["1", "1", "101"]
    assert dataset[1, 1][0].getpixel((0, 0)) == (1, 0, 0)
    with pytest.raises(IndexError):
        dataset[1, 2]


def test_all_captions_stand_in_order_beside_the_groups_of_their_pictures():
    pairs = [pair("p", "x", "y"), pair("q", "z"), pair("r", "w", "y", "v"), pair("s", "u")]
    dataset = mh.PictureDataset(pairs)
    assert dataset.captions == ["x", "z", "w", "u"]
    assert dataset.all_captions == ["x", "y", "z", "w", "y", "v", "u"]
    assert partition(dataset.groups) == {frozenset({0, 2}), frozenset({1}), frozenset({3})}
    a, b, _, d = dataset.groups
    assert dataset.caption_groups == [a, a, b, a, a, a, d]


def test_find_looks_through_all_captions():
    whole = mh.PictureDataset([pair("p", "x", "y"), pair("q", "y", "z")])
    assert [p.digest for p in whole.find("z", "y").pairs] == ["q", "p"]


# ------------------------------------------------------------------------------------------- split


def look_of(bits: int) -> bytes:
    return bits.to_bytes(LOOK_BYTES, "big")


RANDOM_LOOKS = st.integers(0, 2**30).map(
    lambda seed: int.from_bytes(np.random.default_rng(seed).bytes(LOOK_BYTES), "big")
)


@st.composite
def linked_pairs(draw) -> list[mh.Pair]:
    """Pairs that share pixels, captions and looks in all sorts of chains."""
    letters = st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    # Looks are rows of ones: two lengths differ in as many bits as they are apart.
    lengths = st.integers(0, 8 * LOOK_BYTES)
    return [
        pair(
            f"{draw(letters)}{draw(letters)}",
            *dict.fromkeys(
                f"{draw(letters)}{draw(letters)}" for _ in range(draw(st.integers(1, 3)))
            ),
            look=look_of((1 << draw(lengths)) - 1 if draw(st.booleans()) else draw(RANDOM_LOOKS)),
        )
        for _ in range(draw(st.integers(0, 30)))
    ]


def is_linked(one: mh.Pair, other: mh.Pair) -> bool:
    """By the definition."""
    apart = int.from_bytes(one.look, "big") ^ int.from_bytes(other.look, "big")
    return (
        one.digest == other.digest
        or bool(set(one.captions) & set(other.captions))
        or apart.bit_count() <= data.SAME_LOOK
    )


@SLOW_IS_FINE
@given(linked_pairs(), st.integers(0, 3), st.sampled_from([(0.1, 0.2), (0.3, 0.3), (0, 0.5)]))
def test_split_never_puts_linked_pairs_on_two_sides(pairs, seed, shares):
    try:
        parts = mh.split(mh.PictureDataset(pairs), *shares, seed=seed)
    except mh.DataError:
        return  # too much hangs together; another test asks when
    assert sorted(map(id, pairs)) == sorted(id(p) for part in parts.values() for p in part.pairs)
    for one, other in itertools.combinations(parts.values(), 2):
        assert not any(is_linked(a, b) for a in one.pairs for b in other.pairs)


@SLOW_IS_FINE
@given(linked_pairs(), st.integers(1, 40))
def test_what_is_linked_are_the_components_whatever_the_rows_at_a_time(pairs, rows):
    numbers = data._linked(mh.PictureDataset(pairs), rows)
    n = len(pairs)
    linked = np.array([[is_linked(a, b) for b in pairs] for a in pairs]).reshape(n, n)
    for via in range(n):
        linked |= linked[:, via : via + 1] & linked[via : via + 1, :]
    assert partition(numbers) == {frozenset(np.flatnonzero(row).tolist()) for row in linked}


def strangers(n: int) -> mh.PictureDataset:
    """Pairs of which no two have anything in common."""
    looks = np.random.default_rng(0).bytes(n * LOOK_BYTES)
    cut = [looks[i * LOOK_BYTES : (i + 1) * LOOK_BYTES] for i in range(n)]
    return mh.PictureDataset([pair(str(i), str(i), look=cut[i]) for i in range(n)], "credit")


@pytest.mark.parametrize(
    ("n", "shares", "sizes"),
    [
        (100, {}, (70, 10, 20)),
        (100, {"val": 0.25, "test": 0.25}, (50, 25, 25)),
        (100, {"val": 0}, (80, 0, 20)),
        (4, {}, (2, 1, 1)),
        (3, {}, (1, 1, 1)),
    ],
)
def test_split_gives_each_part_its_share_in_the_order_of_the_dataset(n, shares, sizes):
    parts = mh.split(strangers(n), **shares)
    assert list(parts) == ["train", "val", "test"]
    assert tuple(map(len, parts.values())) == sizes
    for part in parts.values():
        assert part.credit == "credit"
        assert part.captions == sorted(part.captions, key=int)


def test_who_goes_where_depends_on_the_seed_alone():
    tests = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(tests))
        before = torch.get_rng_state()
        tests.append(mh.split(strangers(50), seed=seed)["test"].captions)
        assert torch.equal(torch.get_rng_state(), before)
    assert tests[0] == tests[1] != tests[2]


def test_split_looks_at_the_pictures_where_their_look_is_not_known():
    def load(seed: int, size: int) -> Image.Image:
        patches = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        return Image.fromarray(patches).resize((size, size), Image.Resampling.BICUBIC)

    pairs = [
        mh.Pair(f"{seed}/{size}", (f"{seed}/{size}",), f"{seed}/{size}", partial(load, seed, size))
        for seed in range(10)
        for size in (90, 200)
    ]
    parts = mh.split(mh.PictureDataset(pairs), val=0.2, test=0.2)
    assert tuple(map(len, parts.values())) == (12, 4, 4)
    seeds = [{p.name.split("/")[0] for p in part.pairs} for part in parts.values()]
    assert [len(s) for s in seeds] == [6, 2, 2]


def test_one_caption_that_links_nearly_all_is_named_with_how_many_and_what_to_do():
    generic = [pair(p.digest, *p.captions, "a photo", look=p.look) for p in strangers(20).pairs]
    dataset = mh.PictureDataset(generic[:18] + strangers(20).pairs[18:])
    with pytest.raises(mh.DataError) as caught:
        mh.split(dataset)
    [problem] = caught.value.problems
    assert "the largest of 18" in problem
    assert "'a photo' links 18" in problem
    assert "captions of their own" in problem
    assert "dataset.subset" in problem


def test_pictures_that_all_look_the_same_are_not_blamed_on_a_caption():
    same = [pair(str(i), str(i), look=look_of(0)) for i in range(20)]
    with pytest.raises(mh.DataError, match=r"the largest of 20\. They look the same"):
        mh.split(mh.PictureDataset(same))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_pairs_to_split_are_refused(n):
    with pytest.raises(mh.DataError, match="It takes more pictures"):
        mh.split(strangers(n))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.2), (0.1, 1.2), (float("nan"), 0.1)])
def test_shares_that_leave_nothing_to_train_on_are_refused(shares):
    with pytest.raises(ValueError, match="sum below 1"):
        mh.split(strangers(10), *shares)


def test_comparing_all_pictures_takes_memory_for_some_rows_at_a_time_alone():
    dataset = strangers(3000)
    tracemalloc.start()
    data._linked(dataset, rows=10)
    _, few = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert few < 3000 * 3000 / 4, "less than a byte for every fourth of the pairs of pictures"


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


# ------------------------------------------------------------------------- captions drawn by epoch


def drawn(dataset: mh.PictureDataset, batch_size: int, seed: int, epoch: int) -> dict[int, int]:
    """Which caption of each picture an epoch takes."""
    sampler = data.DrawnCaptions(dataset, batch_size, seed)
    sampler.epoch = epoch
    return {i: k for batch in sampler for i, k in batch}


@pytest.mark.parametrize("epoch", [0, 3])
def test_with_one_caption_each_the_batches_are_those_of_distinct_batches(epoch):
    dataset, _ = numbered(30)
    sampler = data.DrawnCaptions(dataset, 7, seed=2)
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
    return mh.PictureDataset([mh.Pair(str(i), ("x" * i,), str(i), blank) for i in range(1, n + 1)])


def test_what_workers_draw_depends_on_seed_and_epoch_and_not_on_the_epochs_before():
    runs = []
    for seed, epochs in ((0, [0, 1, 2]), (0, [2]), (1, [2]), (0, [1])):
        torch.manual_seed(len(runs))
        options = {"shuffle": True, "seed": seed, "augment": noisy, "workers": 1}
        batches = mh.loader(sendable(6), SENDABLE, 3, **options)
        for epoch in epochs:
            mh.set_epoch(batches, epoch)
            found = torch.cat([images for images, _ in batches])
        runs.append(found)
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
    there = pickle.loads(pickle.dumps((batches.dataset, batches.collate_fn)))
    sent, collate = there
    for here, found in zip(next(iter(batches)), collate([sent[i] for i in range(3)]), strict=True):
        assert torch.equal(here, found)


def test_a_worker_that_starts_afresh_gives_the_same_batches():
    """As on Windows and macOS, where nothing is inherited and everything is sent."""
    clip = load_once("nano")
    dataset = mh.emoji_dataset("twemoji", "val").subset(range(6))
    here = mh.loader(dataset, clip, 3, shuffle=True)
    there = mh.loader(dataset, clip, 3, shuffle=True, workers=1)
    there.multiprocessing_context = "spawn"
    found = list(zip(here, there, strict=True))
    assert len(found) == 2
    for one, other in found:
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
