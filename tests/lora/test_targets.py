"""Each target set names the layers that it stands for; a target that can't work is refused."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from conftest import CASES, fresh, skeleton
from lora_checks import DEFAULT_LAYERS, an_attention, untouched
from torch import nn

import mclip_helpers as mh
from mclip_helpers.lora import why_not
from mclip_helpers.lora.targets import TARGET_SETS, by_place


def adaptable(model: nn.Module, tower: str) -> list[str]:
    """Every Linear and every 1×1 convolution that is not depthwise: the rule, said once more."""
    names = []
    for name, m in model.named_modules():
        linear = isinstance(m, nn.Linear)
        pointwise = isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.groups == 1
        mine = tower == "all" or name.startswith("visual.") == (tower == "image")
        if mine and (linear or pointwise):
            names.append(name)
    return names


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("targets", TARGET_SETS)
def test_each_target_set_puts_adapters_where_it_says(name: str, targets: str):
    model, split = skeleton(name).model, skeleton(name).model
    mh.split_attention(split)
    lora_model = mh.inject_lora(model, rank=1, targets=targets)

    found = [layer for layer, _ in mh.lora_layers(lora_model)]
    assert found == mh.lora_targets(split, targets)
    if targets == "default":
        assert len(found) == DEFAULT_LAYERS[name]
        assert set(found) < set(adaptable(split, "all"))
    elif targets == "first":
        whole = adaptable(split, "image")
        assert 0.1 < len(found) / len(whole) < 0.7
        assert [layer for layer in whole if layer in found] == found
    else:
        assert found == adaptable(split, targets)


@pytest.mark.parametrize("name", CASES)
def test_image_and_text_are_the_two_halves_of_all(name: str):
    model = skeleton(name).model
    mh.split_attention(model)
    image, text, both = (set(mh.lora_targets(model, t)) for t in ("image", "text", "all"))
    assert image and text and not image & text
    assert image | text == both
    assert {mh.tower_of(layer) for layer in image} == {"image"}
    assert {mh.tower_of(layer) for layer in text} == {"text"}


@pytest.mark.parametrize("name", CASES)
def test_a_regular_expression_matches_whole_names_alone(name: str):
    """In ViT-B-32 the text tower's `transformer.…` is also the end of `visual.transformer.…`."""
    model = skeleton(name).model
    attention = mh.split_attention(model)[-1]
    lora_model = mh.inject_lora(model, targets=re.escape(attention) + r"\.(q|v)_proj")
    assert mh.tower_of(attention) == "text"
    assert [n for n, _ in mh.lora_layers(lora_model)] == [
        f"{attention}.q_proj",
        f"{attention}.v_proj",
    ]


@pytest.mark.parametrize("name", CASES)
def test_a_list_of_names_is_taken_at_its_word(name: str):
    model = skeleton(name).model
    mh.split_attention(model)
    names = mh.lora_targets(model, "text")[-3:]
    lora_model = mh.inject_lora(model, targets=names)
    assert [layer for layer, _ in mh.lora_layers(lora_model)] == names


# ----------------------------------- refusals: in words that help, and leaving everything as it was


def suggestions(message: str) -> list[str]:
    names = message.partition("These would work: ")[2].split(", ")
    assert names
    return [name for name in names if name != "…"]


def a_depthwise(model: nn.Module) -> str:
    convolutions = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    return next(n for n, m in convolutions if m.groups == m.in_channels > 1)


# What is asked for, given the model; and what the answer must say.
REFUSED: dict[str, tuple[Callable[[nn.Module], str | list[str]], str]] = {
    "no such name": (lambda model: ["no.such.layer"], r"no layer is called 'no\.such\.layer'"),
    "no match": (lambda model: "qproj", r"no layer's whole name matches 'qproj'"),
    "a name's end": (lambda model: "out_proj", r"no layer's whole name matches 'out_proj'"),
    "an empty list": (lambda model: [], r"no layer's whole name matches \[\]"),
    "a container": (
        lambda model: [an_attention(model)],
        r"is a container \(Split\w*Attention\) of q_proj",
    ),
    "a container by pattern": (
        lambda model: re.escape(an_attention(model)),
        r"is a container \(Split\w*Attention\) of q_proj",
    ),
    "a raw parameter": (
        lambda model: [an_attention(model) + ".in_proj_weight"],
        r"no layer is called '[\w.]+\.in_proj_weight'",
    ),
    "a raw parameter by pattern": (
        lambda model: re.escape(an_attention(model)) + r"\.in_proj_weight",
        r"no layer's whole name matches",
    ),
    "a norm": (
        lambda model: [next(n for n, m in model.named_modules() if isinstance(m, nn.LayerNorm))],
        r"is a LayerNorm, not a Linear or Conv2d",
    ),
    "a mixture": (
        lambda model: [an_attention(model) + ".q_proj", an_attention(model)],
        r"is a container \(Split\w*Attention\)",
    ),
    "a mixture by pattern": (
        lambda model: re.escape(an_attention(model)) + r".*",
        r"is a container \(Split\w*Attention\)",
    ),
    "a good name and an unknown one": (
        lambda model: [an_attention(model) + ".q_proj", "no.such.layer"],
        r"no layer is called 'no\.such\.layer'",
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("case", REFUSED)
def test_a_target_that_cannot_work_is_refused_with_names_that_do(case: str, name: str):
    clip = skeleton(name)
    target, words = REFUSED[case]
    with pytest.raises(ValueError, match=words) as error:
        mh.inject_lora(clip.model, targets=target(clip.model))
    untouched(clip.model, name)

    names = suggestions(str(error.value))
    lora_model = mh.inject_lora(clip.model, rank=1, targets=names)
    assert {layer for layer, _ in mh.lora_layers(lora_model)} == set(names)


@pytest.mark.parametrize("name", CASES)
def test_the_suggestions_lie_inside_the_container_that_was_asked_for(name: str):
    model = skeleton(name).model
    attention = an_attention(model)
    with pytest.raises(ValueError) as error:
        mh.inject_lora(model, targets=[attention])
    wanted = [f"{attention}.{part}_proj" for part in ("q", "k", "v", "out")]
    assert sorted(suggestions(str(error.value))) == sorted(wanted)


@pytest.mark.parametrize("name", ["nano", "MobileCLIP2-S0"])
def test_a_depthwise_convolution_is_refused_with_names_that_work(name: str):
    clip = skeleton(name)
    depthwise = a_depthwise(clip.model)
    words = re.escape(depthwise) + r" is a depthwise convolution.*multiple of its \d+ groups"
    with pytest.raises(ValueError, match=words) as error:
        mh.inject_lora(clip.model, targets=[depthwise])
    untouched(clip.model, name)
    lora_model = mh.inject_lora(clip.model, targets=suggestions(str(error.value)))
    assert len(list(mh.lora_layers(lora_model))) == len(suggestions(str(error.value)))


def test_a_grouped_convolution_is_called_by_its_name():
    assert "a grouped convolution" in why_not(nn.Conv2d(8, 8, 3, groups=2))
    assert "a depthwise convolution" in why_not(nn.Conv2d(8, 16, 3, groups=8))
    assert why_not(nn.Conv2d(8, 8, 3)) is None
    assert why_not(nn.Linear(8, 8)) is None


def test_of_many_layers_that_cannot_work_the_first_is_named_and_the_rest_counted(nano: mh.Clip):
    blocks = r"text\.transformer\.resblocks\.\d"
    count = sum(bool(re.fullmatch(blocks, name)) for name, _ in nano.model.named_modules())
    with pytest.raises(ValueError, match=rf"resblocks\.0 is .*\(and {count - 1} more like it\)"):
        mh.inject_lora(nano.model, targets=blocks)


# ---- places in the image tower ------------------------------------------------------------------


def test_the_first_layers_of_nano_are_its_stem_and_first_two_stages():
    model = fresh("nano").model
    found = mh.regions(model)
    assert list(found) == ["stem", "block 0", "block 1", "block 2", "block 3", "head"]
    assert [name for names in found.values() for name in names] == mh.lora_targets(model, "image")
    first = mh.lora_targets(model, "first")
    assert first == found["stem"] + found["block 0"] + found["block 1"]
    assert mh.inject_lora(model, 8, 16, targets="first").get_nb_trainable_parameters()[0] == 12_056


def test_the_first_layers_of_a_vit_are_half_of_its_blocks():
    names = mh.lora_targets(skeleton("MobileCLIP-B").model, "first")
    blocks = {int(name.split(".blocks.")[1].split(".")[0]) for name in names if ".blocks." in name}
    assert blocks == set(range(6))
    assert not any("head" in name for name in names)


def test_blocks_without_numbers_have_no_order():
    with pytest.raises(ValueError, match="no numbers in their names"):
        by_place(["visual.entry.conv", "visual.middle.fc", "visual.exit.fc"])


def test_what_lies_before_the_blocks_is_the_stem_and_what_lies_behind_them_the_head():
    names = [f"visual.{part}.fc" for part in ("in", "layer1.0", "layer1.1", "layer2.0", "out")]
    assert by_place(names) == {
        "stem": [names[0]],
        "block 1": names[1:3],
        "block 2": [names[3]],
        "head": [names[4]],
    }
