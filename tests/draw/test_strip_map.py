"""The small map in each frame of the strip."""

from __future__ import annotations

import pytest
from recorded_steps import IMAGE_B, algebra, sequential, step_of

from mclip_helpers.draw.strip_map import ROWS, span, strip_map


@pytest.mark.parametrize("level", ["blocks", "modules", "operations", "towers"])
@pytest.mark.parametrize("name", ["nano", "MobileCLIP2-S0"])
def test_no_map_has_more_rows_than_can_be_read(name, level):
    graph = step_of(name)
    for axes in graph.frames(IMAGE_B, level).plot().axes:
        columns: dict[float, set[float]] = {}
        for text in axes.texts:
            if text.get_ha() == "center" and text.get_position()[1] > 0:
                x, y = text.get_position()
                columns.setdefault(round(x, 2), set()).add(round(y, 3))
        assert max(map(len, columns.values())) <= ROWS
        sizes = [t.get_fontsize() for t in axes.texts]
        assert min(sizes) >= 6


def test_labels_of_blocks_that_share_a_row_say_which():
    assert span(["resblocks.11", "resblocks.10", "resblocks.9"]) == "resblocks.11…9"
    assert span(["stages.3.blocks.0", "stages.3.pos_emb"]) == "stages.3 × 2"
    assert span(["head", "final_conv", "stem"]) == "head + 2"


@pytest.mark.parametrize("level", ["blocks", "modules", "operations", "towers"])
def test_each_group_of_operations_is_in_one_row_and_the_loss_on_top(level):
    frames = step_of("nano").frames(IMAGE_B, level)
    plan = strip_map(frames)
    keys = [group.key for row in plan.rows for group in row.groups]
    assert sorted(keys) == sorted(g.key for g in frames.shown.groups if not g.is_leaf)
    assert plan.rows[0] is plan.loss and plan.loss.kind == "loss"
    assert len(plan.columns) == 2
    for rows in plan.columns:
        assert 1 <= len(rows) <= ROWS
        lit = [row.order for row in rows if row.kind != "dark"]
        assert lit == sorted(lit)


def test_the_groups_at_which_a_frame_stops_have_rows_of_their_own():
    frames = step_of("MobileCLIP2-S0").frames(IMAGE_B)
    rows = {group.key: row for row in strip_map(frames).rows for group in row.groups}
    assert any(len(row.groups) > 1 for row in rows.values())
    stops = [frames.shown.group_of(frame.node.index) for frame in frames.frames]
    stops = [group for group in stops if not group.is_leaf and group.kind != "loss"]
    assert len(stops) >= 2
    assert all(rows[group.key].groups == [group] for group in stops)


@pytest.mark.parametrize(("make", "name"), [(algebra, "w"), (sequential, "0.weight")])
def test_without_towers_there_is_one_column_and_no_loss_above(make, name):
    graph = make()
    plan = strip_map(graph.frames(name))
    assert plan.loss is None
    assert len(plan.columns) == 1
    beside = [node for row in plan.rows for group in row.beside for node in group.nodes]
    assert sorted(beside) == [node.index for node in graph.nodes if node.is_leaf]
