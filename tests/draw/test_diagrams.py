"""Pictures of graphs: nodes and edges are read back from the SVG, by whichever way it was drawn."""

from __future__ import annotations

import copy
import itertools
import os
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from collections import Counter

import pytest
import torch
from conftest import fresh
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from torch import nn
from torchviz import make_dot

import mclip_helpers as mh
from mclip_helpers import draw
from mclip_helpers.draw import diagrams
from mclip_helpers.gradient.graph import LEVELS, Collapsed, Graph, Group, Norms, Saved

# ------------------------------------------------------------------------------------------ layout

# Does what the program `dot` does, where only pygraphviz is installed.
STAND_IN = f"""#!{sys.executable}
import sys, pygraphviz
try:
    svg = pygraphviz.AGraph(string=sys.stdin.read()).draw(format="svg", prog="dot")
except ValueError as error:
    sys.exit(str(error))
sys.stdout.buffer.write(b"<?xml version='1.0'?>" + svg)
"""


@pytest.fixture(params=["dot", "pygraphviz", "matplotlib"])
def layout(request, monkeypatch, tmp_path) -> str:
    """Each of the three ways to lay out a graph, the others out of reach."""
    if request.param == "dot":
        if not shutil.which("dot"):
            pytest.importorskip("pygraphviz", reason="no Graphviz is installed here")
            if os.name != "posix":
                pytest.skip("a script can't stand in for the program `dot` here")
            (tmp_path / "dot").write_text(STAND_IN)
            (tmp_path / "dot").chmod(0o755)
            monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    else:
        monkeypatch.setattr(diagrams.shutil, "which", lambda program: None)
    if request.param == "pygraphviz":
        pytest.importorskip("pygraphviz", reason="pygraphviz is not installed here")
    else:
        monkeypatch.setitem(sys.modules, "pygraphviz", None)
    return request.param


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


def test_the_way_is_the_best_that_there_is(layout):
    assert diagrams.way() == layout


def test_a_graph_has_the_nodes_and_edges_of_its_source(layout):
    source = 'digraph { a [label="A & <B>"]; a -> b; b -> c; a -> c; lonely }'
    nodes, edges = nodes_and_edges(diagrams.graph(source))
    assert nodes == {"a", "b", "c", "lonely"}
    assert edges == [("a", "b"), ("a", "c"), ("b", "c")]


EDGES = st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@settings(
    deadline=None,
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(EDGES)
def test_any_graph_has_the_nodes_and_edges_of_its_source(layout, wanted):
    source = "digraph {" + ";".join(f"n{a} -> n{b}" for a, b in wanted) + "}"
    nodes, edges = nodes_and_edges(diagrams.graph(source))
    assert edges == sorted((f"n{a}", f"n{b}") for a, b in wanted)
    assert nodes == {f"n{i}" for edge in wanted for i in edge}


def test_the_graph_of_torchviz_has_the_nodes_and_edges_of_its_source(layout):
    layer = nn.Linear(2, 1)
    dot = make_dot(layer(torch.ones(1, 2)).sum(), params=dict(layer.named_parameters()))
    nodes, edges = nodes_and_edges(diagrams.graph(dot.source))
    expected = re.findall(r"^\s*(\w+) -> (\w+)", dot.source, re.MULTILINE)
    assert edges == sorted(expected)
    assert nodes == {node for edge in expected for node in edge}
    assert "AddmmBackward0" in diagrams.graph(dot.source).source


@pytest.mark.parametrize(
    "source", ["digraph { a -> ", "digraph { a -> }", "digraph { a [label= }", "a -> b"]
)
def test_a_broken_graph_is_refused(layout, source):
    said = "dot refused the graph" if layout == "dot" else None
    with pytest.raises(ValueError, match=said):
        diagrams.graph(source)


def test_without_graphviz_what_is_not_understood_is_named(monkeypatch):
    monkeypatch.setattr(diagrams.shutil, "which", lambda program: None)
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(ValueError, match="subgraph"):
        diagrams.graph("digraph { subgraph x { a } }")


LABELS = ("two\\nlines", 'a \\"quoted\\" word', "A & <B>", "$5 and $\\\\frac", "가나다", "x²·√y")


@pytest.mark.filterwarnings("ignore:Glyph")  # of Hangul, in a font of matplotlib
def test_labels_are_drawn_as_they_are(layout):
    source = "digraph {" + " ".join(f'n{i} [label="{t}"]' for i, t in enumerate(LABELS)) + "}"
    said = " ".join("".join(ET.fromstring(diagrams.graph(source).source).itertext()).split())
    for text in LABELS:
        for line in text.replace('\\"', '"').replace("\\\\", "\\").split("\\n"):
            assert line in said


def test_the_ground_is_transparent_and_the_same_source_gives_the_same_picture(layout):
    source = 'digraph { graph [bgcolor="transparent"] a -> b [style="dashed"] }'
    first, second = diagrams.graph(source).source, diagrams.graph(source).source
    assert first == second
    assert 'fill="white"' not in first
    assert "<?xml" not in first


def boxes(svg: str) -> dict[str, tuple[float, float, float, float]]:
    """The frame (left, top, right, bottom) of each node of a drawing by matplotlib."""
    found = {}
    for piece in svg.split('<g id="node-')[1:]:
        numbers = [
            float(n) for n in re.findall(r"-?\d+\.?\d*", re.search(r' d="([^"]+)"', piece)[1])
        ]
        xs, ys = numbers[::2], numbers[1::2]
        found[piece[: piece.index('"')]] = (min(xs), min(ys), max(xs), max(ys))
    return found


@settings(deadline=None, max_examples=25)
@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=14))
def test_in_the_plain_layout_no_boxes_overlap_and_every_arrow_goes_down(pairs):
    edges = {(min(pair), max(pair)) for pair in pairs}
    assume(all(a != b for a, b in edges))
    source = diagrams._Source("digraph {" + ";".join(f"n{a} -> n{b}" for a, b in edges) + "}")
    found = boxes(diagrams._drawn_by_matplotlib(source))
    for one, other in itertools.combinations(found.values(), 2):
        apart = (one[2] <= other[0], other[2] <= one[0], one[3] <= other[1], other[3] <= one[1])
        assert any(apart)
    for a, b in edges:
        assert found[f"n{a}"][3] < found[f"n{b}"][1]


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
def test_the_picture_has_the_groups_and_arrows_that_were_found(name, level, layout, request):
    if name == "full" and level == "modules" and layout != "pygraphviz":
        pytest.skip("once is enough of a large one")
    found = request.getfixturevalue(name).collapse(level)
    nodes, edges = nodes_and_edges(found.plot())
    assert nodes == {group.key for group in found.groups}
    assert edges == sorted(found.edges)


def test_every_node_of_one_layer_is_drawn_with_its_place_in_the_order(lora, layout):
    layer = "visual.trunk.stages.3.blocks.0.token_mixer.qkv"
    found = lora.collapse("operations", within=layer)
    nodes, _ = nodes_and_edges(found.plot())
    assert nodes == {group.key for group in found.groups}
    said = "".join(ET.fromstring(found._repr_svg_()).itertext())
    for group in found.groups:
        assert f"{group.order} · " in said
    assert "exactly zero" in said
    assert layer not in said, "what is asked for need not be said in every box"


def fills(svg: str) -> Counter[str]:
    return Counter(
        colour.lower() for colour in re.findall(r'(?:fill="|fill: )(#[0-9A-Fa-f]{6})', svg)
    )


def test_the_colours_are_those_of_the_kinds(lora, full, layout):
    for graph in (lora, full):
        found = graph.collapse("blocks")
        kinds = Counter(
            diagrams.tint(draw.COLOURS[g.kind], 0.6) if g.is_end else diagrams.look_of(g.kind)[0]
            for g in found.groups
        )
        drawn = fills(found.plot().source.split('<g class="legend">')[0])
        for colour, times in kinds.items():
            assert drawn[colour.lower()] == times


def test_the_legend_names_the_kinds_that_occur_and_lies_in_the_picture(lora, full, plain, layout):
    for graph in (lora, full, plain):
        found = graph.collapse("blocks")
        svg = found.plot().source
        legend = svg[svg.index('<g class="legend">') :]
        kinds = [kind for kind in diagrams.KINDS if any(g.kind == kind for g in found.groups)]
        assert re.findall(r">([^<>]+)</text>", legend) == [diagrams.KINDS[kind] for kind in kinds]
        left, top, width, height = map(float, re.search(r'viewBox="([^"]+)"', svg)[1].split())
        for x, y in re.findall(r'<rect x="([-\d.]+)" y="([-\d.]+)"', legend):
            assert left <= float(x) <= left + width - 12
            assert top <= float(y) <= top + height - 12


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("kind", diagrams.KINDS)
def test_what_is_written_in_a_box_can_be_read(kind):
    """By the contrast that the Web Content Accessibility Guidelines ask for, 4.5 to 1."""
    fill, edge, ink = diagrams.look_of(kind)
    grounds = [fill] if kind == "dark" else [fill, diagrams.tint(edge, 0.6)]
    for ground in grounds:
        low, high = sorted((luminance(ground), luminance(ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_the_blocks_of_nano_fit_the_width_of_a_notebook(lora, full):
    pytest.importorskip("pygraphviz", reason="Graphviz' own letters count here")
    for graph in (lora, full):
        width = re.search(r'<svg width="(\d+)pt"', graph.collapse("blocks").plot().source)[1]
        assert int(width) <= 850  # points: some 1,130 pixels


def test_a_picture_is_no_wider_than_the_page(plain):
    for shown in (plain.collapse("blocks"), diagrams.graph("digraph { a -> b }")):
        root = ET.fromstring(shown._repr_svg_())
        assert "max-width:100%" in root.get("style")


def test_torchviz_and_we_draw_the_same_graph():
    """After merging what torchviz draws apart: a tensor, and the node at which it ends."""
    W, x = torch.randn(4, 5), torch.randn(5, 1)
    A, B = torch.randn(2, 5, requires_grad=True), torch.zeros(4, 2, requires_grad=True)
    with mh.trace({"A": A, "B": B}) as tape:
        loss = (W @ x + 2 * (B @ (A @ x))).square().sum()
        dot = make_dot(loss, params={"A": A, "B": B})
        loss.backward()
    theirs = diagrams._Source(dot.source)
    label = {n: look["label"].split("\n") for n, look in theirs.nodes.items()}
    name = {n: lines[0] for n, lines in label.items() if lines[0].strip()}
    ends = {b: name[a] for a, b, _ in theirs.edges if name.get(b) == "AccumulateGrad"}
    # (from, to) against the way of the forward pass, as we draw it
    wanted = Counter(
        (name[b], ends.get(a, name[a]))
        for a, b, _ in theirs.edges
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
    alone = Collapsed("blocks", (Group("g0", "one", "loss", (0,), 1, None, None),), ())
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
