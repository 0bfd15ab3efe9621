"""The gradients that lie in a model now."""

from __future__ import annotations

import pytest
import torch
from graphs import HOW, recorded
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import Verdict
from mclip_helpers.names import clean_name


def test_the_norm_of_a_tiny_gradient_is_right_too():
    holder = nn.Module()
    holder.x = nn.Parameter(torch.ones(2))
    holder.x.grad = torch.tensor([3e-30, 4e-30])
    assert mh.gradients(holder)[0].norm == pytest.approx(5e-30, rel=1e-6, abs=0)
    assert mh.gradients(holder)[0].verdict is Verdict.REACHED


def test_before_a_backward_pass_no_adapter_is_reached_and_the_rest_is_frozen():
    clip = mh.load_model("nano", pretrained="random", device="cpu")
    lora_model = mh.inject_lora(clip.model, rank=2)
    current = mh.gradients(lora_model)
    layers = len(list(mh.lora_layers(lora_model)))
    assert len(current) == len(list(lora_model.parameters()))
    assert current.count("not_reached") == 2 * layers > 0
    assert current.count("not_reached", "A") == current.count("not_reached", "B") == layers
    assert current.count("frozen") == len(current) - 2 * layers
    assert all(g.norm is None for g in current)
    assert set(current.dead) == set(current.adapters)


def test_each_gradient_is_that_of_its_parameter_and_stays_as_it_is():
    lora_model = recorded("image only").model
    before = [None if p.grad is None else p.grad.clone() for p in lora_model.parameters()]
    current = mh.gradients(lora_model)
    named = dict(mh.lora_layers(lora_model))
    for g, grad, (name, p) in zip(current, before, lora_model.named_parameters(), strict=True):
        assert g.name == clean_name(name)
        assert g.shape == tuple(p.shape)
        assert g.requires_grad == p.requires_grad
        assert g.norm == (None if grad is None else pytest.approx(grad.square().sum().sqrt()))
        assert (g.part in ("A", "B")) == p.requires_grad
        if p.requires_grad:
            assert getattr(named[g.layer], f"lora_{g.part}")["default"].weight is p
        assert p.grad is None or torch.equal(p.grad, grad)
    assert set(current.adapters) == set(named)
    assert all(set(pair) == {"A", "B"} for pair in current.adapters.values())


@pytest.mark.parametrize("how", HOW)
def test_a_recorded_gradient_is_the_one_that_lies_there(how: str):
    seen = recorded(how)
    for there, came in zip(mh.gradients(seen.model), seen.graph.gradients, strict=True):
        assert (there.name, there.verdict, there.shape) == (came.name, came.verdict, came.shape)
        assert there.norm == came.norm
        assert bool(came.why) == (came.verdict != Verdict.REACHED)
