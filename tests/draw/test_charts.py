"""Bars and curves."""

from __future__ import annotations

import pytest
from matplotlib.colors import to_rgba
from shown import png, texts

from mclip_helpers import draw


def test_bars_are_as_long_as_their_numbers_and_keep_their_order_and_colours():
    chart = draw.bars({"b": 10, "a": 2000}, title="t", unit=" ms", colours={"a": "#ff0000"})
    axes = chart.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [10, 2000]
    assert axes.patches[1].get_facecolor() == (1, 0, 0, 1)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["b", "a"]
    assert axes.yaxis_inverted(), "the first stands on top"
    assert {"10 ms", "2,000 ms", "t"} <= set(texts(chart))


@pytest.mark.filterwarnings("error::UserWarning")
def test_bars_of_nothing_but_zeros_can_be_drawn():
    png(draw.bars({"a": 0}))


def test_curves_draws_each_curve_in_its_colour_and_names_them_where_there_are_several():
    values = {"a": [1, 2, 3], "b": [3, 2, 1]}
    chart = draw.curves([1, 2, 4], values, title="t", xlabel="x", ylabel="y", colours={"b": "red"})
    [axes] = chart.axes
    assert {line.get_label(): list(line.get_ydata()) for line in axes.lines} == values
    assert all(list(line.get_xdata()) == [1, 2, 4] for line in axes.lines)
    colours = [to_rgba(line.get_color()) for line in axes.lines]
    assert colours == [to_rgba(draw.COLOURS["adapter"]), to_rgba("red")]
    assert {"a", "b", "t", "x", "y"} <= set(texts(chart))
    assert draw.curves([1], {"alone": [1]}).axes[0].get_legend() is None


@pytest.mark.parametrize(
    ("log", "scales"),
    [
        ("", ("linear", "linear")),
        ("x", ("log", "linear")),
        ("y", ("linear", "log")),
        ("xy", ("log", "log")),
    ],
)
def test_curves_has_logarithmic_axes_where_asked_for(log: str, scales: tuple[str, str]):
    [axes] = draw.curves([1, 3, 4], {"a": [1, 2, 3]}, log=log).axes
    assert (axes.get_xscale(), axes.get_yscale()) == scales
    if "x" in log:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "3", "4"]


def test_curves_marks_values_of_x_by_vertical_lines_with_names():
    [axes] = draw.curves([0, 1], {"a": [1, 2]}, at={"here": 0.25, "there": 0.5}).axes
    upright = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert upright == [0.25, 0.5]
    assert [(t.get_text(), t.get_position()[0]) for t in axes.texts] == [
        ("here", 0.25),
        ("there", 0.5),
    ]
