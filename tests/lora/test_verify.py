"""What an adapter is compared with: the model's layers as they are once attention is split."""

from __future__ import annotations

import pytest
from conftest import CASES, skeleton

import mclip_helpers as mh
from mclip_helpers.lora.verify import Layer, adaptable_layers, check_targets


@pytest.mark.parametrize("name", CASES)
def test_the_layers_are_the_same_before_and_after_attention_is_split_and_under_adapters(name: str):
    model = skeleton(name).model
    before = _layers(model)
    assert before
    mh.split_attention(model)
    assert _layers(model) == before
    if name == "nano":  # adapters need numbers
        assert _layers(mh.inject_lora(model, rank=1, targets="all")) == before


@pytest.mark.parametrize("name", CASES)
def test_every_target_can_be_adapted(name: str):
    model = skeleton(name).model
    layers = _layers(model)
    mh.split_attention(model)
    assert set(mh.lora_targets(model, "all")) <= set(layers)


def test_an_adapters_shapes_are_those_that_peft_makes():
    model = skeleton("nano").model
    layers = _layers(model)
    lora_model = mh.inject_lora(model, rank=3, targets="all")
    for name, layer in mh.lora_layers(lora_model):
        for part in ("lora_A", "lora_B"):
            shape = tuple(getattr(layer, part)["default"].weight.shape)
            assert layers[name].adapter_shape(part, 3) == shape


@pytest.mark.parametrize(
    ("targets", "adapted"),
    [
        (r"a\.fc|b\.fc", {"a.fc", "b.fc"}),
        (["fc"], {"a.fc", "b.fc"}),
        (["a.fc"], {"a.fc"}),
        (["b.fc", "proj"], {"b.fc", "proj"}),
    ],
)
def test_names_mean_what_they_mean_to_peft(targets: str | list[str], adapted: set[str]):
    layers = {name: Layer((2, 2), None) for name in ("a.fc", "b.fc", "proj", "b.proj_out")}
    assert check_targets(targets, adapted, layers)
    for wrong in (adapted - {min(adapted)}, adapted | {"b.proj_out"}):
        with pytest.raises(ValueError, match="adapter"):
            check_targets(targets, wrong, layers)


@pytest.mark.parametrize("pattern", [r".*fc", r"(a+)+$", r"a\.f[c]", "a.fc(|)"])
def test_a_pattern_is_not_run(pattern: str):
    assert not check_targets(pattern, {"a.fc"}, {"a.fc": Layer((2, 2), None)})


def _layers(model) -> dict[str, Layer]:
    layers = adaptable_layers(model)
    return {name: layer for name, layer in sorted(layers.items()) if isinstance(layer, Layer)}
