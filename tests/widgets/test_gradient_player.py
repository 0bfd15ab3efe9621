"""The player: its controls, where it stops, and every graph that it can play."""

from __future__ import annotations

import dataclasses
import html

import pytest
from played import played
from recorded_steps import IMAGE_B, algebra, nameless, sequential, step_of
from shown import box_centres

from mclip_helpers.draw import graphviz
from mclip_helpers.gradient import Graph
from mclip_helpers.widgets import player


@pytest.fixture(scope="module")
def graph() -> Graph:
    return step_of("nano")


def test_playing_stops_at_lora_b_then_at_lora_a_then_at_the_end(graph):
    shown = played(graph, IMAGE_B)
    b, a = graph.leaf(IMAGE_B), graph.leaf(IMAGE_B.replace("_B", "_A"))
    shown.play()
    assert not shown.plays and shown.slider.value == b.order
    shown.play()
    assert not shown.plays and shown.slider.value == a.order


def test_a_tick_that_comes_late_changes_nothing(graph):
    shown = played(graph)
    shown.play()
    stopped = shown.slider.value
    shown.tick(stopped + 1)
    shown.tick(stopped + 2)
    assert shown.slider.value == shown.clock.value == stopped
    assert f"node {stopped} of" in shown.panel


def test_a_page_that_skips_a_tick_stops_all_the_same(graph):
    shown = played(graph)
    shown.press_play()
    shown.tick(30)
    shown.tick(41)
    assert not shown.plays and shown.slider.value == shown.clock.value == 38


def test_the_square_button_goes_to_the_start(graph):
    shown = played(graph)
    shown.slider.value = 20
    shown.clock.set_state({shown.name: False, "value": 1})
    assert shown.slider.value == 1 and "node 1 of" in shown.panel


def test_playing_goes_on_from_where_the_slider_was_put(graph):
    shown = played(graph)
    shown.press_play()
    shown.tick()
    shown.slider.set_state({"value": 200})
    assert not shown.plays and shown.clock.value == 200
    shown.press_play()
    shown.tick()
    assert shown.slider.value == 201


def test_single_steps_go_both_ways_and_end_at_the_ends(graph):
    shown = played(graph)
    assert shown.back.disabled and not shown.forth.disabled
    shown.forth.click()
    shown.forth.click()
    shown.back.click()
    assert shown.slider.value == 2 and "node 2 of" in shown.panel
    shown.slider.value = shown.slider.max
    assert shown.forth.disabled and not shown.back.disabled


def test_a_single_step_stops_the_playing(graph):
    shown = played(graph)
    shown.press_play()
    shown.tick()
    shown.forth.click()
    assert not shown.plays and shown.slider.value == shown.clock.value == 3


def test_the_buttons_jump_to_the_two_matrices(graph):
    shown = played(graph, IMAGE_B)
    shown.buttons["to lora_A"].click()
    assert shown.slider.value == graph.leaf(IMAGE_B.replace("_B", "_A")).order
    shown.buttons["to lora_B"].click()
    assert shown.slider.value == graph.leaf(IMAGE_B).order


def test_the_pace_is_that_of_the_clock(graph):
    shown = played(graph)
    before = shown.clock.interval
    shown.pace.value = min(value for _, value in shown.pace.options)
    assert shown.clock.interval < before


# ------------------------------------------------------------------------------ graphs of all kinds


@pytest.mark.parametrize("level", ["towers", "modules", "operations"])
def test_every_level_can_be_played(graph, level):
    shown = played(graph, level=level)
    shown.slider.value = 100
    groups = graph.collapse(level).groups
    assert shown.glowing == {g.key for g in groups if graph.order[99].index in g.nodes}


def test_without_graphviz_the_groups_are_listed_and_everything_else_works(graph, monkeypatch):
    monkeypatch.setattr(graphviz, "pygraphviz", None)
    shown = played(graph, IMAGE_B)
    assert html.escape(repr(graph.collapse("blocks")).splitlines()[0]) in shown.image.value
    assert "pygraphviz, which is not installed" in shown.image.value
    shown.play()
    assert shown.slider.value == graph.leaf(IMAGE_B).order
    assert "Arrived" in shown.panel


def test_without_a_name_playing_stops_at_the_first_lora_b_that_ran(graph):
    first = next(n for n in graph.order if n.is_leaf and n.where.endswith("lora_B"))
    shown = played(graph)
    shown.play()
    assert shown.slider.value == first.order


def test_without_adapters_playing_stops_at_the_first_parameter_that_ran():
    graph = step_of("nano", lora=False)
    shown = played(graph)
    shown.play()
    assert graph.order[shown.slider.value - 1].parameters == ("logit_scale",)
    assert "to logit_scale" in shown.buttons


def test_a_tensor_by_name_and_a_model_without_towers_can_be_played():
    for graph, name in ((algebra(), "w"), (sequential(), "0.weight")):
        shown = played(graph, name)
        shown.play()
        assert graph.order[shown.slider.value - 1].where == name
        assert "Arrived" in shown.panel


def test_algebra_without_modules_is_shown_operation_by_operation():
    graph = algebra()
    shown = played(graph)
    assert len(box_centres(shown.drawing)) == len(graph.nodes)


def test_playing_does_not_stop_at_inputs_without_a_name():
    graph = nameless()
    shown = played(graph)
    shown.play()
    assert shown.clock.value == len(graph.order)
    assert "a tensor without a name" in shown.panel


# ------------------------------------------------------------------------------- what is refused


def test_a_graph_in_which_nothing_ran_is_refused(graph):
    still = dataclasses.replace(
        graph, nodes=tuple(dataclasses.replace(node, visits=()) for node in graph.nodes)
    )
    with pytest.raises(ValueError, match="no node of this graph ran"):
        player(still)


def test_a_parameter_that_is_not_there_is_refused_in_the_words_of_the_graph(graph):
    with pytest.raises(ValueError, match="no parameter is called 'lora_C'"):
        player(graph, "lora_C")
    with pytest.raises(ValueError, match="give more of the name"):
        player(graph, "lora_B")
    with pytest.raises(ValueError, match="is not in this graph"):
        player(graph, "visual.trunk.stem.0.conv_kxk.0.conv.weight")


def test_a_parameter_that_the_pass_did_not_come_to_is_refused(graph):
    leaf = graph.leaf(IMAGE_B)
    nodes = [dataclasses.replace(n, visits=()) if n is leaf else n for n in graph.nodes]
    cut = dataclasses.replace(graph, nodes=tuple(nodes))
    with pytest.raises(ValueError, match=r"did not come to .*qkv\.lora_B"):
        player(cut, IMAGE_B)
