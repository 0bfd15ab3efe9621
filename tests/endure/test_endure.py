"""A few rounds of what `make endure` does hundreds of times."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from endure import Series, recording, saving, training


@pytest.fixture(autouse=True)
def one_thread():
    """A fork has no other: torch must not wait for threads that are not there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_killed_runs_go_on_to_the_same_bits(tmp_path):
    series = training(2, workers=0, seed=0, folder=tmp_path)
    assert series.failures == []
    assert not series.meanwhile.startswith("none"), "nothing was killed"


def test_a_killed_save_leaves_the_old_adapter_or_the_new_one(tmp_path):
    assert saving(5, seed=0, folder=tmp_path).failures == []


def test_recordings_leave_nothing():
    assert recording(20).failures == []


def test_a_failure_is_counted_and_named():
    series = Series("runs", "hold", 3, failures=["run 1: it could not go on"])
    assert series.row[3] == "2 of 3"
    assert dataclasses.replace(series, failures=[]).row[3] == "3 of 3"
