"""Pictures of graphs: nodes and edges are read back from the SVG."""

from __future__ import annotations

import copy
import itertools
import re
import xml.etree.ElementTree as ET
from collections import Counter

import pygraphviz
import pytest
import torch
from conftest import fresh
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from torch import nn
from torchviz import make_dot

import mclip_helpers as mh
from mclip_helpers import draw
from mclip_helpers.draw import graphviz
from mclip_helpers.draw.colours import box_style, tint
from mclip_helpers.gradient import (
    LEVELS,
    Collapsed,
    Graph,
    Kind,
    Level,
    Norms,
    OperationGroup,
    Saved,
)
from mclip_helpers.gradient.words import KINDS

SVG = "{http://www.w3.org/2000/svg}"


def nodes_and_edges(svg: draw.Svg) -> tuple[set[str], list[tuple[str, str]]]:
    """What was drawn: nodes by the ids of their groups, edges by Graphviz' titles or our ids."""
    root = ET.fromstring(svg._repr_svg_())
    assert root.tag == f"{SVG}svg"
    nodes, edges = [], []
    for group in root.iter(f"{SVG}g"):
        name = group.get("id", "")
        if name.startswith("node-"):
            nodes.append(name.removeprefix("node-"))
        elif name.startswith("edge-"):
            edges.append(name.removeprefix("edge-"))
        elif group.get("class") == "edge":
            edges.append(group.find(f"{SVG}title").text)
    assert len(set(nodes)) == len(nodes)
    return set(nodes), sorted(tuple(edge.split("->")) for edge in edges)


def test_a_graph_has_the_nodes_and_edges_of_its_source():
    source = 'digraph { a [label="A & <B>"]; a -> b; b -> c; a -> c; lonely }'
    nodes, edges = nodes_and_edges(draw.graph(source))
    assert nodes == {"a", "b", "c", "lonely"}
    assert edges == [("a", "b"), ("a", "c"), ("b", "c")]


EDGES = st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@settings(
    deadline=None,
    max_examples=8,
)
@given(EDGES)
def test_any_graph_has_the_nodes_and_edges_of_its_source(wanted):
    source = "digraph {" + ";".join(f"n{a} -> n{b}" for a, b in wanted) + "}"
    nodes, edges = nodes_and_edges(draw.graph(source))
    assert edges == sorted((f"n{a}", f"n{b}") for a, b in wanted)
    assert nodes == {f"n{i}" for edge in wanted for i in edge}


def test_the_graph_of_torchviz_has_the_nodes_and_edges_of_its_source():
    layer = nn.Linear(2, 1)
    dot = make_dot(layer(torch.ones(1, 2)).sum(), params=dict(layer.named_parameters()))
    nodes, edges = nodes_and_edges(draw.graph(dot.source))
    expected = re.findall(r"^\s*(\w+) -> (\w+)", dot.source, re.MULTILINE)
    assert edges == sorted(expected)
    assert nodes == {node for edge in expected for node in edge}
    assert "AddmmBackward0" in draw.graph(dot.source).source


@pytest.mark.parametrize(
    "source", ["digraph { a -> ", "digraph { a -> }", "digraph { a [label= }", "a -> b"]
)
def test_a_broken_graph_is_refused(source):
    with pytest.raises(ValueError, match="Graphviz refused the graph"):
        draw.graph(source)


LABELS = ("two\\nlines", 'a \\"quoted\\" word', "A & <B>", "$5 and $\\\\frac", "가나다", "x²·√y")


def test_labels_are_drawn_as_they_are():
    source = "digraph {" + " ".join(f'n{i} [label="{t}"]' for i, t in enumerate(LABELS)) + "}"
    said = " ".join("".join(ET.fromstring(draw.graph(source).source).itertext()).split())
    for text in LABELS:
        for line in text.replace('\\"', '"').replace("\\\\", "\\").split("\\n"):
            assert line in said


def test_the_ground_is_transparent_and_the_same_source_gives_the_same_picture():
    source = 'digraph { graph [bgcolor="transparent"] a -> b [style="dashed"] }'
    first, second = draw.graph(source).source, draw.graph(source).source
    assert first == second
    assert 'fill="white"' not in first
    assert "<?xml" not in first


def test_without_pygraphviz_a_graph_is_shown_as_text_that_says_why(monkeypatch):
    monkeypatch.setattr(graphviz, "pygraphviz", None)
    source = 'digraph { a -> "<b>" }'
    shown = draw.graph(source)
    assert repr(shown).startswith(source)
    assert "pygraphviz, which is not installed" in repr(shown)
    assert "&lt;b&gt;" in shown._repr_html_() and "<b>" not in shown._repr_html_()


# --------------------------------------------------------------------------------------- collapsed


def graph_of(model: nn.Module, encode: nn.Module | None = None) -> Graph:
    """One recorded step of a CLIP on a batch of two."""
    clip = encode or model
    torch.manual_seed(0)
    size = clip.visual.image_size
    with mh.trace(model) as tape:
        image = clip.encode_image(torch.rand(2, 3, *size))
        text = clip.encode_text(
            torch.tensor([[49406, 320, 49407] + [0] * (clip.context_length - 3)] * 2)
        )
        mh.contrastive_loss(image, text, clip.logit_scale.exp()).backward()
    return tape.graph


@pytest.fixture(scope="module")
def lora() -> Graph:
    model = fresh("nano").model
    return graph_of(mh.inject_lora(model), model)


@pytest.fixture(scope="module")
def full() -> Graph:
    return graph_of(fresh("nano").model)


@pytest.fixture(scope="module")
def plain() -> Graph:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    with mh.trace(model) as tape:
        model(torch.ones(2, 3)).sum().backward()
    return tape.graph


@pytest.mark.parametrize("level", LEVELS[:3])
@pytest.mark.parametrize("name", ["lora", "full", "plain"])
def test_the_picture_has_the_groups_and_arrows_that_were_found(name, level, request):
    found = request.getfixturevalue(name).collapse(level)
    nodes, edges = nodes_and_edges(found.plot())
    assert nodes == {group.key for group in found.groups}
    assert edges == sorted(found.edges)


def test_every_node_of_one_layer_is_drawn_with_its_place_in_the_order(lora):
    layer = "visual.trunk.stages.3.blocks.0.token_mixer.qkv"
    found = lora.collapse("operations", within=layer)
    nodes, _ = nodes_and_edges(found.plot())
    assert nodes == {group.key for group in found.groups}
    said = "".join(ET.fromstring(found.plot().source).itertext())
    for group in found.groups:
        assert f"{group.order} · " in said
    assert "exactly zero" in said
    assert layer not in said, "what is asked for need not be said in every box"


def fills(svg: str) -> Counter[str]:
    return Counter(
        colour.lower() for colour in re.findall(r'(?:fill="|fill: )(#[0-9A-Fa-f]{6})', svg)
    )


def test_the_colours_are_those_of_the_kinds(lora, full):
    for graph in (lora, full):
        found = graph.collapse("blocks")
        kinds = Counter(
            tint(draw.COLOURS[g.kind], 0.6) if g.is_leaf else box_style(g.kind).fill
            for g in found.groups
        )
        drawn = fills(found.plot().source.split('<g class="legend">')[0])
        for colour, times in kinds.items():
            assert drawn[colour.lower()] == times


def test_the_legend_names_the_kinds_that_occur_and_lies_in_the_picture(lora, full, plain):
    for graph in (lora, full, plain):
        found = graph.collapse("blocks")
        svg = found.plot().source
        legend = svg[svg.index('<g class="legend">') :]
        kinds = [kind for kind in KINDS if any(g.kind == kind for g in found.groups)]
        assert re.findall(r">([^<>]+)</text>", legend) == [KINDS[kind] for kind in kinds]
        left, top, width, height = map(float, re.search(r'viewBox="([^"]+)"', svg)[1].split())
        for x, y in re.findall(r'<rect x="([-\d.]+)" y="([-\d.]+)"', legend):
            assert left <= float(x) <= left + width - 12
            assert top <= float(y) <= top + height - 12


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_in_a_box_can_be_read(kind):
    """By the contrast that the Web Content Accessibility Guidelines ask for, 4.5 to 1."""
    style = box_style(kind)
    grounds = [style.fill] if kind == "dark" else [style.fill, tint(style.edge, 0.6)]
    for ground in grounds:
        low, high = sorted((luminance(ground), luminance(style.ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_the_blocks_of_nano_fit_the_width_of_a_notebook(lora, full):
    for graph in (lora, full):
        width = ET.fromstring(graph.collapse("blocks").plot().source).get("width")
        assert int(width.removesuffix("pt")) <= 850  # points: some 1,130 pixels


def test_a_picture_is_no_wider_than_the_page(plain):
    for shown in (plain.collapse("blocks"), draw.graph("digraph { a -> b }")):
        root = ET.fromstring((shown if isinstance(shown, draw.Svg) else shown.plot())._repr_svg_())
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
    found = tape.graph.collapse("operations")
    ours = {g.key: g.label for g in found.groups}
    assert Counter((ours[a], ours[b]) for a, b in found.edges) == wanted
    assert set(ours.values()) == (set(name.values()) - {"AccumulateGrad"})


# ------------------------------------------------------------------------------------------ charts


def texts(chart: draw.Chart) -> list[str]:
    chart._repr_png_()
    return [t.get_text() for t in chart.findobj(Text) if t.get_visible() and t.get_text().strip()]


def check_texts(chart: draw.Chart, slack: float = 2.0) -> None:
    """No two pieces of text lie on one another."""
    FigureCanvasAgg(chart).draw()
    shown = [t for t in chart.findobj(Text) if t.get_visible() and t.get_text().strip()]
    for one, other in itertools.combinations(shown, 2):
        a, b = one.get_window_extent(), other.get_window_extent()
        beside = a.x1 <= b.x0 + slack or b.x1 <= a.x0 + slack
        apart = beside or a.y1 <= b.y0 + slack or b.y1 <= a.y0 + slack
        assert apart, f"{one.get_text()!r} lies on {other.get_text()!r}"


@pytest.mark.parametrize("part", ["A", "B"])
def test_a_path_has_a_bar_as_long_as_each_norm_and_names_zeros(lora, part):
    path = lora.path(f"stages.3.blocks.0.token_mixer.qkv.lora_{part}")
    chart = path.plot()
    runs = [list(run) for _, run in itertools.groupby(path.nodes, lambda n: (n.where, n.is_leaf))]
    wanted = [run[0].norm_in for run in runs if run[0].norm_in]
    bars = [bar.get_x() + bar.get_width() for bar in chart.axes[0].patches]
    assert bars == pytest.approx(wanted)
    assert sum("exactly zero" in text for text in texts(chart)) == len(runs) - len(wanted)
    assert (len(runs) > len(wanted)) == (part == "A")
    check_texts(chart)


def test_norms_have_a_bar_for_each_block_of_each_tower(lora):
    found = lora.norms()
    chart = found.plot()
    assert [axes.get_title(loc="left").partition(":")[0] for axes in chart.axes] == [
        "image tower",
        "text tower",
    ]
    for axes, tower in zip(chart.axes, ("image", "text"), strict=True):
        ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
        assert ends == pytest.approx([norm for _, norm in found.towers[tower]])
        assert [t.get_text() for t in axes.get_yticklabels()] == [b for b, _ in found.towers[tower]]
    check_texts(chart)


def test_saved_has_a_bar_for_each_block_of_each_step(lora, full):
    chart = lora.saved.plot("LoRA", **{"full fine-tuning": full.saved})
    unit = 1e6
    lengths = [bar.get_width() for bar in chart.axes[0].patches]
    for step in (lora.saved, full.saved):
        by_block = step.by("blocks")
        for size in by_block.values():
            assert any(length == pytest.approx(size / unit) for length in lengths)
    assert sum(lengths) == pytest.approx((lora.saved.total + full.saved.total) / unit)
    legend = [text.get_text() for text in chart.legends[0].get_texts()]
    assert legend[0].startswith("LoRA: ") and legend[1].startswith("full fine-tuning: ")
    check_texts(chart)


def test_what_is_empty_or_nothing_can_be_drawn():
    zero = Norms({"model": (("0", 0.0),)})
    for chart in (Norms({}).plot(), zero.plot(), Saved({}).plot(), Saved({"a.b": 10}).plot()):
        chart._repr_png_()
    assert any("exactly zero" in text for text in texts(zero.plot()))
    group = OperationGroup(key="g0", kind=Kind.LOSS, tower=Kind.LOSS, place="", nodes=(0,), order=1)
    alone = Collapsed(Level.BLOCKS, (group,), ())
    assert nodes_and_edges(alone.plot())[0] == {"g0"}


def test_the_real_models_blocks_and_path_can_be_drawn():
    clip = copy.deepcopy(fresh("MobileCLIP2-S0").model)
    graph = graph_of(mh.inject_lora(clip), clip)
    nodes, _ = nodes_and_edges(graph.collapse("blocks").plot())
    assert len(nodes) == len(graph.collapse("blocks").groups) < 100
    leaf = next(name for name in graph.leaves if "lora_B" in name)
    path = graph.path(leaf).plot()
    check_texts(path)
    assert path.get_figheight() < 20
