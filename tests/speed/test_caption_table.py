"""A frozen text tower is asked once, and a tower that moves is not mistaken for a frozen one."""

from __future__ import annotations

import pytest
import torch
from small_batches import small_batch
from torch import nn

import mclip_helpers as mh
from mclip_helpers.speed import CaptionTable, is_constant, plain_encoders


@pytest.mark.parametrize(
    ("targets", "constant"),
    [("image", ["text"]), ("text", ["image"]), ("all", []), ("first", ["text"])],
)
def test_a_tower_without_adapters_is_constant_and_one_with_them_is_not(
    nano: mh.Clip, targets: str, constant: list[str]
):
    mh.inject_lora(nano.model, rank=2, targets=targets)
    assert [tower for tower in ("image", "text") if is_constant(nano.model, tower)] == constant


def test_what_moves_in_training_is_not_constant(nano: mh.Clip):
    model = nano.model.requires_grad_(False)
    assert is_constant(model, "text")
    assert not is_constant(model, "image"), "its batch norm moves"
    mh.freeze_batch_norm(model)
    assert is_constant(model, "image")
    modes = [module.training for module in model.modules()]
    assert is_constant(model, "image")
    assert [module.training for module in model.modules()] == modes
    model.text.transformer.resblocks[0].mlp.append(nn.Dropout(0.1))
    assert not is_constant(model, "text")


def test_the_table_gives_what_the_tower_gives(clip: mh.Clip):
    clip.model.requires_grad_(False)
    _, tokens = small_batch(clip)
    captions = ["a tree", "something else", *[f"a {t}" for t in ("cat", "dog", "car", "house")]]
    captions += ["a apple", "a moon", "a hand", "a cat"]
    table = CaptionTable(clip, captions)
    assert len(table) == 9, "the same caption once"
    with torch.no_grad():
        expected = plain_encoders(clip).text(tokens)
    assert table(tokens).shape == expected.shape
    assert ((table(tokens) - expected).norm() / expected.norm()) < 1e-5
    assert not table(tokens).requires_grad


def test_a_caption_that_is_not_there_is_an_error(nano: mh.Clip):
    nano.model.requires_grad_(False)
    table = CaptionTable(nano, ["a cat"])
    with pytest.raises(KeyError):
        table(nano.tokenizer(["a dog"]))


def test_a_text_tower_that_is_trained_has_no_table(nano: mh.Clip):
    with pytest.raises(ValueError, match="can't be computed once"):
        CaptionTable(nano, ["a cat"])
