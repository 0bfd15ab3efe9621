"""Paths from the loss to a parameter, and the names that a parameter goes by."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from graphs import HOW, random_graphs, recorded
from hypothesis import given, settings
from recording import Checkpointed, step
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import Graph
from mclip_helpers.names import clean_name, is_adapter


def every_path(graph: Graph, target: int) -> list[list[int]]:
    """All paths from a root to `target`, one by one."""
    paths = []

    def go(path: list[int]) -> None:
        if path[-1] == target:
            paths.append(path)
        for behind in graph.nodes[path[-1]].next:
            if behind is not None:
                go([*path, behind])

    for root in graph.roots:
        go([root])
    return paths


@settings(deadline=None)
@given(graph=random_graphs())
def test_the_count_of_paths_and_the_shortest_are_those_of_trying_all(graph: Graph):
    for node in graph.nodes:
        paths = every_path(graph, node.index)
        assert graph.ways(node.index) == len(paths)
        if node.parameters and paths:
            path = graph.path(node.parameters[0])
            assert path.ways == len(paths)
            assert [n.index for n in path.nodes] in paths
            assert len(path.nodes) == min(map(len, paths))
            assert path.parameter == clean_name(node.parameters[0])


@pytest.mark.parametrize("how", HOW)
def test_the_path_to_a_weight_is_a_shortest_one_and_all_are_counted(how: str):
    """Against PyTorch's own graph, which was retained."""
    seen = recorded(how)
    root = seen.loss.grad_fn
    distance, front = {root: 0}, [root]
    while front:
        front = [
            behind
            for node in front
            for behind, _ in node.next_functions
            if behind is not None
            and behind not in distance
            and distance.setdefault(behind, distance[node] + 1)
        ]
    count = {root: 1}
    for node in sorted(distance, key=lambda n: -n._sequence_nr() if n.name()[-4:] != "Grad" else 1):
        for behind, _ in node.next_functions:
            if behind is not None:
                count[behind] = count.get(behind, 0) + count[node]
    places = {n.variable: n for n in distance if hasattr(n, "variable")}
    reached = [(n, p) for n, p in seen.model.named_parameters() if p in places]
    assert len(reached) == sum(p.grad is not None for p in seen.model.parameters()) >= 10
    for name, p in reached[:: max(1, len(reached) // 25)]:
        path = seen.graph.path(name)
        assert len(path.nodes) == distance[places[p]] + 1
        assert path.ways == count[places[p]]
        assert path.nodes[-1].parameters == (name,)
        assert path.nodes[0].index in seen.graph.roots
        assert all(b.index in a.next for a, b in pairwise(path.nodes))
        assert path.kinds[-1] == ("adapter" if is_adapter(name) else mh.tower_of(name) or "loss")
        assert f"one of {path.ways:,} paths" in str(path)


def test_the_kinds_along_a_path_are_towers_and_adapters():
    path = recorded("adapters").graph.path("stages.3.blocks.0.token_mixer.qkv.lora_A")
    assert path.kinds[0] == "loss" and path.kinds[-1] == "adapter"
    assert [k for i, k in enumerate(path.kinds) if i == 0 or k != path.kinds[i - 1]] == [
        "loss",
        "image",
        "adapter",
    ]


def test_a_path_leads_into_a_checkpoint():
    model = Checkpointed(True)
    with mh.trace(model) as tape:
        step(model, torch.randn(5, 4))
    path = tape.graph.path("blocks.0.0.weight")
    assert path.nodes[-1].parameters == ("blocks.0.0.weight",)
    assert path.nodes[0].index in tape.graph.roots
    assert all(b.index in a.next for a, b in pairwise(path.nodes))


# ---------------------------------------------------------------------------------- names of a leaf


def test_a_leaf_answers_to_every_ending_of_its_name_that_fits_it_alone():
    graph = recorded("adapters").graph
    full = "base_model.model.visual.trunk.stages.3.blocks.0.token_mixer.qkv.lora_B.default.weight"
    node = graph.leaves[full]
    for name in (
        full,
        "visual.trunk.stages.3.blocks.0.token_mixer.qkv.lora_B",
        "stages.3.blocks.0.token_mixer.qkv.lora_B.default.weight",
        "stages.3.blocks.0.token_mixer.qkv.lora_B",
        "3.blocks.0.token_mixer.qkv.lora_B",
    ):
        assert graph.leaf(name) is node
    every = {
        name: graph.leaves[name]
        for name, p in recorded("adapters").model.named_parameters()
        if p.requires_grad
    }
    assert len(every) == len(graph.leaves)
    for name, wanted in every.items():
        assert graph.leaf(clean_name(name)) is graph.leaf(name) is wanted


def test_a_whole_name_goes_before_endings():
    inner, outer = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    with mh.trace({"scale": outer, "layer.scale": inner}) as tape:
        (inner * outer).sum().backward()
    assert tape.graph.leaf("scale").parameters == ("scale",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qkv.lora_C", r"no parameter is called 'qkv\.lora_C'"),
        ("ora_B", "no parameter is called 'ora_B'"),
        ("stages.3.blocks.0.token_mixer.qvk.lora_B", r"Did you mean .*token_mixer\.qkv\.lora_B"),
        ("lora_B", r"'lora_B' fits \d+ parameters \(visual.*, …\): give more of the name"),
        ("stem.0.conv_kxk.0.conv.weight", "is not in this graph: requires_grad is False"),
        ("", "no parameter is called ''"),
    ],
)
def test_a_leaf_that_is_not_there_is_refused_with_the_reason(name: str, message: str):
    with pytest.raises(ValueError, match=message):
        recorded("adapters").graph.leaf(name)
    with pytest.raises(ValueError, match=message):
        recorded("adapters").graph.path(name)


def test_a_leaf_that_no_gradient_came_to_is_refused_with_the_reason():
    with pytest.raises(
        ValueError, match=r"text.*lora_B is not in this graph: .* ran under no_grad"
    ):
        recorded("image only").graph.leaf("text.transformer.resblocks.0.attn.q_proj.lora_B")
