"""The adapters that the project brings along are what the study says of them."""

from __future__ import annotations

import pytest
from conftest import fresh
from data_scripts import script

import mclip_helpers as mh
from mclip_helpers.comparison import picture_ranks, read_study

study, train_adapters = script("study"), script("train_adapters")


@pytest.mark.parametrize("look", study.LOOKS)
def test_an_adapter_ranks_the_test_pictures_as_the_study_did(look):
    way, _, _ = train_adapters.best(look)
    run = read_study().measured(look, way)[train_adapters.SEED]
    clip = fresh("nano")
    lora_model = mh.load_adapter(clip.model, mh.data_folder() / "adapters" / look)
    assert run.trained == sum(p.numel() for n, p in lora_model.named_parameters() if ".lora_" in n)
    ranks = picture_ranks(clip, mh.emoji_dataset(look, "test"), shown=False)
    same = sum(one == other for one, other in zip(ranks, run.new, strict=True)) / len(ranks)
    assert same > 0.98, "all, but for what another processor rounds differently"


@pytest.mark.parametrize("look", study.LOOKS)
def test_its_card_has_the_studys_numbers(look):
    way, lr, epochs = train_adapters.best(look)
    run = read_study().measured(look, way)[train_adapters.SEED]
    card = (mh.data_folder() / "adapters" / look / "README.md").read_text(encoding="utf-8")
    for name, numbers in train_adapters.metrics(look, read_study().base(look), run).items():
        before, after, low, high = (100 * number for number in numbers)
        assert f"| {name} | {before:.1f}% | {after:.1f}% | {low:+.1f} to {high:+.1f} |" in card
    assert f"{epochs} epochs at the learning rate {lr:g}" in card
