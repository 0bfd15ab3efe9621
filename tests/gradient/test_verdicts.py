"""The gradients of all parameters: verdicts, adapters, and the table."""

from __future__ import annotations

import torch
from graphs import recorded
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import Verdict


def test_in_the_first_step_each_b_is_reached_and_each_a_exactly_zero():
    seen = recorded("image only")
    for gradients in (mh.gradients(seen.model), seen.graph.gradients):
        towers = {}
        for g in gradients:
            if g.part in ("A", "B"):
                towers.setdefault((g.tower, g.part), set()).add(g.verdict)
        assert towers == {
            ("image", "A"): {Verdict.ZERO},
            ("image", "B"): {Verdict.REACHED},
            ("text", "A"): {Verdict.NOT_REACHED},
            ("text", "B"): {Verdict.NOT_REACHED},
        }
        named = [name for name, _ in mh.lora_layers(seen.model)]
        assert gradients.dead == tuple(name for name in named if mh.tower_of(name) == "text")


def test_gradients_of_a_plain_model_have_the_names_of_its_layers():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    model[0].bias.requires_grad_(False)
    model(torch.ones(1, 2)).sum().backward()
    verdicts = {(g.layer, g.part): g.verdict for g in mh.gradients(model)}
    assert verdicts.keys() == {("0", "weight"), ("0", "bias"), ("2", "weight"), ("2", "bias")}
    assert verdicts["0", "bias"] == "frozen"
    assert verdicts["2", "bias"] == Verdict.REACHED
    assert mh.gradients(model).adapters == {}
    assert mh.gradients(model).dead == ()


def test_a_dead_layer_is_told_from_one_with_a_gradient_of_zero():
    used, unused = nn.Linear(1, 1), nn.Linear(1, 1)
    (0 * used(torch.ones(1, 1))).sum().backward()
    gradients = mh.gradients(nn.ModuleList([used, unused]))
    assert gradients.count("zero") == 2
    assert gradients.count("not_reached") == 2


def test_the_table_counts_verdicts_with_their_reasons_reached_ones_first():
    seen = recorded("image only")
    gradients = seen.graph.gradients
    rows = [line.split()[0] for line in str(gradients).splitlines()[2:]]
    assert rows[:2] == ["reached", "exactly"] and rows[-1] == "frozen"
    numbers = [row[1] for row in gradients.table().rows]
    assert sum(map(int, numbers)) == len(gradients)
    assert "ran under no_grad" in str(gradients)
