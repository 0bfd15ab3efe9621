"""The names of parameters and modules."""

from __future__ import annotations

import pytest
from conftest import fresh

import mclip_helpers as mh
from mclip_helpers.names import (
    block_of,
    clean_name,
    is_adapter,
    layer_and_part,
    lies_in,
    short_name,
    tower_of,
)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("base_model.model.visual.trunk.stem.0.conv", "visual.trunk.stem.0.conv"),
        ("base_model.model.visual.head.base_layer.weight", "visual.head.weight"),
        ("base_model.model.a.qkv.lora_A.default.weight", "a.qkv.lora_A"),
        ("base_model.model.a.qkv.lora_B.default", "a.qkv.lora_B"),
        ("lora_A.default.weight", "lora_A"),
        ("base_layer.weight", "weight"),
        ("a.lora_A.default.bias", "a.lora_A.bias"),
        ("a.lora_A.other.weight", "a.lora_A.other.weight"),
        ("base_model.model", ""),
        ("base_model", ""),
        ("", ""),
        # These only look like PEFT's.
        ("x.base_layers.0.weight", "x.base_layers.0.weight"),
        ("base_models.0.weight", "base_models.0.weight"),
        ("base_model.encoder.weight", "base_model.encoder.weight"),
        ("xlora_A.default.weight", "xlora_A.default.weight"),
    ],
)
def test_clean_name_takes_away_what_peft_added_and_no_more(name: str, clean: str):
    assert clean_name(name) == clean
    assert clean_name(clean) == clean


def test_a_cleaned_name_is_that_of_the_model_before_its_adapters():
    model = fresh("nano").model
    mh.split_attention(model)
    before = [name for name, _ in model.named_parameters()]
    modules = {name for name, _ in model.named_modules()}
    lora_model = mh.inject_lora(model, targets="all")
    after = [name for name, _ in lora_model.named_parameters()]
    assert [clean_name(name) for name in after if not is_adapter(name)] == before
    for name in after:
        layer, part = layer_and_part(name)
        assert layer in modules
        assert (part in ("A", "B")) == is_adapter(name)
    cleaned = {clean_name(name) for name, _ in lora_model.named_modules() if not is_adapter(name)}
    assert cleaned == modules


@pytest.mark.parametrize(
    ("name", "short", "block"),
    [
        (
            "visual.trunk.stages.3.blocks.0.mlp.fc1",
            "stages.3.blocks.0.mlp.fc1",
            "stages.3.blocks.0",
        ),
        ("visual.trunk.stages.3.blocks.0", "stages.3.blocks.0", "stages.3.blocks.0"),
        ("visual.trunk.stages.2.downsample.proj.0", "stages.2.downsample.proj.0", None),
        ("visual.trunk.stages.2", "stages.2", "stages.2"),
        ("visual.trunk.head.fc", "head.fc", "head"),
        ("base_model.model.text.transformer.resblocks.3.attn", "resblocks.3.attn", "resblocks.3"),
        ("text.transformer", "transformer", "transformer"),
        ("text.token_embedding.weight", "token_embedding.weight", "token_embedding"),
        ("visual.layer1.0.conv2", "visual.layer1.0.conv2", "visual.layer1.0"),
        ("visual.layer1", "visual.layer1", "visual"),
        ("logit_scale", "logit_scale", "logit_scale"),
        ("", "", ""),
    ],
)
def test_a_block_is_as_short_as_can_be(name: str, short: str, block: str | None):
    assert short_name(name) == short
    assert block_of(name) == ("stages.2.downsample" if block is None else block)


def test_a_parameter_called_a_is_no_adapter():
    assert layer_and_part("mixer.A") == ("mixer", "A")
    assert not is_adapter("mixer.A") and not is_adapter("flora_A.weight")
    assert layer_and_part("x.lora_A.default.weight") == ("x", "A")


@pytest.mark.parametrize(
    ("name", "tower"),
    [
        ("visual", "image"),
        ("base_model.model.visual.head.fc.lora_A.default.weight", "image"),
        ("text.transformer.resblocks.0", "text"),
        ("transformer.resblocks.0", "text"),  # in a CLIP whose text tower has no name of its own
        ("visually", "text"),
        ("logit_scale", None),
        ("logit_bias", None),
        ("text_decoder.resblocks.0.attn.q_proj", None),  # in CoCa, beside both towers
        ("base_model.model", None),
        ("", None),
    ],
)
def test_what_is_not_in_the_image_tower_is_in_the_text_tower(name: str, tower: str | None):
    assert tower_of(name) == tower


@pytest.mark.parametrize(
    ("name", "module", "inside"),
    [
        ("visual.stages.3.blocks.0.mlp", "stages.3.blocks.0", True),
        ("visual.stages.3.blocks.0", "stages.3.blocks.0", True),
        ("visual.stages.3.blocks.01.mlp", "stages.3.blocks.0", False),
        ("visual.xstages.3", "stages.3", False),
        ("base_model.model.head.fc.lora_A.default", "head.fc.base_layer", True),
        ("stages.3", "stages.3.blocks", False),
    ],
)
def test_a_name_lies_in_a_module_if_all_parts_of_the_module_are_in_it(name, module, inside):
    assert lies_in(name, module) is inside
