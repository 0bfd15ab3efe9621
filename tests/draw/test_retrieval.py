"""Similarities, rankings, answers and probabilities, as pictures."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from shown import texts

import mclip_helpers as mh
from mclip_helpers import draw


def test_similarity_writes_every_number_in_its_place(twemoji):
    matrix = torch.tensor([[0.5, -0.25, 0.125], [1.0, 0.0, -1.0]])
    chart = draw.similarity(
        matrix, [p for p, _ in twemoji][:2], ["x", "y", "z"], number_format="{:.3f}", title="title"
    )
    heat = chart.axes[0]
    written = {t.get_position(): t.get_text() for t in heat.texts}
    assert written == {
        (column, row): f"{matrix[row, column]:.3f}" for row in range(2) for column in range(3)
    }
    assert {"x", "y", "z", "title"} <= set(texts(chart))
    assert np.array_equal(heat.images[0].get_array(), matrix.numpy())
    low, high = heat.images[0].get_clim()
    assert -low == high == 1, "white is zero"


def test_ranking_shows_the_most_similar_pictures_best_first(twemoji):
    similarities = torch.linspace(0, 0.9, len(twemoji))[torch.randperm(len(twemoji))]
    best = similarities.argsort(descending=True)[:3].tolist()
    said = texts(draw.ranking("what I look for", similarities, twemoji, top=3))
    expected = [f"{similarities[i]:.2f} {twemoji.captions[i]}" for i in best]
    assert [text for text in said if re.match(r"\d\.\d\d ", text)] == expected
    assert "“what I look for”" in said
    assert twemoji.credit in said


def test_ranking_of_fewer_pictures_than_asked_shows_them_all(twemoji):
    few = twemoji.subset([0, 1])
    said = texts(draw.ranking("q", torch.rand(2), few))
    assert all(any(caption in text for text in said) for caption in few.captions)


def test_answers_count_every_caption_of_a_picture(twemoji):
    first, second = twemoji.pairs[:2]
    first = dataclasses.replace(first, captions=("one", "another"))
    found = {"model": torch.tensor([[0.1, 0.9, 0.5], [0.9, 0.5, 0.1]])}
    chart = draw.answers(mh.PictureDataset([first, second]), [0, 1], found, top=1)
    said = [text.get_text() for text in chart.axes[0].texts]
    assert "✓ another" in said
    assert "3." in said, "two captions of another picture come before the second's own"


def test_probabilities_draws_a_bar_as_long_as_each_share_and_marks_the_largest(twemoji):
    shares = torch.tensor([[0.25, 0.75], [0.9, 0.1]])
    chart = draw.probabilities(shares, [p for p, _ in twemoji][:2], ["yes", "no"])
    bars = [axes.patches for axes in chart.axes if axes.patches]
    widths = [[bar.get_width() for bar in row] for row in bars]
    assert widths == [pytest.approx(row) for row in shares.tolist()]
    marked = to_rgba(draw.COLOURS["text"])
    found = [[bar.get_facecolor() == marked for bar in row] for row in bars]
    assert found == [[False, True], [True, False]]
    assert [t for t in texts(chart) if "%" in t] == ["25.0%", "75.0%", "90.0%", "10.0%"]


def test_ranking_of_captions_that_matplotlib_can_not_write_is_a_chart_all_the_same(twemoji):
    pairs = [dataclasses.replace(pair, captions=("고양이",)) for pair in twemoji.pairs[:2]]
    chart = draw.ranking("a cat", torch.tensor([0.5, 0.25]), mh.PictureDataset(pairs))
    assert isinstance(chart, draw.Chart)
    assert [axes.get_title() for axes in chart.axes[:2]] == ["0.50 고양이", "0.25 고양이"]


def test_answers_rank_what_is_not_a_number_as_wrong(twemoji):
    nan = float("nan")
    similarities = {
        "good": torch.tensor([[nan, 0.9, 0.5]] * 3),
        "wrong": torch.tensor([[0.9, nan, 0.5]] * 3),
        "all": torch.full((3, 3), nan),
    }
    for name, rank in (("good", "3."), ("wrong", "2."), ("all", "3.")):
        chart = draw.answers(twemoji.subset(range(3)), [0], {name: similarities[name]}, top=1)
        written = [text.get_text() for text in chart.axes[0].texts]
        assert rank in written
        if name == "good":
            assert not any(text.startswith("✓") for text in written), "NaN is no answer"
