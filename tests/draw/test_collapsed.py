"""The picture of a collapsed graph: boxes, arrows, colours and the legend."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter

import pygraphviz
import pytest
import torch
from recorded_steps import step_of
from shown import nodes_and_edges
from torch import nn
from torchviz import make_dot

import mclip_helpers as mh
from mclip_helpers import draw
from mclip_helpers.colours import box_style, tint
from mclip_helpers.gradient import LEVELS, Collapsed, Graph, Kind, Level, OperationGroup
from mclip_helpers.gradient.words import KINDS


@pytest.fixture(scope="module")
def lora() -> Graph:
    return step_of("nano")


@pytest.fixture(scope="module")
def full() -> Graph:
    return step_of("nano", lora=False)


@pytest.fixture(scope="module")
def plain() -> Graph:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    with mh.trace(model) as tape:
        model(torch.ones(2, 3)).sum().backward()
    return tape.graph


@pytest.mark.parametrize("level", LEVELS[:3])
@pytest.mark.parametrize("name", ["lora", "full", "plain"])
def test_the_picture_has_every_group_and_every_arrow(name, level, request):
    shown = request.getfixturevalue(name).collapse(level)
    nodes, edges = nodes_and_edges(shown.plot())
    assert nodes == {group.key for group in shown.groups}
    assert edges == sorted(shown.edges)


def test_every_node_of_one_layer_is_drawn_with_its_place_in_the_order(lora):
    layer = "visual.trunk.stages.3.blocks.0.token_mixer.qkv"
    shown = lora.collapse("operations", within=layer)
    nodes, _ = nodes_and_edges(shown.plot())
    assert nodes == {group.key for group in shown.groups}
    written = "".join(ET.fromstring(shown.plot().source).itertext())
    for group in shown.groups:
        assert f"{group.order} · " in written
    assert "exactly zero" in written
    assert layer not in written, "what was asked for need not stand in every box"


def fills(svg: str) -> Counter[str]:
    return Counter(
        colour.lower() for colour in re.findall(r'(?:fill="|fill: )(#[0-9A-Fa-f]{6})', svg)
    )


def test_the_colours_are_those_of_the_kinds(lora, full):
    for graph in (lora, full):
        shown = graph.collapse("blocks")
        kinds = Counter(
            tint(draw.COLOURS[g.kind], 0.6) if g.is_leaf else box_style(g.kind).fill
            for g in shown.groups
        )
        drawn = fills(shown.plot().source.split('<g class="legend">')[0])
        for colour, times in kinds.items():
            assert drawn[colour.lower()] == times


def test_the_legend_names_the_kinds_that_occur_and_lies_in_the_picture(lora, full, plain):
    for graph in (lora, full, plain):
        shown = graph.collapse("blocks")
        svg = shown.plot().source
        legend = svg[svg.index('<g class="legend">') :]
        kinds = [kind for kind in KINDS if any(g.kind == kind for g in shown.groups)]
        assert re.findall(r">([^<>]+)</text>", legend) == [KINDS[kind] for kind in kinds]
        left, top, width, height = map(float, re.search(r'viewBox="([^"]+)"', svg)[1].split())
        for x, y in re.findall(r'<rect x="([-\d.]+)" y="([-\d.]+)"', legend):
            assert left <= float(x) <= left + width - 12
            assert top <= float(y) <= top + height - 12


def test_the_blocks_of_nano_fit_the_width_of_a_notebook(lora, full):
    for graph in (lora, full):
        width = ET.fromstring(graph.collapse("blocks").plot().source).get("width")
        assert int(width.removesuffix("pt")) <= 850  # points: some 1,130 pixels


def test_a_picture_is_no_wider_than_the_page(plain):
    root = ET.fromstring(plain.collapse("blocks").plot()._repr_svg_())
    assert "max-width:100%" in root.get("style")


def test_torchviz_and_we_draw_the_same_graph():
    """After merging what torchviz draws apart: a tensor, and the node at which it ends."""
    W, x = torch.randn(4, 5), torch.randn(5, 1)
    A, B = torch.randn(2, 5, requires_grad=True), torch.zeros(4, 2, requires_grad=True)
    with mh.trace({"A": A, "B": B}) as tape:
        loss = (W @ x + 2 * (B @ (A @ x))).square().sum()
        dot = make_dot(loss, params={"A": A, "B": B})
        loss.backward()
    theirs = pygraphviz.AGraph(string=dot.source)
    label = {str(n): n.attr["label"].replace("\\n", "\n").split("\n") for n in theirs.nodes()}
    name = {n: lines[0].strip() for n, lines in label.items() if lines[0].strip()}
    edges = [(str(a), str(b)) for a, b in theirs.edges()]
    ends = {b: name[a] for a, b in edges if name.get(b) == "AccumulateGrad"}
    # (from, to) against the direction of the forward pass, as we draw it
    wanted = Counter(
        (name[b], ends.get(a, name[a]))
        for a, b in edges
        if a in name and b in name and b not in ends
    )
    shown = tape.graph.collapse("operations")
    ours = {g.key: g.label for g in shown.groups}
    assert Counter((ours[a], ours[b]) for a, b in shown.edges) == wanted
    assert set(ours.values()) == (set(name.values()) - {"AccumulateGrad"})


def test_a_single_group_can_be_drawn():
    group = OperationGroup(key="g0", kind=Kind.LOSS, tower=Kind.LOSS, place="", nodes=(0,), order=1)
    alone = Collapsed(Level.BLOCKS, (group,), ())
    assert nodes_and_edges(alone.plot())[0] == {"g0"}


def test_the_blocks_of_the_real_model_can_be_drawn():
    shown = step_of("MobileCLIP2-S0").collapse("blocks")
    nodes, _ = nodes_and_edges(shown.plot())
    assert len(nodes) == len(shown.groups) < 100
