"""The charts of a recording: norms along a path and at each block, and the saved bytes."""

from __future__ import annotations

import itertools

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from recorded_steps import step_of
from shown import png, texts

from mclip_helpers import draw, trace
from mclip_helpers.gradient import Graph, Norms, Saved


@pytest.fixture(scope="module")
def lora() -> Graph:
    return step_of("nano")


@pytest.fixture(scope="module")
def full() -> Graph:
    return step_of("nano", lora=False)


def check_texts(chart: draw.Chart, slack: float = 2.0) -> None:
    """No two pieces of text lie on one another."""
    FigureCanvasAgg(chart).draw()
    shown = [t for t in chart.findobj(Text) if t.get_visible() and t.get_text().strip()]
    for one, other in itertools.combinations(shown, 2):
        a, b = one.get_window_extent(), other.get_window_extent()
        beside = a.x1 <= b.x0 + slack or b.x1 <= a.x0 + slack
        apart = beside or a.y1 <= b.y0 + slack or b.y1 <= a.y0 + slack
        assert apart, f"{one.get_text()!r} lies on {other.get_text()!r}"


@pytest.mark.parametrize("part", ["A", "B"])
def test_a_path_has_a_bar_as_long_as_each_norm_and_names_zeros(lora, part):
    path = lora.path(f"stages.3.blocks.0.token_mixer.qkv.lora_{part}")
    chart = path.plot()
    starts = [path.nodes[0]]  # of the rows: a module's stops share one, the loss's have one each
    for before, node in itertools.pairwise(path.nodes):
        if not node.where or (node.where, node.is_leaf) != (before.where, before.is_leaf):
            starts.append(node)
    assert sum(not node.where for node in starts) > 3
    wanted = [node.norm_in for node in starts if node.norm_in]
    bars = [bar.get_x() + bar.get_width() for bar in chart.axes[0].patches]
    assert bars == pytest.approx(wanted)
    assert sum("exactly zero" in text for text in texts(chart)) == len(starts) - len(wanted)
    assert (len(starts) > len(wanted)) == (part == "A")
    check_texts(chart)


def test_norms_have_a_bar_for_each_block_of_each_tower(lora):
    norms = lora.norms()
    chart = norms.plot()
    assert [axes.get_title(loc="left").partition(":")[0] for axes in chart.axes] == [
        "image tower",
        "text tower",
    ]
    for axes, tower in zip(chart.axes, ("image", "text"), strict=True):
        ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
        assert ends == pytest.approx([norm for _, norm in norms.towers[tower]])
        assert [t.get_text() for t in axes.get_yticklabels()] == [b for b, _ in norms.towers[tower]]
    check_texts(chart)


def test_saved_has_a_bar_for_each_block_of_each_step(lora, full):
    chart = lora.saved.plot("LoRA", **{"full fine-tuning": full.saved})
    unit = 1e6
    lengths = [bar.get_width() for bar in chart.axes[0].patches]
    for step in (lora.saved, full.saved):
        by_block = step.by("blocks")
        for size in by_block.values():
            assert any(length == pytest.approx(size / unit) for length in lengths)
    assert sum(lengths) == pytest.approx((lora.saved.total + full.saved.total) / unit)
    legend = [text.get_text() for text in chart.legends[0].get_texts()]
    assert legend[0].startswith("LoRA: ") and legend[1].startswith("full fine-tuning: ")
    check_texts(chart)


def test_recordings_without_norms_or_bytes_can_be_drawn():
    zero = Norms({"model": (("0", 0.0),)})
    for chart in (Norms({}).plot(), zero.plot(), Saved({}).plot(), Saved({"a.b": 10}).plot()):
        png(chart)
    assert any("exactly zero" in text for text in texts(zero.plot()))


def test_a_long_path_outside_of_modules_is_one_row():
    s = torch.ones(1, requires_grad=True)
    with trace({"s": s}) as tape:
        y = s
        for _ in range(100):
            y = y.sin()
        y.sum().backward()
    chart = tape.graph.path("s").plot()
    assert len(chart.axes[0].patches) == 2  # the operations, and s


def test_a_path_in_the_real_model_can_be_drawn():
    graph = step_of("MobileCLIP2-S0")
    leaf = next(name for name in graph.leaves if "lora_B" in name)
    path = graph.path(leaf).plot()
    check_texts(path)
    assert path.get_figheight() < 20
