"""From what was noted while the step ran to the graph."""

from __future__ import annotations

import pytest
import torch
from recording import about, leaf, norm
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import Verdict


def test_two_steps_in_a_block_are_both_recorded():
    layer = nn.Linear(2, 1)
    with mh.trace(layer) as tape:
        for _ in range(2):
            layer(torch.ones(1, 2)).sum().backward()
    assert tape.graph.backward_calls == 2
    assert {n.call for n in tape.graph.nodes if n.module == ""} == {1, 2}
    assert len(tape.graph.leaf("weight").visits) == 2
    assert [call.call for call in tape.graph.calls] == [1, 2]


def test_a_gradient_of_zeros_in_the_first_of_two_passes_does_not_hide_the_second():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        (x * 0).sum().backward()
        (x * 2).sum().backward()
    assert tape.graph.gradients[0].verdict is Verdict.REACHED
    assert tape.graph.gradients[0].norm == about(norm(x.grad))


def test_a_leaf_that_is_no_parameter_of_the_model_has_no_name():
    layer, other = nn.Linear(3, 3), leaf(3, dtype=torch.float32)
    with mh.trace(layer) as tape:
        (layer(torch.randn(2, 3)) * other).sum().backward()
    unnamed = [n for n in tape.graph.nodes if n.is_leaf and not n.parameters]
    assert len(unnamed) == 1 and unnamed[0].norm_in == about(norm(other.grad), rel=1e-5)
    assert len(tape.graph.leaves) == 2


def test_a_graph_without_nodes_still_says_why_nothing_arrived():
    layer = nn.Linear(2, 1)
    tape = mh.trace(layer)
    with pytest.raises(RuntimeError, match="does not require grad"), tape:
        layer(torch.ones(1, 2)).detach().sum().backward()
    assert tape.graph.nodes == ()
    assert tape.graph.gradients.count(Verdict.NOT_REACHED) == 2
    assert "detached, or is not used" in tape.graph.gradients[0].why


def test_what_the_optimizer_was_not_given_is_forgotten():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].bias.requires_grad_(False)
    optimizer = torch.optim.SGD(
        [{"params": [model[0].weight]}, {"params": [model[1].bias], "lr": 1.0}], lr=0.1
    )
    with mh.trace(model, optimizer) as tape:
        model(torch.ones(1, 2)).sum().backward()
    assert tape.graph.gradients.forgotten == ("1.weight",)
    assert [g.in_optimizer for g in tape.graph.gradients] == [True, False, False, True]
    assert "the optimizer was not given it" in repr(tape.graph.gradients)
    with mh.trace(model) as tape:
        model(torch.ones(1, 2)).sum().backward()
    assert tape.graph.gradients.forgotten == ()
    assert {g.in_optimizer for g in tape.graph.gradients} == {None}


@pytest.mark.parametrize("kept", [lambda x: x, lambda x: [x]], ids=["a tensor", "a list"])
def test_what_a_custom_function_calls_variable_makes_it_no_leaf(kept):
    """PyTorch gives this name to the tensor of a leaf's node."""

    class Keeps(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.variable = kept(x)
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 2

    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        Keeps.apply(x).sum().backward()
    assert [n.parameters for n in tape.graph.nodes] == [(), (), ("x",)]
    assert tape.graph.leaf("x").norm_in == about(norm(x.grad))
