"""Datasets, their captions, and what is equally good."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from conftest import partition
from fake_pairs import components, numbered, pair
from hypothesis import given, settings
from hypothesis import strategies as st

import mclip_helpers as mh
from mclip_helpers.data.pairs import LONGEST_PROBLEM, shown

SLOW_IS_FINE = settings(deadline=None)  # tests run on busy machines


def dataset_of(keys: list[tuple[str, str]], credit: str = "") -> mh.PictureDataset:
    """A dataset with these digests and captions, and without pictures."""
    return mh.PictureDataset([pair(digest, caption) for digest, caption in keys], credit)


# The letters of digests and captions overlap: a caption must never count as somebody's pixels.
KEYS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=14)


@SLOW_IS_FINE
@given(KEYS)
def test_groups_are_the_connected_components_of_same_pixels_or_same_caption(keys):
    groups, n = dataset_of(keys).groups, len(keys)
    linked = np.array([[a[0] == b[0] or a[1] == b[1] for b in keys] for a in keys], bool)
    assert len(groups) == n
    assert partition(groups) == components(linked.reshape(n, n))


def test_a_chain_of_shared_pixels_and_captions_is_one_group():
    chain = [("p", "x"), ("q", "x"), ("q", "y"), ("r", "y"), ("s", "z")]
    assert partition(dataset_of(chain).groups) == {frozenset({0, 1, 2, 3}), frozenset({4})}


def test_plus_keeps_each_credit_once_and_leaves_out_empty_ones():
    a, b, none = (dataset_of([("p", "x")], credit) for credit in ("A", "B", ""))
    assert (a + a).credit == "A"
    assert (a + none).credit == (none + a).credit == "A"
    assert (a + b).credit == "A; B"
    assert ((a + b) + a).credit == "A; B", "a part that is a sum itself"


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


def test_find_searches_all_captions():
    whole = mh.PictureDataset([pair("p", "x", "y"), pair("q", "y", "z")])
    assert [p.digest for p in whole.find("z", "y").pairs] == ["q", "p"]


def test_a_data_error_counts_all_problems_and_shows_the_first_fifty():
    message = str(mh.DataError("here", [f"p{i};" for i in range(60)]))
    assert message.startswith("60 problems in here")
    assert "p49;" in message
    assert "p50;" not in message
    assert message.endswith("and 10 more")
    assert str(mh.DataError("here", ["p"])).startswith("1 problem in here")


def test_a_data_error_is_the_same_after_pickling_and_shows_nothing_that_is_invisible():
    error = mh.DataError("here", ["a\nb\x1b[2J", "x" * 5_000])
    copy = pickle.loads(pickle.dumps(error))
    assert copy.problems == error.problems
    assert str(copy) == str(error)
    assert copy.problems[0] == r"a\nb\x1b[2J"
    assert len(copy.problems[1]) == LONGEST_PROBLEM


@pytest.mark.parametrize("most", [10, 11, 12, 100])
def test_a_text_is_shown_whole_or_with_its_start_and_end(most):
    text = "".join(chr(ord("a") + i % 26) for i in range(most))
    assert shown(text, most) == text
    cut = shown(text + "z", most)
    assert len(cut) == most
    assert cut.startswith(text[: most // 2])
    assert cut.endswith("z")
