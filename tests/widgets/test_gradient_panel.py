"""What stands beside the player's map."""

from __future__ import annotations

import pytest
import torch
from conftest import fresh
from played import played
from recorded_steps import IMAGE_B, step_of
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import Graph
from mclip_helpers.gradient.derivatives import in_words, stem
from mclip_helpers.gradient.words import short_number


@pytest.fixture(scope="module")
def graph() -> Graph:
    return step_of("nano")


def test_the_panel_describes_each_node_in_the_order_in_which_it_ran(graph):
    shown = played(graph)
    for n, node in enumerate(graph.order, start=1):
        shown.slider.value = n
        assert f"node {n} of {len(graph.order)}" in shown.panel
        assert node.operation in shown.panel
        assert in_words(node.operation) in shown.panel
        assert node.where in shown.panel
        for norm in node.visits[0].outgoing:
            assert norm is None or short_number(norm) in shown.panel or norm == 0


def test_what_goes_out_has_its_shape_its_norm_and_its_target(graph):
    shown = played(graph)
    n, node = next((n, m) for n, m in enumerate(graph.order, 1) if m.operation == "MmBackward0")
    shown.slider.value = n
    for norm, shape, behind in zip(
        node.visits[0].outgoing, node.visits[0].outgoing_shapes, node.next, strict=True
    ):
        target = graph.nodes[behind]
        place = graph.order.index(target) + 1
        assert f"{shape[0]} × {shape[1]}" in shown.panel
        assert short_number(norm) in shown.panel
        assert f"to node {place}: {stem(target.operation)}" in shown.panel


def test_inputs_that_need_no_gradient_are_counted_and_not_drawn(graph):
    shown = played(graph)
    n = next(n for n, m in enumerate(graph.order, 1) if m.operation == "AddmmBackward0")
    shown.slider.value = n
    assert graph.order[n - 1].visits[0].outgoing.count(None) == 2
    assert "2 more inputs, for which nobody asks" in shown.panel
    assert shown.panel.count("goes out") == 1


def test_the_gradient_arrives_at_lora_b_with_its_norm(graph):
    shown = played(graph, IMAGE_B)
    shown.buttons["to lora_B"].click()
    leaf = graph.leaf(IMAGE_B)
    arrival = f"Arrived: {leaf.where}, norm {short_number(leaf.norm_in)}."
    assert arrival in shown.panel and "now in its .grad" in shown.panel
    assert f"These {leaf.shape[0] * leaf.shape[1]:,} numbers" in shown.panel
    shown.forth.click()
    assert "Arrived" not in shown.panel


def test_lora_a_receives_exactly_zero_and_the_panel_gives_the_reason(graph):
    shown = played(graph, IMAGE_B)
    shown.buttons["to lora_A"].click()
    why = next(g.why for g in graph.gradients if g.name == graph.leaf(IMAGE_B[:-1] + "A").where)
    assert why and f"receives exactly zero: {why}." in shown.panel
    assert "Arrived" not in shown.panel


def test_an_adapter_that_has_learned_something_arrives_twice():
    clip = fresh("nano")
    model = mh.inject_lora(clip.model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    with mh.trace(model) as tape:
        clip.model.encode_text(clip.tokenizer(["a cat", "a dog"])).square().sum().backward()
    shown = played(tape.graph)
    for button in ("to lora_B", "to lora_A"):
        shown.buttons[button].click()
        assert "Arrived" in shown.panel and "zero" not in shown.panel


def test_a_pass_that_broke_off_says_so_where_it_did():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise RuntimeError("<b>no</b> way")

    w = torch.randn(3, requires_grad=True)
    with pytest.raises(RuntimeError), mh.trace({"w": w}) as tape:
        Broken.apply(w * 2).sum().backward()
    shown = played(tape.graph)
    shown.slider.value = len(tape.graph.order)
    assert "Here the pass broke off: RuntimeError: <b>no</b> way" in shown.panel
    assert "<b>no</b>" not in shown.beside.value


def test_names_are_escaped():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("<i>&</i>", nn.Linear(2, 2))

        def forward(self, x):
            return self.get_submodule("<i>&</i>")(x).sum()

    model = Odd()
    with mh.trace(model) as tape:
        loss = model(torch.ones(1, 2))
        tape.label(loss=loss)
        loss.backward()
    shown = played(tape.graph)
    for n in range(1, len(tape.graph.order) + 1):
        shown.slider.value = n
        assert "<i>&" not in shown.beside.value + shown.image.value
    assert "<i>&</i>" in shown.panel
