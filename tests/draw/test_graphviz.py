"""Graphs in Graphviz' language: nodes and edges are read back from the SVG."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shown import box_centres, nodes_and_edges
from torch import nn
from torchviz import make_dot

from mclip_helpers import draw
from mclip_helpers.draw import graphviz
from mclip_helpers.draw.graphviz import GraphvizMissing, lay_out


def test_a_graph_has_the_nodes_and_edges_of_its_source():
    source = 'digraph { a [label="A & <B>"]; a -> b; b -> c; a -> c; lonely }'
    nodes, edges = nodes_and_edges(draw.graph(source))
    assert nodes == {"a", "b", "c", "lonely"}
    assert edges == [("a", "b"), ("a", "c"), ("b", "c")]


EDGES = st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=8)
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


EMPTY_FIRST_LINES = {
    "torchviz": make_dot(torch.ones(1, requires_grad=True).sum()).source,
    "a node": '1 [label="\\n(1)"] 2 [label="\n(1)"] 3 [label="\r\n(1)"] 4 [label="\\r(1)\\l"]',
    "a node's name": '"\nfirst" -> "\\nsecond"',
    "every node": 'node [label="\\lall"]',
    "a record": '1 [shape=record label="a|\\nb"] 2 [shape=record label="{\\na|<p>\\nb}"]',
    "edges": 'edge [label="\\nx" xlabel="\\nx" headlabel="\\nx" taillabel="\\ny"]',
    "a graph in it": 'subgraph cluster_0 { label="\\nx" 5} subgraph cluster_1 {label="\\nxy" 6}',
}


@pytest.mark.parametrize("where", EMPTY_FIRST_LINES)
def test_an_empty_first_line_does_not_crash(where):
    source = EMPTY_FIRST_LINES[where]
    if "digraph" not in source:
        source = f"digraph {{ {source} 1 -> 2 -> 3 -> 4 -> 7; 5 -> 6 }}"
    # In a process of its own, which may crash; often, because Graphviz does not do it every time.
    program = f"from mclip_helpers import draw\nfor _ in range(60): draw.graph({source!r})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "source", ["digraph { a -> ", "digraph { a -> }", "digraph { a [label= }", "a -> b"]
)
def test_a_broken_graph_is_refused(source):
    with pytest.raises(ValueError, match="Graphviz refused the graph"):
        draw.graph(source)


LABELS = ("two\\nlines", 'a \\"quoted\\" word', "A & <B>", "$5 and $\\\\frac", "가나다", "x²·√y")


def test_labels_are_drawn_as_they_are():
    source = "digraph {" + " ".join(f'n{i} [label="{t}"]' for i, t in enumerate(LABELS)) + "}"
    drawn = " ".join("".join(ET.fromstring(draw.graph(source).source).itertext()).split())
    for text in LABELS:
        for line in text.replace('\\"', '"').replace("\\\\", "\\").split("\\n"):
            assert line in drawn


def test_the_ground_is_transparent_and_the_same_source_gives_the_same_picture():
    source = 'digraph { graph [bgcolor="transparent"] a -> b [style="dashed"] }'
    first, second = draw.graph(source).source, draw.graph(source).source
    assert first == second
    assert 'fill="white"' not in first
    assert "<?xml" not in first


def test_without_pygraphviz_a_graph_is_shown_as_text_with_the_reason(monkeypatch):
    monkeypatch.setattr(graphviz, "pygraphviz", None)
    source = 'digraph { a -> "<b>" }'
    shown = draw.graph(source)
    assert repr(shown).startswith(source)
    assert "pygraphviz, which is not installed" in repr(shown)
    assert "&lt;b&gt;" in shown._repr_html_() and "<b>" not in shown._repr_html_()


def test_a_graph_is_no_wider_than_the_page():
    root = ET.fromstring(draw.graph("digraph { a -> b }")._repr_svg_())
    assert "max-width:100%" in root.get("style")


# ----------------------------------------------------------------------------------------- layout


def test_without_pygraphviz_nothing_can_be_laid_out(monkeypatch):
    monkeypatch.setattr(graphviz, "pygraphviz", None)
    with pytest.raises(GraphvizMissing, match="pip install pygraphviz"):
        lay_out("digraph { a }")


NAMES = {
    "plain": "a",
    "number": "-2.5",
    "space": "two words",
    "quotes": 'say "hi"',
    "apostrophe": "it's",
    "backslash": r"\N or \\ or \b",
    "keyword": "node",
    "comment": "#x // y",
    "markup": "<b>&",
    "letters": "가나 é",
    "long": "many words " * 20,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_centre_of_a_node_is_that_of_its_shape_whatever_it_is_called(name: str):
    quoted = '"{}"'.format(NAMES[name].replace('"', r"\""))
    check_centres(f"digraph {{ {quoted} -> b; b -> c [label=no]; {quoted} -> d }}")
    assert NAMES[name] in lay_out(f"digraph {{ {quoted} }}").centres


@pytest.mark.parametrize(
    "label",
    [
        '"it\'s"',
        '"one\\ntwo"',
        '"one\ntwo"',
        '"{}"'.format("many words " * 20),
        "<it's <b>bold</b>>",
        '""',
    ],
    ids=["apostrophe", "two lines", "a line break", "long", "markup", "empty"],
)
def test_the_centre_of_a_node_is_that_of_its_shape_whatever_its_label(label: str):
    check_centres(f"digraph {{ node [shape=box]; a [label={label}]; a -> b -> c; a -> c }}")


@pytest.mark.parametrize("options", ["rankdir=LR", "nodesep=2", "subgraph cluster { b c }"])
def test_the_centre_of_a_node_is_that_of_its_shape_in_every_arrangement(options: str):
    check_centres(f"digraph {{ {options}; a -> b -> c; a -> d }}")


def check_centres(source: str) -> None:
    drawing = lay_out(source)
    shapes = box_centres(drawing.to_svg().source)
    assert drawing.centres.keys() == shapes.keys()
    for name, centre in drawing.centres.items():
        assert centre == pytest.approx(shapes[name], abs=0.1)
        assert 0 < centre[0] < drawing.width and 0 < centre[1] < drawing.height


def test_a_drawing_in_another_frame_is_the_same_drawing():
    drawing = lay_out("digraph { a -> b }")
    wider = drawing.resized(left=-50, width=200, height=300)
    assert (wider.width, wider.height) == (200, 300)
    assert nodes_and_edges(wider.to_svg()) == ({"a", "b"}, [("a", "b")])
    root = ET.fromstring(wider.to_svg().source)
    assert root.get("viewBox") == "-50.00 0 200.00 300.00"
    assert (root.get("width"), root.get("height")) == ("200pt", "300pt")
