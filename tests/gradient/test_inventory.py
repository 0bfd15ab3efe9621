"""What has a name in a recorded model."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from conftest import fresh
from recording import leaf, norm
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import Verdict
from mclip_helpers.gradient.inventory import Inventory


def test_the_inventory_has_every_name_that_pytorch_gives():
    model = mh.inject_lora(fresh("nano").model, rank=2)
    inventory = Inventory(model)
    names = defaultdict(tuple)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[parameter] += (name,)
    assert inventory.names == names
    assert inventory.modules == {module: name for name, module in model.named_modules()}
    assert inventory.weights.total() == sum(p.numel() for p in model.parameters())
    assert {*inventory.tensors} == {*model.parameters(), *model.buffers()}
    assert inventory.is_model


def test_a_module_under_two_names_goes_by_the_first_and_its_parameters_by_both():
    shared = nn.Linear(3, 2, bias=False)
    inventory = Inventory(nn.ModuleDict({"one": shared, "two": nn.Sequential(shared)}))
    assert inventory.modules[shared] == "one"
    assert inventory.names == {shared.weight: ("one.weight", "two.0.weight")}


def test_a_shared_parameter_has_all_its_names():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    model[1].weight = model[0].weight
    inventory = Inventory(model)
    assert inventory.names[model[0].weight] == ("0.weight", "1.weight")
    assert inventory.weights == {"0": 15, "1": 20}


def test_what_a_module_leaves_out_is_left_out_here():
    model = nn.ModuleDict({"layer": nn.Linear(2, 2, bias=False)})
    model.register_module("nothing", None)
    model["layer"].register_buffer("no_buffer", None)
    assert Inventory(model).tensors == [model["layer"].weight]


def test_a_dict_of_tensors_has_their_names_and_no_modules():
    a, b = torch.ones(2), torch.ones(2)
    inventory = Inventory({"a": a, "b.c": b})
    assert inventory.names == {a: ("a",), b: ("b.c",)}
    assert (inventory.modules, inventory.is_model) == ({}, False)


def test_zero_parameters_are_trainable_and_have_every_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    for parameter in (model[0].weight, model[1].bias, model[2].weight):
        nn.init.zeros_(parameter)
    model[1].bias.requires_grad_(False)
    model.tied = model[2]
    assert Inventory(model).zero_parameters() == ("0.weight", "2.weight", "tied.weight")


# ----------------------------------------------------------------------------------- in a recording


def test_the_nodes_of_a_module_under_two_names_go_by_the_first():
    shared = nn.Linear(3, 3)
    model = nn.ModuleDict({"one": shared, "two": shared})
    with mh.trace(model) as tape:
        model["two"](model["one"](torch.randn(2, 3))).sum().backward()
    assert {n.module for n in tape.graph.nodes if not n.is_leaf} == {"one", None}
    assert tape.graph.leaf("two.weight").parameters == ("one.weight", "two.weight")
    assert tape.graph.leaf("one.weight") is tape.graph.leaf("two.weight")
    assert len(tape.graph.gradients) == 2


def test_the_leaf_of_a_shared_parameter_has_both_names():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    with mh.trace(model) as tape:
        model(torch.tensor([1, 2])).square().sum().backward()
    [shared] = [n for n in tape.graph.nodes if n.is_leaf]
    assert shared.parameters == ("0.weight", "1.weight")
    assert shared.norm_in == pytest.approx(norm(model[0].weight.grad))
    for name in ("0.weight", "1.weight", "weight"):
        assert tape.graph.leaf(name) is shared
    assert tape.graph.path("1.weight").ways == tape.graph.ways(shared.index) == 2
    assert [g.name for g in tape.graph.gradients] == ["0.weight"]


def test_the_names_of_a_dict_are_not_those_of_modules():
    used, unused = leaf(2), leaf(2, seed=1)
    with mh.trace({"layer.A": used, "B": unused}) as tape:
        used.sum().backward()
    a, b = tape.graph.gradients
    assert (a.name, a.layer, a.part, a.verdict) == ("layer.A", "layer", "A", Verdict.REACHED)
    assert (b.name, b.why) == ("B", "nothing in the graph was computed from it")
    assert tape.graph.leaf("A").parameters == ("layer.A",)
    assert tape.graph.gradients.adapters == {}, "an A and a B make no adapter"
