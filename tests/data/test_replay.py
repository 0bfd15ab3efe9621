"""Replay: a share of pictures that the model knows."""

from __future__ import annotations

import pytest
from fake_pairs import pair

import mclip_helpers as mh


def some(n: int, name: str) -> mh.PictureDataset:
    return mh.PictureDataset([pair(f"{name}{i}", f"{name}{i}") for i in range(n)], f"by {name}")


@pytest.mark.parametrize(("share", "known"), [(0.5, 30), (0.25, 10), (0, 0), (0.6, 45)])
def test_the_known_pictures_are_that_share_and_none_comes_twice(share, known):
    mixed = mh.with_replay(some(30, "new"), some(50, "old"), share)
    names = [p.name for p in mixed.pairs]
    assert names[:30] == [f"new{i}" for i in range(30)]
    assert len(names) == 30 + known == len(set(names))
    assert all(name.startswith("old") for name in names[30:])
    assert "by new" in mixed.credit


def test_which_are_drawn_depends_on_the_seed_alone():
    drawn = [
        [p.name for p in mh.with_replay(some(5, "new"), some(50, "old"), seed=seed).pairs]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_too_few_known_ones_are_refused_with_the_largest_share():
    with pytest.raises(ValueError, match=r"takes 90 known ones, and there are 30; .* 0\.25 or"):
        mh.with_replay(some(90, "new"), some(30, "old"))


@pytest.mark.parametrize("share", [-0.1, 1, "half", None, float("nan"), True])
def test_a_share_that_can_not_be_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        mh.with_replay(some(3, "new"), some(3, "old"), share)


def test_anything_but_datasets_is_refused():
    with pytest.raises(TypeError, match="new is a list"):
        mh.with_replay([], some(3, "old"))
    with pytest.raises(TypeError, match="known is a NoneType"):
        mh.with_replay(some(3, "new"), None)
