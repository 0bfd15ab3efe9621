"""A fresh adapter is what was asked for, on a model that is otherwise as it was."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from conftest import fresh, load_once
from lora_checks import (
    batch_norms,
    difference,
    form,
    outputs,
    same_bits,
    two_steps,
    untouched,
    with_random_adapters,
)
from peft.tuners.lora import LoraLayer
from torch import nn

import mclip_helpers as mh
from mclip_helpers.lora import why_not


def test_rank_alpha_and_dropout_reach_every_layer(nano: mh.Clip):
    lora_model = mh.inject_lora(nano.model, rank=3, alpha=12, dropout=0.25)
    for name, layer in mh.lora_layers(lora_model):
        assert layer.r["default"] == 3, name
        assert layer.scaling["default"] == 4, name
        assert layer.lora_dropout["default"].p == 0.25, name
        assert layer.lora_A["default"].weight.shape[0] == 3, name


def test_linear_1x1_and_larger_convolutions_are_trained_saved_and_merged(
    nano: mh.Clip, tmp_path: Path
):
    fit = [(n, m) for n, m in nano.model.visual.named_modules() if why_not(m) is None]
    convolutions = [(f"visual.{n}", m) for n, m in fit if isinstance(m, nn.Conv2d)]
    small = next(n for n, m in convolutions if m.kernel_size == (1, 1))
    large = next(n for n, m in convolutions if m.kernel_size == (3, 3))
    linear = next(f"visual.{n}" for n, m in fit if isinstance(m, nn.Linear))

    lora_model = mh.inject_lora(nano.model, targets=[small, large, linear])
    images, tokens = torch.rand(2, 3, *nano.model.visual.image_size), nano.tokenizer(["a", "dog"])
    two_steps(lora_model, images, tokens)
    trained = outputs(lora_model, images, tokens)
    loaded = mh.load_adapter(fresh("nano").model, mh.save_adapter(lora_model, tmp_path / "adapter"))
    assert torch.equal(outputs(loaded, images, tokens), trained)
    merged = mh.merge_adapter(loaded)
    base = load_once("nano").model.state_dict()
    changed = {n for n, v in merged.state_dict().items() if not torch.equal(v, base[n])}
    assert changed == {f"{name}.weight" for name in (small, large, linear)}
    assert difference(outputs(merged, images, tokens), trained) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rank": 0}, "rank is 0; it must be a whole number, at least 1"),
        ({"rank": 2.5}, r"rank is 2.5 \(a float\); it must be a whole number"),
        ({"dropout": 1.5}, "dropout is 1.5"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"targets": "("}, r"'\(' is not a regular expression"),
        ({"targets": None}, "targets is None; it must be one of"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_changes(nano, arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        mh.inject_lora(nano.model, **arguments)
    untouched(nano.model, "nano")


def test_a_second_injection_is_refused_and_the_first_kept(nano: mh.Clip):
    lora_model = mh.inject_lora(nano.model, rank=2)
    before = form(lora_model)
    with pytest.raises(ValueError, match="has LoRA adapters already"):
        mh.inject_lora(nano.model, rank=4)
    with pytest.raises(ValueError, match="has LoRA adapters already"):
        mh.inject_lora(lora_model, rank=4)
    assert form(lora_model) == before


def test_a_merged_model_can_be_injected_anew(nano: mh.Clip):
    merged = mh.merge_adapter(mh.inject_lora(nano.model, rank=2))
    lora_model = mh.inject_lora(merged, rank=4)
    assert {layer.r["default"] for _, layer in mh.lora_layers(lora_model)} == {4}


@pytest.mark.parametrize("name", ["nano", "MobileCLIP2-S0"])
def test_a_deepcopy_of_an_adapted_model_is_equal_and_apart(name: str):
    clip = fresh(name)
    lora_model = with_random_adapters(clip)
    torch.manual_seed(0)
    tokens = clip.tokenizer(["a red apple", "a dog"])
    with torch.no_grad():
        expected = lora_model.encode_text(tokens)
        twin = copy.deepcopy(lora_model)
        assert torch.equal(twin.encode_text(tokens), expected)
        for p in mh.trainable_parameters(twin).values():
            p.zero_()
        assert not torch.equal(twin.encode_text(tokens), expected)
        assert torch.equal(lora_model.encode_text(tokens), expected)
        twin.train()
        assert not any(norm.training for norm in batch_norms(twin))
    merged = mh.merge_adapter(twin)  # its B is zero now: what comes out is the base
    same_bits(merged.state_dict(), load_once(name).model.state_dict())
    assert any(isinstance(m, LoraLayer) for m in lora_model.modules()), (
        "merging spared the original"
    )
