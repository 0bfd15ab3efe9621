"""The boxes of a picture: what stands in each kind of group."""

from __future__ import annotations

import pytest

from mclip_helpers.gradient import (
    Collapsed,
    DarkGroup,
    Darkness,
    Kind,
    LeafGroup,
    Level,
    OperationGroup,
    Verdict,
)
from mclip_helpers.names import short_name

LAYER = "visual.trunk.stages.0.blocks.1.mlp.fc1"


def operations(*names: str, **others) -> OperationGroup:
    values = {"key": "g0", "kind": Kind.IMAGE, "tower": Kind.IMAGE, "place": LAYER} | others
    return OperationGroup(nodes=tuple(range(len(names))), operations=names, **values)


def leaves(*verdicts: Verdict, **others) -> LeafGroup:
    values = {"key": "w0", "kind": Kind.WEIGHTS, "tower": Kind.IMAGE, "place": LAYER} | others
    return LeafGroup(nodes=tuple(range(len(verdicts))), verdicts=verdicts, **values)


def dark(**others) -> DarkGroup:
    values = {"key": "d0", "kind": Kind.DARK, "tower": Kind.TEXT, "place": "text.token_embedding"}
    values |= {"darkness": Darkness.FROZEN, "weights": 1234, "is_rest": True}
    return DarkGroup(**(values | others))


@pytest.mark.parametrize(
    ("group", "heading", "detail"),
    [
        (operations(), "stages.0.blocks.1.mlp.fc1", ""),
        (operations("MmBackward0"), "stages.0.blocks.1.mlp.fc1", "MmBackward0"),
        (
            operations("TBackward0", "MmBackward0", "TBackward0", call=2),
            "stages.0.blocks.1.mlp.fc1 (call 2)",
            "T ×2, Mm",
        ),
        (
            operations("SumBackward0", kind=Kind.LOSS, tower=Kind.LOSS, place=""),
            "loss",
            "SumBackward0",
        ),
        # At the level that shows each operation its name is the heading, and its module the detail.
        (
            operations("MmBackward0", title="MmBackward0", module=LAYER),
            "MmBackward0",
            "stages.0.blocks.1.mlp.fc1",
        ),
        (operations("SumBackward0", title="the label", module=LAYER), "the label", "SumBackward0"),
        (leaves(Verdict.REACHED), "stages.0.blocks.1.mlp.fc1", ""),
        (leaves(Verdict.ZERO), "stages.0.blocks.1.mlp.fc1", "exactly zero"),
        (leaves(Verdict.NOT_REACHED, kind=Kind.INPUT, place=""), "1 input", "not reached"),
        (leaves(*[Verdict.REACHED] * 2, kind=Kind.INPUT, place=""), "2 inputs", "2 reached"),
        (
            leaves(Verdict.ZERO, Verdict.REACHED, Verdict.ZERO, kind=Kind.ADAPTER),
            "3 matrices A, B",
            "1 reached, 2 exactly zero",
        ),
        (leaves(*[Verdict.REACHED] * 1000), "1000 weights", "1000 reached"),
        (dark(), "token_embedding", "1,234 frozen weights"),
        (
            dark(place="", darkness=Darkness.NO_GRAD),
            "the rest of the text tower",
            "ran under no_grad",
        ),
        (
            dark(place="", is_rest=False, darkness=Darkness.LOST),
            "the whole text tower",
            "leads nowhere: detached, or not used",
        ),
    ],
)
def test_a_box_has_a_heading_and_a_detail_with_names_as_they_are_shortened(group, heading, detail):
    assert (group.heading(short_name), group.detail(short_name)) == (heading, detail)
    assert (group.label, group.note) == (group.heading(), group.detail())
    assert group.is_leaf == (group.key == "w0")


def test_each_kind_of_group_shortens_names_with_the_function_that_it_is_given():
    def last(name: str) -> str:
        return name.rpartition(".")[2]

    single = operations("MmBackward0", title="MmBackward0", module=LAYER)
    assert [group.heading(last) for group in (operations(), leaves(Verdict.ZERO), dark())] == [
        "fc1",
        "fc1",
        "token_embedding",
    ]
    assert single.detail(last) == "fc1"
    assert single.note == operations().label == LAYER


def test_a_collapsed_graph_knows_the_group_of_a_node_and_shows_itself_as_text():
    first, end = operations("AddBackward0"), leaves(Verdict.ZERO, key="w0", place="fc1.weight")
    shown = Collapsed(
        level=Level.BLOCKS,
        groups=(first, LeafGroup(**{**vars(end), "nodes": (1,)}), dark()),
        edges=(("g0", "w0"), ("g0", "d0")),
    )
    assert [shown.group_of(node) for node in range(3)] == [*shown.groups[:2], None]
    assert repr(shown).splitlines() == [
        f"[image] {LAYER} (AddBackward0) → fc1.weight, text.token_embedding",
        "[weights] fc1.weight (exactly zero)",
        "[dark] text.token_embedding (1,234 frozen weights)",
    ]
