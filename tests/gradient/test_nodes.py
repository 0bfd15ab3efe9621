"""The graph as data: edges, order and towers."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from conftest import fresh
from graphs import random_graphs
from hypothesis import given, settings

import mclip_helpers as mh
from mclip_helpers.gradient import Graph


@settings(deadline=None)
@given(graph=random_graphs())
def test_before_and_edges_are_next_read_backwards(graph: Graph):
    pairs = [(n.index, b) for n in graph.nodes for b in n.next if b is not None]
    assert Counter(graph.edges) == Counter(pairs)
    for node in graph.nodes:
        assert Counter(graph.before(node.index)) == Counter(a for a, b in pairs if b == node.index)
    assert [n.order for n in graph.order] == sorted(n.order for n in graph.nodes if n.visits)


def test_without_towers_everything_is_the_model():
    trunk = copy.deepcopy(fresh("nano").model.visual)
    with mh.trace(trunk) as tape:
        trunk(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert {tape.graph.tower(n) for n in tape.graph.nodes} == {"model", "loss"}
    labels = [g.label for g in tape.graph.collapse("towers").groups]
    assert labels[:2] == ["model", "loss"]


def test_what_the_whole_model_computes_itself_is_of_no_tower():
    clip = fresh("nano")
    peft = mh.inject_lora(clip.model)
    with mh.trace(peft) as tape:
        image, text, scale = peft(torch.rand(2, 3, 64, 64), clip.tokenizer(["a", "b"]))
        (scale * image @ text.T).sum().backward()
    by_module = {n.module: tape.graph.tower(n) for n in tape.graph.nodes if not n.is_leaf}
    assert by_module["base_model.model"] == "loss"
    assert by_module[None] == "loss"
    assert {t for m, t in by_module.items() if m and "visual" in m} == {"image"}
    assert {t for m, t in by_module.items() if m and ".text." in m} == {"text"}
