"""The player's map: which boxes are filled, which one glows, and what the window shows."""

from __future__ import annotations

import re

import pytest
from played import played
from recorded_steps import algebra, step_of
from shown import box_centres

from mclip_helpers.gradient import Graph
from mclip_helpers.widgets.gradient_map import HIGH, WIDE


@pytest.fixture(scope="module")
def graph() -> Graph:
    return step_of("nano")


def test_a_group_is_empty_until_the_pass_has_come_to_it_and_one_glows(graph):
    shown, groups = played(graph), graph.collapse("blocks").groups
    for n in (1, 8, 19, 38, 43, 103, 248, 249, 300, len(graph.order)):
        shown.slider.value = n
        later = {g.key for g in groups if g.kind != "dark" and g.order > n}
        assert shown.empty == later
        node = graph.order[n - 1]
        assert shown.glowing == {g.key for g in groups if node.index in g.nodes}
    assert later == set()


def test_dark_groups_stay_as_they_are(graph):
    shown = played(graph)
    dark = [g.key for g in graph.collapse("blocks").groups if g.kind == "dark"]
    assert len(dark) > 5
    for n in (1, 200, 366):
        shown.slider.value = n
        assert not any(f"node-{key}" in shown.style for key in dark)
    assert all(f'id="node-{key}"' in shown.image.value for key in dark)


def test_the_drawing_is_sent_once_and_a_step_is_small(graph):
    shown = played(graph)
    before = shown.image.value
    sizes = []
    for n in range(1, len(graph.order) + 1, 7):
        shown.slider.value = n
        sizes.append(len(shown.beside.value))
    assert shown.image.value is before
    assert before.count("<svg") == 1 and "<svg" not in shown.beside.value
    assert max(sizes) < 13_000


def test_two_players_do_not_disturb_each_other(graph):
    one, other = played(graph), played(graph)
    assert one.root != other.root
    one.slider.value = 40
    assert other.slider.value == 1 and "node 1 of" in other.panel
    fixed = re.search(r"<style>(.*?)</style>", one.image.value, re.DOTALL)[1]
    fixed = re.sub(r"@keyframes [^{]+\{[^{]*\{[^}]*\}\}", "", fixed)
    fixed = re.sub(r"@media [^{]+\{", "", fixed)
    for selectors in re.findall(r"([^{}]+)\{[^{}]*\}", one.style + fixed):
        assert all(part.startswith(f".{one.root} ") for part in selectors.split(","))


def test_the_running_group_is_always_inside_the_window(graph):
    for level in ("blocks", "modules"):
        shown = played(graph, level=level)
        _, _, width, _ = map(float, re.search(r'viewBox="([^"]+)"', shown.drawing)[1].split())
        places = box_centres(shown.drawing)
        assert len(places) == len(graph.collapse(level).groups)
        for n in (1, 40, 150, 249, 366):
            shown.slider.value = n
            drawn = float(re.search(r"svg\{width:(\d+)px", shown.style)[1])
            moved = re.search(r"translate\((-?\d+)px,(-?\d+)px\)", shown.style)
            (key,) = shown.glowing
            for place, shift, window in zip(
                places[key], map(float, moved.groups()), (WIDE, HIGH), strict=True
            ):
                assert 0 < place * drawn / width + shift < window


def test_the_whole_map_fits_in_the_window(graph):
    shown = played(graph)
    shown.buttons["whole map"].value = True
    wide, high = map(int, re.search(r"width:(\d+)px;height:(\d+)px", shown.style).groups())
    assert wide <= WIDE and high <= HIGH
    shown.buttons["whole map"].value = False
    assert int(re.search(r"svg\{width:(\d+)px", shown.style)[1]) > wide


def test_a_small_map_needs_no_other_view():
    assert played(algebra()).buttons["whole map"].layout.display == "none"
