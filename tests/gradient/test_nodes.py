"""The graph as data: edges, order and towers."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from conftest import fresh
from graphs import random_graphs
from hypothesis import given, settings
from torch import nn

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
    lora_model = mh.inject_lora(clip.model)
    with mh.trace(lora_model) as tape:
        image, text, scale = lora_model(torch.rand(2, 3, 64, 64), clip.tokenizer(["a", "b"]))
        (scale * image @ text.T).sum().backward()
    by_module = {n.module: tape.graph.tower(n) for n in tape.graph.nodes if not n.is_leaf}
    assert by_module["base_model.model"] == "loss"
    assert by_module[None] == "loss"
    assert {t for m, t in by_module.items() if m and "visual" in m} == {"image"}
    assert {t for m, t in by_module.items() if m and ".text." in m} == {"text"}


class Bare(nn.Module):
    """Two towers, and operations between their layers that no module makes."""

    def __init__(self):
        super().__init__()
        self.visual, self.text = nn.Sequential(nn.Linear(3, 4)), nn.Linear(4, 4)
        self.positions = nn.Parameter(torch.ones(4))
        self.embedding, self.shared = nn.Linear(3, 4), nn.Parameter(torch.ones(3))

    def features(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x * self.shared
        image = self.visual(x)
        image = image / image.norm()
        text = self.text(self.embedding(x) + self.positions)
        return image, text / text.norm()


def test_what_a_module_uses_is_not_the_loss_and_the_loss_is_one_box():
    model = Bare()
    with mh.trace(model) as tape:
        image, text = model.features(torch.rand(2, 3))
        loss = (image @ text.T).sum()
        tape.label(loss=loss)
        loss.backward()
    graph = tape.graph
    made_by_none = [n for n in graph.nodes if n.module is None and not n.is_leaf]
    kinds = {n.operation: graph.tower(n) for n in made_by_none}
    assert kinds["AddBackward0"] == "text", "positions are added for the text tower"
    assert kinds["MulBackward0"] == "model", "both towers use it"
    assert kinds["DivBackward0"] == kinds["MmBackward0"] == kinds["SumBackward0"] == "loss"
    for level in ("towers", "blocks", "modules"):
        assert [g.label for g in graph.collapse(level).groups if g.kind == "loss"] == ["loss"]
    assert {k.value for k in graph.path("shared").kinds} >= {"loss", "model"}
    made = [row[2] for row in graph.path("shared").table().rows]
    assert made[0] == "(the loss)" and "(outside of every module)" in made


def test_the_towers_own_normalisation_is_drawn_with_the_loss_that_it_serves():
    """With open_clip's encode_image and encode_text, which normalise where asked to."""
    clip = fresh("nano")
    with mh.trace(clip.model) as tape:
        image = clip.model.encode_image(torch.rand(2, 3, 64, 64), normalize=True)
        text = clip.model.encode_text(clip.tokenizer(["a", "b"]), normalize=True)
        (image @ text.T).sum().backward()
    groups = tape.graph.collapse("towers").groups
    assert [g.label for g in groups if not g.is_leaf and g.kind != "dark"] == [
        "image",
        "text",
        "loss",
    ]
    edges = tape.graph.collapse("blocks").edges
    assert not any((b, a) in edges for a, b in edges)
