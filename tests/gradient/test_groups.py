"""The graph in groups, and the norms at its blocks."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from graphs import HOW, PLACES, random_graphs, recorded, roughly
from hypothesis import given, settings
from hypothesis import strategies as st
from recording import norm
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import LEVELS, Collapsed, Graph
from mclip_helpers.names import clean_name


def check_groups(graph: Graph, level: str, within: str | None = None) -> Collapsed:
    """All that must hold of the groups of any graph."""
    shown = graph.collapse(level, within)
    lit = [g for g in shown.groups if g.kind != "dark"]
    dark = [g for g in shown.groups if g.kind == "dark"]
    keys = [g.key for g in shown.groups]
    assert len(set(keys)) == len(keys)
    # Each node that is shown is in one group.
    members = Counter(i for g in lit for i in g.nodes)
    assert set(members.values()) <= {1}
    assert all(g.nodes for g in lit) and not any(g.nodes for g in dark)
    if within is None:
        assert len(members) == len(graph.nodes)
    owner = {i: g.key for g in lit for i in g.nodes}
    for i, key in owner.items():
        assert shown.group_of(i).key == key
    # The arrows are those of the graph.
    lit_keys = {g.key for g in lit}
    arrows = [(a, b) for a, b in shown.edges if {a, b} <= lit_keys]
    wanted = {
        (owner[a], owner[b])
        for a, b in graph.edges
        if a in owner and b in owner and owner[a] != owner[b]
    }
    assert set(arrows) == wanted and len(arrows) == len(wanted)
    # Nothing comes back to where it was.
    after = {key: {b for a, b in shown.edges if a == key} for key in keys}
    while after:
        ends = [key for key, behind in after.items() if not behind & after.keys()]
        assert ends, f"a circle among {after}"
        for key in ends:
            del after[key]
    for group in lit:
        inside = [graph.nodes[i] for i in group.nodes]
        assert all(n.is_leaf == inside[0].is_leaf for n in inside)
        assert group.order == min((n.order for n in inside if n.order), default=None)
        entered = [
            n.norm_in
            for n in inside
            if n.index in graph.roots
            or any(owner.get(b) != group.key for b in graph.before(n.index))
        ]
        known = [n for n in entered if n is not None]
        assert group.norm == (roughly(math.hypot(*known)) if known else None)
    return shown


@settings(deadline=None)
@given(graph=random_graphs(), level=st.sampled_from(LEVELS))
def test_each_node_is_in_one_group_and_the_arrows_make_no_circle(graph: Graph, level: str):
    shown = check_groups(graph, level)
    if level == "operations":
        operations = [n for n in graph.nodes if not n.is_leaf]
        assert len([g for g in shown.groups if g.label == "XBackward0"]) == len(operations)


@settings(deadline=None)
@given(graph=random_graphs(), level=st.sampled_from(LEVELS), place=st.sampled_from(PLACES[2:]))
def test_within_shows_what_a_module_made_and_its_parameters(graph: Graph, level, place):
    own = {n.index for n in graph.nodes if f"{n.where}.".startswith(f"{clean_name(place)}.")}
    if not own:
        with pytest.raises(ValueError, match="is in this graph"):
            graph.collapse(level, place)
        return
    shown = check_groups(graph, level, place)
    assert {i for g in shown.groups for i in g.nodes} == own
    assert shown.within == place


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("level", LEVELS)
def test_each_node_of_a_model_is_in_one_group_and_the_arrows_make_no_circle(how: str, level: str):
    graph = recorded(how).graph
    shown = check_groups(graph, level)
    assert (len(shown.groups) < 10) == (level == "towers")
    check_groups(graph, level, "stages.3.blocks.0")


def test_a_tower_receives_the_gradient_of_its_features():
    seen = recorded("adapters")
    groups = {g.kind: g for g in seen.graph.collapse("towers").groups if not g.is_leaf}
    image = seen.results["base_model.model.visual"][-1].grad
    assert groups["image"].norm == roughly(norm(image))
    assert groups["loss"].norm == roughly(1)
    assert {g.label: g.kind for g in seen.graph.collapse("towers").groups if g.is_leaf} == {
        f"{2 * len([t for t in towers if t == tower])} matrices A, B": "adapter"
        for towers in [[mh.tower_of(name) for name, _ in mh.lora_layers(seen.model)]]
        for tower in ("image", "text")
    }


def test_an_input_that_wants_a_gradient_is_no_weight():
    layer, x = nn.Linear(3, 3), torch.ones(1, 3, requires_grad=True)
    with mh.trace(layer) as tape:
        layer(x).sum().backward()
    for level in LEVELS:
        labels = [g.label for g in check_groups(tape.graph, level).groups if g.is_leaf]
        assert "1 input" in labels
    assert sorted(g.label for g in tape.graph.collapse("towers").groups if g.is_leaf) == [
        "1 input",
        "2 weights",
    ]


def test_leaves_say_how_many_were_reached():
    zero, fine, unused = (nn.Parameter(torch.ones(2)) for _ in range(3))
    with mh.trace({"zero": zero, "fine": fine, "unused": unused}) as tape:
        (zero * 0 + fine + unused).sum().backward(inputs=[zero, fine])
    [weights] = [g for g in tape.graph.collapse("towers").groups if g.is_leaf]
    assert (weights.label, weights.note) == (
        "3 weights",
        "1 reached, 1 exactly zero, 1 not reached",
    )
    notes = {g.label: g.note for g in tape.graph.collapse("modules").groups if g.is_leaf}
    assert notes == {"zero": "exactly zero", "fine": "", "unused": "not reached"}


def test_collapse_refuses_what_it_does_not_know():
    graph = recorded("adapters").graph
    with pytest.raises(ValueError, match="'layers'; it must be one of towers, blocks, modules"):
        graph.collapse("layers")
    with pytest.raises(ValueError, match=r"no module called .stages\.9. ran"):
        graph.collapse("blocks", within="stages.9")
    with pytest.raises(ValueError, match="nothing that stem computed is in this graph"):
        graph.collapse("modules", within="stem")
    text = recorded("image only").graph
    with pytest.raises(ValueError, match=r"nothing that resblocks\.0 .*: ran under no_grad"):
        text.collapse("modules", within="resblocks.0")


# -------------------------------------------------------------------------------------------- norms


@pytest.mark.parametrize("how", HOW)
def test_what_arrives_at_a_block_is_the_gradient_of_its_result(how: str):
    seen = recorded(how)
    checked = 0
    for tower, blocks in seen.graph.norms().towers.items():
        start = {"image": "visual.trunk.", "text": "text.transformer."}[tower]
        counts = Counter(label for label, _ in blocks)
        for label, size in blocks:
            for name, results in seen.results.items():
                if clean_name(name) == start + label and counts[label] == 1:
                    assert size == roughly(norm(results[-1].grad)), name
                    checked += 1
    assert checked >= (3 if how == "image only" else 4)


@pytest.mark.parametrize("how", HOW)
def test_the_norms_stand_in_the_order_of_the_backward_pass(how: str):
    seen = recorded(how)
    groups = {g.label: g.order for g in seen.graph.collapse("blocks").groups if g.kind == "image"}
    labels = [label for label, _ in seen.graph.norms().towers["image"]]
    assert labels[0] == "head" or labels[0].startswith("final")
    assert [groups[label] for label in labels] == sorted(groups[label] for label in labels)
    assert ("text" in seen.graph.norms().towers) == (how != "image only")


def test_the_norms_have_blocks_that_only_zero_came_to():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    nn.init.constant_(model[0].bias, -100)
    with mh.trace(model) as tape:
        model(torch.ones(1, 2)).sum().backward()
    [after, relu, first] = tape.graph.norms().towers["model"]
    assert after == ("2", roughly(math.sqrt(2)))
    assert relu[0] == "1" and relu[1] > 0
    assert first == ("0", 0)
