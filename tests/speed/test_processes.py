"""Two processes, each with half of the batch, take the step of one; and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from two_processes import alone

import mclip_helpers as mh
from mclip_helpers.data.batches import DrawnCaptions
from mclip_helpers.gradient import gradient_diff

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    """What each of two processes has found."""
    folder = tmp_path_factory.mktemp("processes")
    paths = [str(HERE), str(HERE.parent.parent), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    script = HERE / "two_processes.py"
    running = [
        subprocess.Popen(
            [sys.executable, script, str(rank), folder],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def single() -> dict:
    return alone()


@pytest.mark.parametrize("how", ["plain", "chunks", "classes"])
def test_two_processes_have_the_loss_and_the_gradients_of_one(found, single, how: str):
    for process in found:
        assert process[how]["loss"].item() == pytest.approx(single[how]["loss"].item(), rel=1e-12)
        diff = gradient_diff(process[how], single[how])
        assert diff.total < 1e-10 and diff.worst[1] < 1e-10
        assert diff.modules["logit_scale"] < 1e-10


def test_both_end_with_the_same_weights_which_are_those_of_one_process(found, single):
    for name, value in single["run"].items():
        assert torch.equal(found[0]["run"][name], found[1]["run"][name])
        torch.testing.assert_close(found[0]["run"][name], value, rtol=1e-3, atol=1e-5)


def test_processes_that_begin_with_other_adapters_are_refused(found):
    for process in found:
        assert "the start of process 1 is not that of process 0" in process["refused"]["message"]


def test_each_process_loads_its_part_of_every_batch(emoji: mh.PictureDataset):
    whole = list(DrawnCaptions(emoji, 8, seed=3))
    parts = [list(DrawnCaptions(emoji, 8, seed=3, share=(part, 2))) for part in range(2)]
    assert [[*a, *b] for a, b in zip(*parts, strict=True)] == whole
    with pytest.raises(ValueError, match="must be a multiple of their number, 3"):
        DrawnCaptions(emoji, 8, share=(0, 3))


def test_gathered_without_their_gradient_the_towers_get_half_of_it():
    """What many scripts do: features of other processes are mere numbers.

    Each process still finds the whole gradient of its own rows. But the mean over processes, which
    is right for what all of them share (the temperature), divides it by their number.
    """
    torch.manual_seed(0)
    a, b = (torch.randn(8, 4).double() for _ in range(2))
    weight = torch.eye(4).double().requires_grad_()  # a tower
    scale = torch.tensor(10.0).double().requires_grad_()
    mh.contrastive_loss(a @ weight, b, scale * 1).backward()
    right = {"tower": weight.grad, "scale": scale.grad}
    found = {"tower": torch.zeros_like(weight), "scale": torch.zeros_like(scale)}
    for part in range(2):
        weight.grad = scale.grad = None
        rows = [
            (x @ weight) if i == part else (x @ weight).detach() for i, x in enumerate(a.chunk(2))
        ]
        mh.contrastive_loss(torch.cat(rows), b, scale * 1).backward()
        found["tower"] += weight.grad / 2
        found["scale"] += scale.grad / 2
    diff = gradient_diff(found, right)
    assert diff.modules == {"tower": pytest.approx(0.5), "scale": pytest.approx(0, abs=1e-12)}
