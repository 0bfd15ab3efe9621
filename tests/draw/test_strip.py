"""The strip: a backward pass in six frames."""

from __future__ import annotations

import re

import pytest
from recorded_steps import IMAGE_B, algebra, nameless, sequential, step_of

from mclip_helpers import draw
from mclip_helpers.gradient import Graph
from mclip_helpers.gradient.words import short_number


@pytest.fixture(scope="module")
def graph() -> Graph:
    return step_of("nano")


def written(chart: draw.Chart) -> list[list[str]]:
    """What stands in each frame."""
    return [[text.get_text() for text in axes.texts] for axes in chart.axes]


def test_the_six_frames_tell_the_story_of_an_adapter(graph):
    frames = written(graph.frames(IMAGE_B).plot())
    titles = [
        "the loss, where it begins",
        "the paths to the towers part",
        "into the image tower",
        "into its block, stages.3.blocks.0",
        "lora_B: arrived",
        "lora_A: exactly zero",
    ]
    assert [next(t for t in frame if t in titles) for frame in frames] == titles
    places = [int(re.search(r"node (\d+) of 366", " ".join(frame))[1]) for frame in frames]
    assert places[0] == 1 and places == sorted(places)
    b = graph.leaf(IMAGE_B)
    assert places[4] == b.order
    assert any(f"arrived: norm {short_number(b.norm_in)}" in t for t in frames[4])
    assert "exactly zero: B is all zeros, and" in " ".join(frames[5]).replace("\n", " ")


def filled(axes) -> set[str]:
    """The words in the boxes of a frame that are not white."""
    boxes = [p for p in axes.patches if p.get_alpha() in (None, 1)]
    coloured = [p.get_bbox() for p in boxes if min(p.get_facecolor()[:3]) < 0.999]
    return {
        text.get_text()
        for text in axes.texts
        for box in coloured
        if box.contains(*text.get_position())
    }


def test_in_each_frame_what_the_pass_has_visited_is_filled(graph):
    drawn = graph.frames(IMAGE_B).plot().axes
    dark = {"10 frozen blocks", "token_embedding"}
    assert filled(drawn[0]) == {"loss"} | dark
    third = filled(drawn[2])
    assert {"loss", "head", "text", "resblocks.0"} <= third and "final_conv" not in third
    assert "B" not in filled(drawn[3]) and "B" in filled(drawn[4])
    assert "A" not in filled(drawn[5])  # a zero fills nothing


def test_a_parameter_without_an_adapter_has_its_layer_in_the_titles():
    graph = step_of("nano", lora=False)
    frames = written(graph.frames("stages.2.blocks.1.mlp.fc1.weight").plot())
    assert len(frames) == 6
    assert "into its layer, fc1" in frames[4] and "weight: arrived" in frames[5]


@pytest.mark.parametrize(("make", "name"), [(algebra, "w"), (sequential, "0.weight")])
def test_without_towers_the_nodes_are_counted_and_the_last_one_arrives(make, name):
    graph = make()
    frames = [" ".join(frame) for frame in written(graph.frames(name).plot())]
    places = [int(re.search(r"node (\d+)", frame)[1]) for frame in frames]
    assert places == [frame.node.order for frame in graph.frames(name).frames]
    assert f"{name.rpartition('.')[2]}: arrived" in frames[-1]


def test_a_graph_of_no_parameters_has_frames_too():
    assert "a tensor without a name" in " ".join(written(nameless().frames().plot())[-1])


def test_frames_are_ten_inches_wide(graph):
    assert graph.frames().plot().get_figwidth() == 10
