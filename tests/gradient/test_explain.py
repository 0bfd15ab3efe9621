"""Why a parameter has no gradient, or one of zeros."""

from __future__ import annotations

import re

import pytest
import torch
from graphs import call_of, graph_of, visit
from peft import LoraConfig, get_peft_model
from recording import leaf
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import LEAF, Cause, Node, Reason, Verdict
from mclip_helpers.gradient.explain import why_missing, why_zero


class Both(nn.Module):
    """A parameter for each reason to have no gradient, and one that has one."""

    def __init__(self):
        super().__init__()
        self.used = nn.Linear(2, 2)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.cut = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        self.silent = nn.Linear(2, 2)
        self.inside = Detaches()
        self.ignored = nn.Parameter(torch.ones(2))

    def forward(self, x):
        with torch.no_grad():
            x = x + self.silent(x)
        x = x + self.cut(x).detach() + self.inside(x)
        return self.used(self.frozen(x))


class Detaches(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return (x * self.weight).detach()


def test_each_missing_gradient_has_its_own_reason():
    model = Both()
    with mh.trace(model) as tape:
        model(torch.ones(1, 2)).sum().backward()
    reasons = {g.name: (g.verdict, g.why) for g in tape.graph.gradients}
    assert reasons["used.weight"] == (Verdict.REACHED, "")
    assert reasons["unused.weight"] == (Verdict.NOT_REACHED, "its module was never called")
    assert reasons["frozen.weight"] == ("frozen", "requires_grad is False")
    cut = "cut off: what cut returned was detached, or is not used"
    assert reasons["cut.0.weight"] == (Verdict.NOT_REACHED, cut)
    assert reasons["silent.bias"] == (Verdict.NOT_REACHED, "silent ran under no_grad")
    detached = "what inside returned needs no gradient: it was detached inside"
    assert reasons["inside.weight"] == (Verdict.NOT_REACHED, detached)
    assert reasons["ignored"] == (Verdict.NOT_REACHED, "nothing in the graph was computed from it")
    for name, (verdict, why) in reasons.items():
        if verdict != "reached":
            with pytest.raises(ValueError, match=re.escape(why)):
                tape.graph.leaf(name)


# ------------------------------------------------------------------------ missing, from calls alone


def test_a_parameter_whose_module_was_not_called():
    calls = [call_of("other"), call_of("layers")]  # "layer" is not the beginning of a name
    assert why_missing(calls, "layer.weight") == Reason(Cause.NOT_CALLED)


def test_a_parameter_whose_module_ran_under_no_grad():
    calls = [call_of("layer", recorded=False), call_of("layer.inner", recorded=False)]
    assert why_missing(calls, "layer.weight") == Reason(Cause.NO_GRAD, module="layer")
    calls.append(call_of("layer"))
    assert why_missing(calls, "layer.weight") == Reason(Cause.UNUSED)


def test_a_parameter_whose_module_returned_what_needs_no_gradient():
    calls = [call_of("base_model.model.layer", needs_gradient=False)]
    name = "base_model.model.layer.weight"
    assert why_missing(calls, name) == Reason(Cause.DETACHED, module="layer")


def test_of_nested_modules_whose_results_were_lost_the_outermost_is_named():
    calls = [
        call_of(""),
        call_of("outer", inside=0, lost=True),
        call_of("outer.layer", inside=1, lost=True),
    ]
    assert why_missing(calls, "outer.layer.weight") == Reason(Cause.CUT_OFF, module="outer")


def test_a_parameter_of_which_only_submodules_were_called_is_unused():
    assert why_missing([call_of("layer.inner")], "layer.weight") == Reason(Cause.UNUSED)


# ------------------------------------------------------------------------------------ exactly zero


def chain(*steps: tuple[str | None, float], parameter: str):
    """A graph of one path from the loss, with (module, norm that arrives), to a leaf of zeros."""
    nodes = [
        Node(i, "MulBackward0", module, 1, (i + 1,), (), visit(i + 1, norm))
        for i, (module, norm) in enumerate(steps)
    ]
    end = len(nodes)
    nodes.append(Node(end, LEAF, None, 1, (), (parameter,), visit(end + 1, 0.0)))
    return graph_of(*nodes), nodes[-1]


@pytest.mark.parametrize(
    ("module", "parameter", "zeros", "reason"),
    [
        pytest.param(
            "layer",
            "layer.weight",
            ["layer.factor"],
            Reason(Cause.ZERO_FACTOR, part="factor", operation="MulBackward0"),
            id="a factor of the same layer",
        ),
        pytest.param(
            "base_model.model.fc.lora_B.default",
            "base_model.model.fc.lora_A.default.weight",
            ["base_model.model.fc.lora_B.default.weight"],
            Reason(Cause.ZERO_FACTOR, part="B", operation="MulBackward0"),
            id="B of the same adapter",
        ),
        pytest.param(
            "second",
            "first.weight",
            ["other.weight", "second.weight"],
            Reason(Cause.ZERO_FACTOR, parameter="second.weight", operation="MulBackward0"),
            id="a factor of another layer",
        ),
        pytest.param(
            "second",
            "first.weight",
            ["second.bias", "third.weight"],
            Reason(Cause.ZERO_MADE, module="second", operation="MulBackward0"),
            id="a bias, and a factor elsewhere",
        ),
        pytest.param(
            None,
            "first.weight",
            ["weight"],
            Reason(Cause.ZERO_MADE, operation="MulBackward0"),
            id="outside of every module",
        ),
    ],
)
def test_zeros_come_from_the_last_node_that_received_something_else(
    module, parameter, zeros, reason
):
    graph, end = chain(("loss", 1.0), (module, 2.0), ("first", 0.0), parameter=parameter)
    assert why_zero(graph, end, zeros) == reason


def test_without_such_a_node_the_gradient_was_zero_from_the_loss_on():
    graph, end = chain(("loss", 0.0), ("layer", 0.0), parameter="layer.weight")
    assert why_zero(graph, end, ["layer.weight"]) == Reason(Cause.ZERO_LOSS)


# --------------------------------------------------------------------- exactly zero, in a recording


def test_a_gradient_of_zeros_has_its_reason_too():
    layer = nn.Linear(3, 3)
    model = get_peft_model(nn.Sequential(layer), LoraConfig(r=2, target_modules=["0"]))
    with mh.trace(model) as tape:
        model(torch.ones(1, 3)).sum().backward()
    a, b = tape.graph.gradients.adapters["0"].values()
    assert (a.verdict, a.why) == (
        Verdict.ZERO,
        "B is all zeros, and MmBackward0 multiplies by it",
    )
    assert (b.verdict, b.why) == (Verdict.REACHED, "")


def test_a_bias_of_zeros_is_not_to_blame():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU())
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    with mh.trace(model) as tape:
        (model(torch.ones(1, 3)) + 1).sum().backward()
    [weight] = [g for g in tape.graph.gradients if g.name == "0.weight"]
    assert weight.why == "ReluBackward0 in 2 made it zero"
    nn.init.ones_(model[1].bias)
    with mh.trace(model) as tape:
        (model(torch.ones(1, 3)) + 1).sum().backward()
    [weight] = [g for g in tape.graph.gradients if g.name == "0.weight"]
    assert weight.why == "1.weight is all zeros, and AddmmBackward0 multiplies by it"


def test_a_bias_of_zeros_beside_what_made_it_zero_is_not_named():
    class Stops(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return x * 0 + self.bias

    model = nn.Sequential(nn.Linear(3, 3), Stops())
    with mh.trace(model) as tape:
        model(torch.ones(1, 3)).sum().backward()
    assert tape.graph.gradients[0].why == "MulBackward0 in 1 made it zero"


def test_an_operation_that_made_it_zero_is_named():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    nn.init.constant_(model[0].bias, -100)
    with mh.trace(model) as tape:
        model(torch.ones(1, 3)).sum().backward()
    assert {g.why for g in tape.graph.gradients} == {"ReluBackward0 in 1 made it zero"}
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        (x * 1).backward(torch.zeros(3))
    assert tape.graph.gradients[0].why == "it was zero from the loss on"
