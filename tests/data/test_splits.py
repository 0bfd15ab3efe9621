"""Splits without leaks."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from fake_pairs import is_linked, linked_pairs, pair, strangers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mclip_helpers as mh
from mclip_helpers.data import Pair
from mclip_helpers.data.duplicates import HASH_BYTES

SLOW_IS_FINE = settings(deadline=None)  # tests run on busy machines


@SLOW_IS_FINE
@given(linked_pairs(), st.integers(0, 3), st.sampled_from([(0.1, 0.2), (0.3, 0.3), (0, 0.5)]))
def test_split_never_puts_linked_pairs_on_two_sides(pairs, seed, shares):
    try:
        parts = mh.split(mh.PictureDataset(pairs), *shares, seed=seed)
    except mh.DataError:
        return  # too many pairs are connected; another test asks when
    assert sorted(map(id, pairs)) == sorted(id(p) for part in parts.values() for p in part.pairs)
    for one, other in itertools.combinations(parts.values(), 2):
        assert not any(is_linked(a, b) for a in one.pairs for b in other.pairs)


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


def test_split_loads_the_pictures_whose_hash_is_not_known():
    def load(seed: int, size: int) -> Image.Image:
        patches = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        return Image.fromarray(patches).resize((size, size), Image.Resampling.BICUBIC)

    pairs = [
        Pair(f"{seed}/{size}", (f"{seed}/{size}",), f"{seed}/{size}", partial(load, seed, size))
        for seed in range(10)
        for size in (90, 200)
    ]
    parts = mh.split(mh.PictureDataset(pairs), val=0.2, test=0.2)
    assert tuple(map(len, parts.values())) == (12, 4, 4)
    seeds = [{p.name.split("/")[0] for p in part.pairs} for part in parts.values()]
    assert [len(s) for s in seeds] == [6, 2, 2]


def test_one_caption_that_links_nearly_all_is_named_with_how_many_and_what_to_do():
    pairs = strangers(20).pairs
    generic = [replace(p, captions=(*p.captions, "a photo")) for p in pairs[:18]]
    dataset = mh.PictureDataset(generic + pairs[18:])
    with pytest.raises(mh.DataError) as caught:
        mh.split(dataset)
    [problem] = caught.value.problems
    assert "the largest of 18" in problem
    assert "'a photo' links 18" in problem
    assert "captions of their own" in problem
    assert "dataset.subset" in problem


def test_pictures_that_all_look_the_same_are_not_blamed_on_a_caption():
    same = [pair(str(i), str(i), perceptual_hash=bytes(HASH_BYTES)) for i in range(20)]
    with pytest.raises(mh.DataError, match=r"the largest of 20\. They look the same"):
        mh.split(mh.PictureDataset(same))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_pairs_to_split_are_refused(n):
    with pytest.raises(mh.DataError, match="It takes more pictures"):
        mh.split(strangers(n))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.2), (0.1, 1.2), (float("nan"), 0.1)])
def test_shares_that_leave_nothing_to_train_on_are_refused(shares):
    with pytest.raises(
        ValueError, match=r"sum below 1|(val|test) is .*; it must be a finite number"
    ):
        mh.split(strangers(10), *shares)
