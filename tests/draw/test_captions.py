"""Captions as matplotlib writes them."""

from __future__ import annotations

import pytest
import torch
from shown import HOSTILE, texts

import mclip_helpers as mh
from mclip_helpers import draw
from mclip_helpers.draw.captions import can_write, escaped, wrapped


def test_a_long_caption_is_wrapped_between_words():
    lines = wrapped("a rather long caption of several words", 10).split("\n")
    assert 1 < len(lines) <= 3
    assert " ".join(lines) == "a rather long caption of"[: len(" ".join(lines))]
    assert all(len(line) <= 10 for line in lines)


def test_a_word_longer_than_a_line_stays_whole():
    assert wrapped("a b incomprehensibilities c", 5) == "a b\nincomprehensibilities\nc"
    assert wrapped("  ", 5) == ""


@pytest.mark.parametrize("text", ["plain", "un café à 3 €", "кошка", "γάτα", "two\nlines", ""])
def test_matplotlib_can_write_what_its_font_has(text: str):
    assert can_write(text)


@pytest.mark.parametrize("text", ["고양이", "猫", "a 🐈", "बिल्ली", "قطة", "בלת"])
def test_matplotlib_can_not_write_other_letters_nor_from_right_to_left(text: str):
    assert not can_write(text)


def test_dollar_signs_are_escaped():
    assert escaped("$5 or $6") == r"\$5 or \$6"


def test_dollar_signs_and_markup_in_captions_are_drawn_as_they_are(hostile):
    pictures = [picture for picture, _ in hostile]
    hostile = mh.PictureDataset(hostile.pairs)
    for chart in (
        draw.pictures(hostile),
        draw.ranking(HOSTILE, torch.rand(3), hostile),
        draw.probabilities(torch.rand(1, 2), pictures[:1], [HOSTILE, "b"]),
        draw.similarity(torch.rand(3, 3), pictures, hostile.captions),
    ):
        assert any("$\\frac{$5" in text for text in texts(chart))
