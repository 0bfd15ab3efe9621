"""What a step costs: counted bytes, and times that are only ever compared."""

from __future__ import annotations

import functools

import pytest
import torch
from conftest import fresh

import mclip_helpers as mh
from mclip_helpers.comparison import WAYS, costs


@pytest.fixture(scope="module")
def found():
    clip = fresh("nano")
    batch = torch.rand(4, 3, *clip.image_size), clip.tokenizer(["a", "b", "c", "d"])
    return costs(functools.partial(fresh, "nano"), WAYS, *batch, rounds=1)


def test_what_trains_nothing_has_no_step(found):
    assert list(found) == [way for way in WAYS if WAYS[way].prepare is not None]
    assert all(cost.seconds > 0 for cost in found.values())


def test_what_is_kept_is_what_the_recorder_counts(found):
    clip = fresh("nano")
    lora_model = mh.inject_lora(clip.model, targets="first")
    lora_model.train()
    with mh.trace(lora_model) as tape:
        features = (
            clip.model.encode_image(torch.rand(4, 3, *clip.image_size)),
            clip.model.encode_text(clip.tokenizer(["a", "b", "c", "d"])),
        )
        mh.contrastive_loss(*features, clip.model.logit_scale.exp()).backward()
    assert found["LoRA, first layers"].kept == tape.graph.saved.total


def test_state_is_three_numbers_for_each_that_is_trained(found):
    assert found["LoRA, first layers"].state == 12 * 12_056
    assert found["full"].state == 12 * 8_924_001


def test_the_early_adapters_keep_nearly_as_much_as_all_of_them_and_heads_next_to_nothing(found):
    kept = {way: cost.kept for way, cost in found.items()}
    assert kept["heads"] < kept["LoRA"] / 50
    assert 0.9 * kept["LoRA"] < kept["LoRA, first layers"] <= kept["LoRA"] < kept["full"]
