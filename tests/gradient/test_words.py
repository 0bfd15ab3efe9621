"""No code reads a word back: with every word replaced by nonsense, everything else is the same."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import fresh
from recorded_steps import clip_loss
from torch import nn

import mclip_helpers as mh
from mclip_helpers.draw.collapsed import lay_out_groups
from mclip_helpers.draw.strip_map import strip_map
from mclip_helpers.gradient import (
    LEVELS,
    Cause,
    Darkness,
    Graph,
    Kind,
    Reason,
    Scene,
    Verdict,
    derivatives,
)
from mclip_helpers.gradient import words as the_words
from mclip_helpers.widgets import player

TABLES = {
    "VERDICTS": Verdict,
    "CAUSES": Cause,
    "KINDS": Kind,
    "DARKNESS": Darkness,
    "NOTHING_WITHIN": Darkness,
    "SCENES": Scene,
}


@pytest.mark.parametrize("table", TABLES)
def test_there_are_words_for_every_value_and_for_no_other(table: str):
    assert set(getattr(the_words, table)) == set(TABLES[table])


@pytest.mark.parametrize("cause", Cause)
def test_every_reason_can_be_said_without_its_data(cause: Cause):
    text = str(Reason(cause))
    assert text and "{" not in text


class Broken(nn.Module):
    """A module for each reason not to get a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.zero = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.cut, self.silent, self.unused = (nn.Linear(3, 3) for _ in range(3))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.ignored = nn.Parameter(torch.ones(3))
        nn.init.zeros_(self.zero.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            silent = self.silent(x)
        return self.zero(self.first(self.frozen(x))) + self.cut(x).detach() + silent


def recordings() -> list[Graph]:
    """A step of nano with adapters, and one in which everything goes wrong."""
    clip = fresh("nano")
    torch.manual_seed(0)
    broken = Broken()
    lora_model = mh.inject_lora(clip.model)
    with mh.trace(lora_model) as tape:
        clip_loss(clip).backward()
    optimizer = torch.optim.SGD(broken.zero.parameters())
    with mh.trace(broken, optimizer) as other:
        broken(torch.ones(2, 3)).square().sum().backward()
    return [tape.graph, other.graph]


def everything_but_the_words(graph: Graph) -> list:
    """What the recorder, the pictures and the player make of a recording, as values."""
    values: list = [graph.roots, graph.calls, graph.saved]
    values += [dataclasses.replace(node, visits=()) for node in graph.nodes]
    values += [(g.name, g.verdict, g.reasons, g.norm) for g in graph.gradients]
    values += [graph.gradients.dead, graph.gradients.forgotten, graph.gradients.causes()]
    values.append([row[1] for row in graph.gradients.table().rows])
    for level in LEVELS:
        shown = graph.collapse(level)
        values += [shown.groups, shown.edges]
        if level in ("towers", "blocks"):
            values.append(set(lay_out_groups(shown).centres))
    values.append(graph.norms().towers.keys())
    for leaf in graph.leaves:
        path = graph.path(leaf)
        values += [[node.index for node in path.nodes], path.kinds, path.ways]
    frames = graph.frames()
    values.append([(frame.scene, frame.name, frame.node.index) for frame in frames.frames])
    values.append([[(row.kind, row.order) for row in rows] for rows in strip_map(frames).columns])
    values.append(places_where_the_player_stops(graph))
    return values


def places_where_the_player_stops(graph: Graph) -> list[int]:
    box = player(graph)
    clock, _, _, slider = box.children[0].children
    playing = "playing" if clock.has_trait("playing") else "_playing"
    places = []
    while slider.value < slider.max:
        clock.set_state({playing: True})
        while getattr(clock, playing) and slider.value < slider.max:
            clock.set_state({"value": slider.value + 1})
        places.append(slider.value)
    return places


def test_rewording_changes_nothing_but_the_words(monkeypatch: pytest.MonkeyPatch):
    before = [everything_but_the_words(graph) for graph in recordings()]
    assert {Cause.CUT_OFF, Cause.NO_GRAD, Cause.NOT_CALLED, Cause.UNUSED, Cause.ZERO_FACTOR} | {
        Cause.FROZEN,
        Cause.NOT_IN_OPTIMIZER,
    } <= set(recordings()[1].gradients.causes())
    for name, table in [*vars(the_words).items(), ("WORDS", derivatives.WORDS)]:
        if isinstance(table, dict) and name.isupper():
            for key in table:  # in place: other modules hold the same dictionaries
                monkeypatch.setitem(table, key, "w")
        elif isinstance(table, str) and name.isupper():
            monkeypatch.setattr(the_words, name, "w")
    after = [everything_but_the_words(graph) for graph in recordings()]
    assert str(Verdict.ZERO) == "w"
    assert len(before[0]) == len(after[0]) > 400
    for old, new in zip(before, after, strict=True):
        for a, b in zip(old, new, strict=True):
            assert a == b
