"""The planner: what it foretells, beside what PyTorch's allocator is asked for."""

from __future__ import annotations

import pytest
import torch
from conftest import fresh
from torch.profiler import ProfilerActivity, profile

import mclip_helpers as mh
from mclip_helpers.speed import StepMemory, plain_encoders, step_memory
from mclip_helpers.training.objective import Objective


def adapted(targets: str) -> mh.Clip:
    clip = fresh("nano")
    mh.inject_lora(clip.model, targets=targets)
    return clip


def batch(clip: mh.Clip, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = clip.tokenizer([f"picture {i}" for i in range(size)])
    return torch.rand(size, 3, *clip.image_size), tokens


def used(clip: mh.Clip, size: int, chunk: int | None) -> int:
    """The peak of what the allocator gave out during a step, in bytes, beside its inputs."""
    inputs = batch(clip, size)
    objective = Objective(clip, plain_encoders(clip), chunk=chunk)
    clip.model.train()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        objective.backward(*inputs)
    given = peak = sum(tensor.nbytes for tensor in inputs)
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            given += event.nbytes()
            peak = max(peak, given)
    return peak


@pytest.mark.parametrize("targets", ["image", "default", "all"])
@pytest.mark.parametrize(("size", "chunk"), [(24, None), (96, None), (96, 24)])
def test_what_is_foretold_is_within_a_tenth_of_what_is_used(targets, size, chunk):
    clip = adapted(targets)
    foretold = step_memory(clip, *batch(clip, 8))
    optimizer = 2 * foretold.state // 3  # no step of it is taken here
    measured = used(clip, size, chunk)
    assert foretold.bytes(size, chunk) - optimizer == pytest.approx(measured, rel=0.1)


def test_recording_it_changes_nothing():
    clip = adapted("image")
    clip.model.logit_scale.grad = torch.tensor(3.0)
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    step_memory(clip, *batch(clip, 2))
    assert clip.model.logit_scale.grad == 3 and not clip.model.training
    assert all(p.grad is None for n, p in clip.model.named_parameters() if ".lora_" in n)
    assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())


@pytest.mark.parametrize("available", [10**6, 10**8, 3 * 10**9])
def test_the_largest_batch_fits_and_one_pair_more_does_not(available):
    memory = StepMemory(150_000, 2_500_000, {"image": 2_000_000, "text": 700_000}, 60_000)
    largest = memory.largest_batch(available)
    assert memory.bytes(largest) <= available < memory.bytes(largest + 1) or largest == 0


def test_the_largest_chunk_fits_and_one_pair_more_does_not():
    memory = StepMemory(150_000, 2_500_000, {"image": 2_000_000, "text": 700_000}, 60_000)
    chunk = memory.largest_chunk(1_000, 200_000_000)
    assert 0 < chunk < 1_000
    assert memory.bytes(1_000, chunk) <= 200_000_000 < memory.bytes(1_000, chunk + 1)
    assert memory.largest_chunk(20, 200_000_000) == 20
    assert memory.largest_chunk(1_000, 1_000_000) == memory.largest_batch(1) == 0


def test_one_pair_is_not_enough():
    clip = adapted("image")
    with pytest.raises(ValueError, match="the number of pairs is 1"):
        step_memory(clip, *batch(clip, 1))
