"""The map of layers with and without adapters."""

from __future__ import annotations

from collections import Counter

from conftest import fresh
from matplotlib.colors import to_rgba
from torch import nn

import mclip_helpers as mh
from mclip_helpers import draw
from mclip_helpers.draw.layer_map import ADAPTED, IMPOSSIBLE, POSSIBLE
from mclip_helpers.lora import why_not
from mclip_helpers.names import block_of


def squares(chart: draw.Chart) -> Counter:
    """How many squares of each colour."""
    return Counter(patch.get_facecolor() for axes in chart.axes for patch in axes.patches)


def layers(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


def test_the_adapter_map_has_a_filled_square_for_each_adapter(adapted):
    counts = squares(draw.adapter_map(adapted))
    assert counts[to_rgba(draw.COLOURS["adapter"])] == len(list(mh.lora_layers(adapted)))
    assert counts.total() >= len(layers(fresh("nano").model))


def test_the_adapter_map_tells_layers_that_can_have_an_adapter_from_those_that_can_not():
    model = fresh("nano").model
    fit = [why_not(layer) is None for layer in layers(model).values()]
    assert squares(draw.adapter_map(model)) == {
        to_rgba(POSSIBLE.face): sum(fit),
        to_rgba(IMPOSSIBLE.face): len(fit) - sum(fit),
    }


def test_an_adapter_takes_the_square_of_its_layer_and_adds_none():
    model = fresh("nano").model
    mh.split_attention(model)
    before = squares(draw.adapter_map(model))
    after = squares(draw.adapter_map(mh.inject_lora(model, targets="all")))
    adapters = len(list(mh.lora_layers(model)))
    grey, hollow = to_rgba(POSSIBLE.face), to_rgba(IMPOSSIBLE.face)
    assert after[to_rgba(ADAPTED.face)] == adapters
    assert after[grey] == before[grey] - adapters
    assert after[hollow] == before[hollow]
    assert after.total() == before.total()


def test_each_row_is_a_block():
    model = fresh("nano").model
    axes = draw.adapter_map(model).axes
    rows = [label.get_text() for tower in axes for label in tower.get_yticklabels()]
    assert rows == list(dict.fromkeys(map(block_of, layers(model))))
