"""The gradients of adapters, as bars."""

from __future__ import annotations

import pytest
from conftest import fresh
from shown import png, texts

import mclip_helpers as mh


def test_the_drawing_of_gradients_has_a_bar_up_to_each_norm_and_names_the_others(adapted):
    found = mh.gradients(adapted)
    chart = found.plot()
    bars = chart.axes[0].patches
    ends = sorted(bar.get_x() + bar.get_width() for bar in bars)
    assert ends == pytest.approx(sorted(g.norm for g in found if g.norm))
    said = texts(chart)
    assert sum("A: exactly 0" in text for text in said) == found.count("zero", "A") > 0
    assert sum("B: not reached" in text for text in said) == found.count("not_reached", "B") > 0
    assert len(chart.axes[0].get_yticklabels()) == len(found.adapters)


def test_gradients_of_which_none_is_reached_can_be_drawn():
    clip = mh.load_model("nano", pretrained="random", device="cpu")
    chart = mh.gradients(mh.inject_lora(clip.model, targets="text")).plot()
    assert any("not reached" in text for text in texts(chart))


def test_many_adapters_stand_in_two_columns_with_one_scale_and_fit_a_screen():
    gradients = mh.gradients(mh.inject_lora(fresh("nano").model, targets="all"))
    assert len(gradients.adapters) > 30
    left, right = gradients.plot().axes
    assert left.get_xlim() == right.get_xlim()
    rows = [len(axes.get_yticklabels()) for axes in (left, right)]
    assert sum(rows) == len(gradients.adapters)
    assert rows[0] - rows[1] in (0, 1)
    assert png(gradients.plot()).height < 1200
