"""Folded, the trunk computes the same with fewer convolutions, and nothing saved knows of it."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import fresh
from lora_checks import same_bits

import mclip_helpers as mh
from mclip_helpers.lora import batch_norms, fold, unfold
from mclip_helpers.lora.state import base_state_dict, fingerprint, merged_state_dict

NAMES = ("nano", "MobileCLIP2-S0")


def some(name: str) -> torch.nn.Module:
    """A model whose batch norms do something."""
    model = fresh(name).model
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return model.double().eval()


def pictures(model: torch.nn.Module, n: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, *model.visual.image_size, generator=generator, dtype=torch.float64)


def in_order(state: dict) -> dict:
    return dict(sorted(state.items()))


def trained(model: torch.nn.Module, targets: str = "image") -> torch.nn.Module:
    torch.manual_seed(1)
    lora_model = mh.inject_lora(model, 2, 4, targets=targets)
    with torch.no_grad():
        for name, parameter in lora_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return lora_model.eval()


@pytest.mark.parametrize(
    ("name", "keep"),
    [("nano", None), ("nano", ()), ("MobileCLIP2-S0", None), ("MobileCLIP-B", ())],
    ids=["nano, targets stay", "nano, all", "MobileCLIP2-S0, targets stay", "MobileCLIP-B, all"],
)
def test_folded_it_computes_the_same_and_unfolded_it_is_the_same(name, keep):
    model = some(name)
    before, state = model.encode_image(pictures(model)), copy.deepcopy(model.state_dict())
    names = fold(model, keep)
    with torch.no_grad():
        folded = model.encode_image(pictures(model))
    assert (folded - before).norm() < 1e-12 * before.norm()
    assert names and len(batch_norms(model)) < len(batch_norms(some(name)))
    same_bits(in_order(base_state_dict(model)), in_order(state))
    assert unfold(model) == names
    same_bits(model.state_dict(), state)
    assert torch.equal(model.encode_image(pictures(model)), before)


@pytest.mark.parametrize("name", NAMES)
def test_a_target_set_means_the_same_layers_folded_and_unfolded(name):
    model = some(name)
    sets = {targets: mh.lora_targets(model, targets) for targets in ("image", "first")}
    fold(model)
    assert {targets: mh.lora_targets(model, targets) for targets in sets} == sets


def test_with_nothing_to_keep_the_only_batch_norms_left_follow_no_convolution():
    model = some("nano")
    fold(model, keep=())
    left = [n for n, m in model.visual.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert left == [f"trunk.stages.3.blocks.{i}.norm" for i in (0, 1)], "those before attention"


@pytest.mark.parametrize("targets", ["image", "first", "default"])
def test_gradients_of_adapters_are_the_same_to_ten_digits(targets):
    gradients = []
    for folding in (False, True):
        model = some("nano")
        if folding:
            fold(model)
        lora_model = trained(model, targets).train()
        texts = fresh("nano").tokenizer(["a", "b"])
        loss = mh.contrastive_loss(
            lora_model.encode_image(pictures(model, 2)),
            lora_model.encode_text(texts),
            model.logit_scale.exp(),
        )
        loss.backward()
        gradients.append({n: p.grad for n, p in lora_model.named_parameters() if p.requires_grad})
    plain, folded = gradients
    assert list(plain) == list(folded)
    for name, gradient in plain.items():
        assert (gradient - folded[name]).norm() <= 1e-10 * gradient.norm(), name


def test_an_adapter_trained_folded_loads_unfolded_and_the_other_way_round(tmp_path):
    folded, plain = fresh("nano").model.eval(), fresh("nano").model.eval()
    fold(folded)
    lora_model = trained(folded)
    mh.save_adapter(lora_model, tmp_path / "a", merged=True)
    images = pictures(plain).float()
    loaded = mh.load_adapter(plain, tmp_path / "a")
    with torch.no_grad():
        expected, found = lora_model.encode_image(images), loaded.encode_image(images)
    assert (expected - found).norm() < 1e-5 * expected.norm()
    assert fingerprint(lora_model) == fingerprint(loaded)

    other = fresh("nano").model.eval()
    fold(other)
    back = mh.load_adapter(other, tmp_path / "a")
    with torch.no_grad():
        assert torch.equal(back.encode_image(images), expected)


def test_it_merges_back_into_open_clips_own_state_dict():
    folded, plain = fresh("nano").model.eval(), fresh("nano").model.eval()
    fold(folded)
    lora_model, expected = trained(folded), merged_state_dict(trained(plain))
    same_bits(in_order(merged_state_dict(lora_model)), in_order(expected))
    merged = mh.merge_adapter(lora_model)
    fresh("nano").model.load_state_dict(merged.state_dict(), strict=True)
    for name, value in merged.state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_folding_comes_before_adapters_and_unfolding_after_them():
    model = some("nano")
    trained(model)
    with pytest.raises(ValueError, match="adapters already"):
        fold(model)
    model = some("nano")
    fold(model)
    trained(model)
    with pytest.raises(ValueError, match="adapters already"):
        unfold(model)


def test_a_second_fold_finds_nothing_left():
    model = some("nano")
    assert fold(model) and fold(model) == []
