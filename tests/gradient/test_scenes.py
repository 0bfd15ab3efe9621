"""The story of a backward pass: at which nodes it stops, and in which order."""

from __future__ import annotations

import dataclasses

import pytest
from recorded_steps import IMAGE_B, algebra, nameless, sequential, step_of

from mclip_helpers.gradient import Graph, Scene


def story(graph: Graph, *arguments: str) -> list[tuple[Scene, str]]:
    return [(frame.scene, frame.name) for frame in graph.frames(*arguments).frames]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return step_of("nano")


def test_an_adapter_has_six_frames_from_the_loss_to_both_of_its_matrices(graph):
    frames = graph.frames(IMAGE_B).frames
    assert story(graph, IMAGE_B) == [
        (Scene.LOSS, ""),
        (Scene.PARTING, ""),
        (Scene.TOWER, "image"),
        (Scene.BLOCK, "stages.3.blocks.0"),
        (Scene.ARRIVED, "lora_B"),
        (Scene.ZERO, "lora_A"),
    ]
    orders = [frame.node.order for frame in frames]
    assert orders[0] == 1 and orders == sorted(orders)
    leaf = graph.leaf(IMAGE_B)
    assert frames[4].node is leaf
    assert [end.where for end in graph.frames(IMAGE_B).ends] == [leaf.where, leaf.where[:-1] + "A"]


@pytest.mark.parametrize("name", [IMAGE_B, "text.transformer.resblocks.1.attn.q_proj.lora_B"])
def test_the_paths_part_at_the_last_node_behind_which_both_towers_lie(graph, name):
    parting = graph.frames(name).frames[1]
    assert parting.scene is Scene.PARTING
    node = parting.node
    assert node.operation == "MmBackward0"  # of pictures and texts: every cosine

    def towers(index: int) -> set[str]:
        seen, waiting = set(), [index]
        while waiting:
            node = graph.nodes[waiting.pop()]
            if node.index not in seen:
                seen.add(node.index)
                waiting += [b for b in node.next if b is not None]
        return {graph.tower(graph.nodes[i]) for i in seen} - {"loss"}

    assert towers(node.index) == {"image", "text"}
    assert sorted(map(sorted, map(towers, node.next))) == [["image"], ["text"]]


def test_a_parameter_without_an_adapter_has_its_layer_in_the_story():
    frames = story(step_of("nano", lora=False), "stages.2.blocks.1.mlp.fc1.weight")
    assert len(frames) == 6
    assert frames[4:] == [(Scene.LAYER, "fc1"), (Scene.ARRIVED, "weight")]


@pytest.mark.parametrize(("make", "name"), [(algebra, "w"), (sequential, "0.weight")])
def test_graphs_without_towers_have_frames_along_the_path(make, name):
    graph = make()
    frames = graph.frames(name).frames
    orders = [frame.node.order for frame in frames]
    assert orders == sorted(set(orders)) and 3 <= len(orders) <= 6
    on_the_path = {node.index for node in graph.path(name).nodes}
    assert all(frame.node.index in on_the_path for frame in frames)
    assert (frames[-1].scene, frames[-1].name) == (Scene.ARRIVED, name.rpartition(".")[2])


def test_a_graph_without_parameters_has_frames_and_no_end():
    frames = nameless().frames()
    assert frames.ends == ()
    assert [frame.scene for frame in frames.frames] == [Scene.LOSS, Scene.BETWEEN, Scene.BETWEEN]
    assert repr(frames) == "<3 frames of a backward pass of 3 nodes>"


def test_without_a_name_the_story_is_about_the_first_lora_b_or_the_first_parameter(graph):
    first = next(n for n in graph.order if n.is_leaf and n.where.endswith("lora_B"))
    assert graph.frames().ends[0] is first
    assert [end.where for end in step_of("nano", lora=False).frames().ends] == ["logit_scale"]


def test_where_one_group_would_hold_everything_each_operation_is_shown(graph):
    assert graph.frames(IMAGE_B, "modules").shown == graph.collapse("modules")
    toy = algebra()
    assert toy.frames("w").shown == toy.collapse("operations")


# ------------------------------------------------------------------------------- what is refused


def test_a_graph_in_which_nothing_ran_has_no_story(graph):
    still = dataclasses.replace(
        graph, nodes=tuple(dataclasses.replace(node, visits=()) for node in graph.nodes)
    )
    with pytest.raises(ValueError, match="no node of this graph ran"):
        still.frames()


def test_the_story_of_an_unknown_parameter_is_refused_in_the_words_of_the_graph(graph):
    with pytest.raises(ValueError, match="no parameter is called 'lora_C'"):
        graph.frames("lora_C")
    with pytest.raises(ValueError, match="give more of the name"):
        graph.frames("lora_B")
    with pytest.raises(ValueError, match="is not in this graph"):
        graph.frames("visual.trunk.stem.0.conv_kxk.0.conv.weight")


def test_the_story_of_a_parameter_that_the_pass_did_not_come_to_is_refused(graph):
    leaf = graph.leaf(IMAGE_B)
    nodes = [dataclasses.replace(n, visits=()) if n is leaf else n for n in graph.nodes]
    cut = dataclasses.replace(graph, nodes=tuple(nodes))
    with pytest.raises(ValueError, match=r"did not come to .*qkv\.lora_B"):
        cut.frames(IMAGE_B)
