"""Adapters change nothing until they are trained, and nothing but themselves when they are.

The same table of cases for every model: `nano` with its weights, and three others at random. One
`Journey` a model takes it from the base through training, saving and loading to the merged model;
each test below makes one claim about it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip
import pytest
import torch
from conftest import CASES, fresh, load_once, skeleton
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import nn

import mclip_helpers as mh
from mclip_helpers.lora.adapters import BASE_FILE, fingerprint
from mclip_helpers.lora.inject import TARGET_SETS
from mclip_helpers.model.clip import _place

# How many layers each set must find, counted from the architectures: text layers × 4, the last
# stage's image blocks × 2 and the head; ViT-B-32's image tower is split like its text tower.
DEFAULT_LAYERS = {
    "nano": 3 * 4 + 2 * 2 + 1,
    "MobileCLIP2-S0": 12 * 4 + 2 * 2 + 1,
    "MobileCLIP-B": 12 * 4 + 12 * 2 + 1,
    "ViT-B-32": 12 * 4 + 12 * 4,
}

State = dict[str, torch.Tensor]


def snapshot(model: nn.Module) -> State:
    """All parameters and buffers, those outside the state dict too, but no adapter's."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: t.detach().clone() for name, t in tensors if ".lora_" not in name}


def same_bits(state: State, before: State) -> None:
    assert list(state) == list(before)
    for name, value in state.items():
        assert value.dtype == before[name].dtype, name
        assert torch.equal(value, before[name]), name


@torch.no_grad()
def outputs(model: nn.Module, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The embeddings (2, 1, D) of the first picture and text, as the model in `eval` gives them."""
    assert not model.training
    return torch.stack([model.encode_image(images[:1]), model.encode_text(tokens[:1])])


def difference(left: torch.Tensor, right: torch.Tensor) -> float:
    """The larger of the two towers' relative differences."""
    norms = (left - right).flatten(1).norm(dim=1) / right.flatten(1).norm(dim=1)
    return norms.max().item()


def plain_copy(name: str, state: State) -> nn.Module:
    """A new open_clip model, which knows nothing of this project, with the numbers of `state`."""
    model = open_clip.create_model(name)
    model.load_state_dict(state, strict=True)
    # Neither changes a number, but each may choose another kernel, and so another rounding.
    return _place(model, torch.device("cpu")).requires_grad_(False).eval()


# ---- one journey a model ------------------------------------------------------------------------


@dataclass(repr=False)
class Journey:
    """What was seen on the way from a base model to the merged one."""

    name: str
    split: torch.Tensor  # outputs of the base with its attention split
    untrained: torch.Tensor  # … with fresh adapters
    trained: torch.Tensor  # … with trained ones
    disabled: torch.Tensor  # … with trained ones that are switched off
    loaded: torch.Tensor  # … saved, and loaded on a new base
    merged: torch.Tensor  # … merged into that base
    plain: torch.Tensor  # … of a new open_clip model with the merged state dict
    gradients: list[dict[str, float | None]]  # of each step, by parameter
    before: State  # the base's tensors
    after: State  # … once trained
    trainable: list[str]
    fingerprints: list[str]  # base, injected, trained
    base_state: State  # `base_state_dict` of the trained model
    merged_model: nn.Module
    folder: Path


def _two_steps(peft: nn.Module, images: torch.Tensor, tokens: torch.Tensor) -> list[dict]:
    """Two steps of AdamW under `.train()`; the norm of every parameter's gradient at each."""
    found = []
    optimizer = torch.optim.AdamW([p for p in peft.parameters() if p.requires_grad], lr=1e-2)
    peft.train()
    for _ in range(2):
        optimizer.zero_grad()
        loss = mh.contrastive_loss(
            peft.encode_image(images), peft.encode_text(tokens), peft.logit_scale.exp()
        )
        loss.backward()
        gradients = {name: p.grad for name, p in peft.named_parameters()}
        found.append({n: None if g is None else g.norm().item() for n, g in gradients.items()})
        optimizer.step()
    peft.eval()
    return found


@pytest.fixture(scope="module", params=CASES)
def journey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Journey:
    name = request.param
    clip = fresh(name)
    model = clip.model
    torch.manual_seed(0)
    seen = (torch.rand(2, 3, *model.visual.image_size), clip.tokenizer(["a red apple", "a dog"]))
    fingerprints = [fingerprint(model)]
    mh.split_attention(model)
    split = outputs(model, *seen)
    peft = mh.inject_lora(model, rank=4, alpha=8, targets="default").eval()
    fingerprints.append(fingerprint(peft))
    untrained = outputs(peft, *seen)
    before = snapshot(peft)
    trainable = [n for n, p in peft.named_parameters() if p.requires_grad]

    gradients = _two_steps(peft, *seen)
    fingerprints.append(fingerprint(peft))
    trained = outputs(peft, *seen)
    with peft.disable_adapter():
        disabled = outputs(peft, *seen)
    folder = mh.save_adapter(peft, tmp_path_factory.mktemp(name) / "adapter")

    again = mh.load_adapter(fresh(name).model, folder)
    loaded = outputs(again, *seen)
    merged_model = mh.merge_adapter(again)
    return Journey(
        name=name,
        split=split,
        untrained=untrained,
        trained=trained,
        disabled=disabled,
        loaded=loaded,
        merged=outputs(merged_model, *seen),
        plain=outputs(plain_copy(name, merged_model.state_dict()), *seen),
        gradients=gradients,
        before=before,
        after=snapshot(peft),
        trainable=trainable,
        fingerprints=fingerprints,
        base_state=mh.base_state_dict(peft),
        merged_model=merged_model,
        folder=folder,
    )


def test_fresh_adapters_change_no_bit_of_the_output(journey: Journey):
    assert torch.equal(journey.untrained, journey.split)


def test_only_adapters_require_a_gradient(journey: Journey):
    layers = DEFAULT_LAYERS[journey.name]
    assert len(journey.trainable) == 2 * layers
    assert sum(name.endswith(".lora_A.default.weight") for name in journey.trainable) == layers
    assert sum(name.endswith(".lora_B.default.weight") for name in journey.trainable) == layers


def test_at_the_first_step_every_A_has_a_gradient_of_exactly_zero_and_every_B_has_not(journey):
    first = journey.gradients[0]
    a = {name: norm for name, norm in first.items() if ".lora_A." in name}
    b = {name: norm for name, norm in first.items() if ".lora_B." in name}
    assert len(a) == len(b) == DEFAULT_LAYERS[journey.name]
    assert [name for name, norm in a.items() if norm != 0] == []
    assert [name for name, norm in b.items() if not norm] == []


def test_after_one_step_every_A_and_every_B_has_a_gradient(journey: Journey):
    second = journey.gradients[1]
    dead = [name for name, norm in second.items() if ".lora_" in name and not norm]
    assert dead == []


def test_nothing_but_adapters_ever_has_a_gradient(journey: Journey):
    reached = {n for step in journey.gradients for n, norm in step.items() if norm is not None}
    assert reached == set(journey.trainable)


def test_training_leaves_every_base_parameter_and_buffer_bit_equal(journey: Journey):
    assert len(journey.before) > 50
    same_bits(journey.after, journey.before)


def test_training_changes_the_output_of_both_towers(journey: Journey):
    """Without this, the claims about trained adapters would be empty."""
    for trained, split in zip(journey.trained, journey.split, strict=True):
        assert (trained - split).norm() / split.norm() > 1e-3


def test_disabled_adapters_give_back_the_base_to_the_bit(journey: Journey):
    assert torch.equal(journey.disabled, journey.split)


def test_a_saved_adapter_gives_the_same_bits_on_a_new_base(journey: Journey):
    assert torch.equal(journey.loaded, journey.trained)


def test_merging_changes_the_output_by_rounding_alone(journey: Journey):
    assert difference(journey.merged, journey.trained) < 1e-5


def test_the_merged_state_dict_is_open_clips_own(journey: Journey):
    merged, base = journey.merged_model.state_dict(), load_once(journey.name).model.state_dict()
    assert list(merged) == list(base)
    assert [v.shape for v in merged.values()] == [v.shape for v in base.values()]
    assert [v.dtype for v in merged.values()] == [v.dtype for v in base.values()]


def test_a_merge_changes_the_adapted_layers_alone(journey: Journey):
    """q, k and v lie in one tensor, so there are fewer tensors than layers."""
    merged, base = journey.merged_model.state_dict(), load_once(journey.name).model.state_dict()
    changed = {name for name in base if not torch.equal(merged[name], base[name])}
    layers = {name.partition(".lora_")[0] for name in journey.trainable}
    layers = {name.removeprefix("base_model.model.") for name in layers}
    fused = {re.sub(r"\.[qkv]_proj$", ".in_proj_weight", name) for name in layers}
    assert changed == {n if n.endswith("in_proj_weight") else f"{n}.weight" for n in fused}


def test_a_plain_open_clip_model_with_the_merged_state_dict_gives_the_merged_output(journey):
    assert torch.equal(journey.plain, journey.merged)


def test_a_merged_model_has_the_classes_of_a_plain_one(journey: Journey):
    kinds = {name: type(m) for name, m in journey.merged_model.named_modules()}
    assert kinds == {name: type(m) for name, m in load_once(journey.name).model.named_modules()}


def test_the_base_state_dict_is_seen_through_trained_adapters(journey: Journey):
    base = load_once(journey.name).model.state_dict()
    assert journey.base_state.keys() == base.keys()
    same_bits({name: journey.base_state[name] for name in base}, base)


def test_the_fingerprint_is_that_of_the_base_at_every_stage(journey: Journey):
    assert len(set(journey.fingerprints)) == 1
    noted = json.loads((journey.folder / BASE_FILE).read_text())
    assert noted["fingerprint"] == journey.fingerprints[0]
    assert noted["name"] == load_once(journey.name).model.name_or_path


def test_an_adapter_file_holds_adapters_alone(journey: Journey):
    assert sorted(path.name for path in journey.folder.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "base_model.json",
    ]
    stored = load_file(journey.folder / "adapter_model.safetensors")
    assert {name.replace(".weight", ".default.weight") for name in stored} == set(journey.trainable)


# ---- through mh.train, and into a new process ---------------------------------------------------


def test_train_leaves_the_base_bit_equal(nano: mh.Clip, emoji: mh.PictureDataset):
    peft = mh.inject_lora(nano.model)
    before = snapshot(peft)
    adapters = copy.deepcopy([p for p in peft.parameters() if p.requires_grad])
    mh.train(nano, emoji, epochs=1, batch_size=8, progress=False)
    same_bits(snapshot(peft), before)
    trained = [p for p in peft.parameters() if p.requires_grad]
    assert not any(torch.equal(a, b) for a, b in zip(adapters, trained, strict=True))


NEW_PROCESS = """
import sys, torch, mclip_helpers as mh
from safetensors.torch import load_file, save_file
folder, given, found = sys.argv[1:]
clip = mh.load_model("nano", device="cpu")
peft = mh.load_adapter(clip.model, folder)
seen = load_file(given)
with torch.no_grad():
    image = peft.encode_image(seen["images"])
    text = clip.model.encode_text(seen["tokens"])
save_file({"image": image, "text": text}, found)
"""


def test_a_new_process_loads_the_adapter_and_gives_the_same_bits(
    nano: mh.Clip, emoji: mh.PictureDataset, tmp_path: Path
):
    peft = mh.inject_lora(nano.model, dropout=0.1)
    mh.train(nano, emoji, epochs=1, batch_size=8, progress=False)
    images, tokens = next(iter(mh.loader(emoji, nano, 4)))
    save_file({"images": images.contiguous(), "tokens": tokens}, tmp_path / "given")
    mh.save_adapter(peft, tmp_path / "adapter")
    files = [str(tmp_path / name) for name in ("adapter", "given", "found")]
    subprocess.run([sys.executable, "-c", NEW_PROCESS, *files], check=True, timeout=120)

    found = load_file(tmp_path / "found")
    with torch.no_grad():
        assert torch.equal(found["image"], peft.eval().encode_image(images))
        assert torch.equal(found["text"], peft.encode_text(tokens))


# ---- targets ------------------------------------------------------------------------------------


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
    peft = mh.inject_lora(model, rank=1, targets=targets)

    found = [layer for layer, _ in mh.lora_layers(peft)]
    assert found == mh.lora_targets(split, targets)
    if targets == "default":
        assert len(found) == DEFAULT_LAYERS[name]
        assert set(found) < set(adaptable(split, "all"))
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
    peft = mh.inject_lora(model, targets=re.escape(attention) + r"\.(q|v)_proj")
    assert mh.tower_of(attention) == "text"
    assert [n for n, _ in mh.lora_layers(peft)] == [f"{attention}.q_proj", f"{attention}.v_proj"]


@pytest.mark.parametrize("name", CASES)
def test_a_list_of_names_is_taken_at_its_word(name: str):
    model = skeleton(name).model
    mh.split_attention(model)
    names = mh.lora_targets(model, "text")[-3:]
    peft = mh.inject_lora(model, targets=names)
    assert [layer for layer, _ in mh.lora_layers(peft)] == names


def test_rank_alpha_and_dropout_reach_every_layer(nano: mh.Clip):
    peft = mh.inject_lora(nano.model, rank=3, alpha=12, dropout=0.25)
    for name, layer in mh.lora_layers(peft):
        assert layer.r["default"] == 3, name
        assert layer.scaling["default"] == 4, name
        assert layer.lora_dropout["default"].p == 0.25, name
        assert layer.lora_A["default"].weight.shape[0] == 3, name


def test_linear_1x1_and_larger_convolutions_are_trained_saved_and_merged(
    nano: mh.Clip, tmp_path: Path
):
    fit = [(n, m) for n, m in nano.model.visual.named_modules() if mh.why_not(m) is None]
    convolutions = [(f"visual.{n}", m) for n, m in fit if isinstance(m, nn.Conv2d)]
    small = next(n for n, m in convolutions if m.kernel_size == (1, 1))
    large = next(n for n, m in convolutions if m.kernel_size == (3, 3))
    linear = next(f"visual.{n}" for n, m in fit if isinstance(m, nn.Linear))

    peft = mh.inject_lora(nano.model, targets=[small, large, linear])
    images, tokens = torch.rand(2, 3, *nano.model.visual.image_size), nano.tokenizer(["a", "dog"])
    _two_steps(peft, images, tokens)
    trained = outputs(peft, images, tokens)
    loaded = mh.load_adapter(fresh("nano").model, mh.save_adapter(peft, tmp_path / "adapter"))
    assert torch.equal(outputs(loaded, images, tokens), trained)
    merged = mh.merge_adapter(loaded)
    base = load_once("nano").model.state_dict()
    changed = {n for n, v in merged.state_dict().items() if not torch.equal(v, base[n])}
    assert changed == {f"{name}.weight" for name in (small, large, linear)}
    assert difference(outputs(merged, images, tokens), trained) < 1e-5


# ---- refusals: in words that help, and leaving everything as it was -----------------------------


def form(model: nn.Module) -> list:
    """All that a refused call might have touched, but the numbers."""
    return [
        [(name, type(m), m.training) for name, m in model.named_modules()],
        [(name, p.requires_grad) for name, p in model.named_parameters()],
        list(model.state_dict()),
    ]


def untouched(model: nn.Module, name: str) -> None:
    before = load_once(name).model
    assert form(model) == form(before)
    if not next(model.parameters()).is_meta:
        same_bits(model.state_dict(), before.state_dict())


def suggestions(message: str) -> list[str]:
    names = message.partition("These would work: ")[2].split(", ")
    assert names
    return [name for name in names if name != "…"]


def a_depthwise(model: nn.Module) -> str:
    convolutions = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    return next(n for n, m in convolutions if m.groups == m.in_channels > 1)


def a_block(model: nn.Module) -> str:
    return next(n for n, m in model.named_modules() if isinstance(m, nn.MultiheadAttention))


# What is asked for, given the model; and what the answer must say.
REFUSED: dict[str, tuple[Callable[[nn.Module], str | list[str]], str]] = {
    "no such name": (lambda model: ["no.such.layer"], r"no layer is called 'no\.such\.layer'"),
    "no match": (lambda model: "qproj", r"no layer's whole name matches 'qproj'"),
    "a name's end": (lambda model: "out_proj", r"no layer's whole name matches 'out_proj'"),
    "an empty list": (lambda model: [], r"no layer's whole name matches \[\]"),
    "a container": (lambda model: [a_block(model)], r"is a container \(SplitAttention\) of q_proj"),
    "a container by pattern": (
        lambda model: re.escape(a_block(model)),
        r"is a container \(SplitAttention\) of q_proj",
    ),
    "a raw parameter": (
        lambda model: [a_block(model) + ".in_proj_weight"],
        r"no layer is called '[\w.]+\.in_proj_weight'",
    ),
    "a raw parameter by pattern": (
        lambda model: re.escape(a_block(model)) + r"\.in_proj_weight",
        r"no layer's whole name matches",
    ),
    "a norm": (
        lambda model: [next(n for n, m in model.named_modules() if isinstance(m, nn.LayerNorm))],
        r"is a LayerNorm, not a Linear or Conv2d",
    ),
    "a mixture": (
        lambda model: [a_block(model) + ".q_proj", a_block(model)],
        r"is a container \(SplitAttention\)",
    ),
    "a mixture by pattern": (
        lambda model: re.escape(a_block(model)) + r".*",
        r"is a container \(SplitAttention\)",
    ),
    "a good name and an unknown one": (
        lambda model: [a_block(model) + ".q_proj", "no.such.layer"],
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
    peft = mh.inject_lora(clip.model, rank=1, targets=names)
    assert {layer for layer, _ in mh.lora_layers(peft)} == set(names)


@pytest.mark.parametrize("name", CASES)
def test_the_suggestions_lie_inside_the_container_that_was_asked_for(name: str):
    model = skeleton(name).model
    attention = a_block(model)
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
    peft = mh.inject_lora(clip.model, targets=suggestions(str(error.value)))
    assert len(list(mh.lora_layers(peft))) == len(suggestions(str(error.value)))


def test_a_grouped_convolution_is_called_by_its_name():
    assert "a grouped convolution" in mh.why_not(nn.Conv2d(8, 8, 3, groups=2))
    assert "a depthwise convolution" in mh.why_not(nn.Conv2d(8, 16, 3, groups=8))
    assert mh.why_not(nn.Conv2d(8, 8, 3)) is None
    assert mh.why_not(nn.Linear(8, 8)) is None


def test_of_many_layers_that_cannot_work_the_first_is_named_and_the_rest_counted(nano: mh.Clip):
    blocks = r"text\.transformer\.resblocks\.\d"
    count = sum(bool(re.fullmatch(blocks, name)) for name, _ in nano.model.named_modules())
    with pytest.raises(ValueError, match=rf"resblocks\.0 is .*\(and {count - 1} more like it\)"):
        mh.inject_lora(nano.model, targets=blocks)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rank": 0}, "rank is 0; it must be a whole number, at least 1"),
        ({"rank": 2.5}, "rank is 2.5; it must be a whole number"),
        ({"dropout": 1.5}, "dropout is 1.5"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"targets": "("}, r"'\(' is not a regular expression"),
        ({"targets": None}, "not iterable"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_changes(nano, arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        mh.inject_lora(nano.model, **arguments)
    untouched(nano.model, "nano")


def test_a_second_injection_is_refused_and_the_first_kept(nano: mh.Clip):
    peft = mh.inject_lora(nano.model, rank=2)
    before = form(peft)
    with pytest.raises(ValueError, match="has LoRA adapters already"):
        mh.inject_lora(nano.model, rank=4)
    with pytest.raises(ValueError, match="has LoRA adapters already"):
        mh.inject_lora(peft, rank=4)
    assert form(peft) == before


def test_a_merged_model_can_be_injected_anew(nano: mh.Clip):
    merged = mh.merge_adapter(mh.inject_lora(nano.model, rank=2))
    peft = mh.inject_lora(merged, rank=4)
    assert {layer.r["default"] for _, layer in mh.lora_layers(peft)} == {4}


# ---- saving and loading -------------------------------------------------------------------------


def with_random_adapters(clip: mh.Clip, seed: int = 0) -> PeftModel:
    """Adapters as if trained: B is not zero."""
    peft = mh.inject_lora(clip.model, rank=2).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in peft.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator) / 10)
    return peft


def adapter_state(model: nn.Module) -> State:
    return {n: p.detach().clone() for n, p in model.named_parameters() if ".lora_" in n}


@pytest.fixture
def folder(nano: mh.Clip, tmp_path: Path) -> Path:
    return mh.save_adapter(with_random_adapters(nano), tmp_path / "adapter")


def test_a_loaded_adapter_is_frozen_unless_asked_for(folder: Path):
    peft = mh.load_adapter(fresh("nano").model, folder)
    assert not any(p.requires_grad for p in peft.parameters())
    peft = mh.load_adapter(fresh("nano").model, folder, trainable=True)
    assert set(mh.trainable_parameters(peft)) == set(adapter_state(peft))


def test_an_adapter_of_another_model_is_refused_with_both_names(folder: Path):
    other = fresh("ViT-B-32")
    with pytest.raises(ValueError, match=r"made for 'nano/nano', not for 'ViT-B-32/random'"):
        mh.load_adapter(other.model, folder)
    untouched(other.model, "ViT-B-32")


def test_the_same_name_with_other_weights_is_refused_with_both_fingerprints(folder: Path):
    """One number, changed by one unit in its last place."""
    model = fresh("nano").model
    weight = model.text.transformer.resblocks[0].attn.in_proj_weight
    with torch.no_grad():
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(torch.inf))
    before, state = form(model), copy.deepcopy(model.state_dict())
    was, now = fingerprint(load_once("nano").model), fingerprint(model)
    assert was != now
    words = rf"'nano/nano' with other weights \(fingerprint {was}\) than this .* has \({now}\)"
    with pytest.raises(ValueError, match=words):
        mh.load_adapter(model, folder)
    assert form(model) == before
    same_bits(model.state_dict(), state)


def test_the_fingerprint_sees_buffers_too():
    model = fresh("nano").model
    before = fingerprint(model)
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).running_var.mul_(2)
    assert fingerprint(model) != before


@pytest.mark.parametrize("lacking", [BASE_FILE, "adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_that_is_not_a_whole_adapter_is_refused(folder: Path, lacking: str):
    (folder / lacking).unlink()
    model = fresh("nano").model
    with pytest.raises(FileNotFoundError, match=rf"not an adapter.*: no {re.escape(lacking)}"):
        mh.load_adapter(model, folder)
    untouched(model, "nano")


def test_a_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere is not an adapter"):
        mh.load_adapter(fresh("nano").model, tmp_path / "nowhere")


def test_a_damaged_adapter_file_is_refused(folder: Path):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    model = fresh("nano").model
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is damaged"):
        mh.load_adapter(model, folder)
    untouched(model, "nano")


def test_an_adapter_file_that_lacks_a_tensor_is_refused(folder: Path):
    """PEFT would load it with a warning, and the layer would compute with a random A."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors[next(iter(tensors))]
    save_file(tensors, path)
    model = fresh("nano").model
    with pytest.raises(ValueError, match="is damaged, or not the file"):
        mh.load_adapter(model, folder)
    untouched(model, "nano")


def test_loading_onto_a_model_with_adapters_is_refused(nano: mh.Clip, folder: Path):
    """`nano` has them since `folder` was made."""
    before, adapters = form(nano.model), adapter_state(nano.model)
    with pytest.raises(ValueError, match="has LoRA adapters already"):
        mh.load_adapter(nano.model, folder)
    assert form(nano.model) == before
    same_bits(adapter_state(nano.model), adapters)


@pytest.mark.parametrize("where", ["in PEFT", "in the note", "in the last rename"])
def test_a_failed_save_leaves_the_old_adapter_and_nothing_else(
    folder: Path, where: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    digest = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).digest()
    new = fresh("nano")
    peft = with_random_adapters(new, seed=1)
    if where == "in PEFT":
        save = PeftModel.save_pretrained

        def half(*args, **kwargs):
            save(*args, **kwargs)
            fail()

        monkeypatch.setattr(PeftModel, "save_pretrained", half)
    elif where == "in the note":
        monkeypatch.setattr(Path, "write_text", fail)
    else:
        rename = Path.rename

        def all_but_the_new(path: Path, to: Path) -> Path:
            return fail() if path.name == "adapter" and to == folder else rename(path, to)

        monkeypatch.setattr(Path, "rename", all_but_the_new)
    with pytest.raises(OSError, match="no space left"):
        mh.save_adapter(peft, folder)
    monkeypatch.undo()

    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]
    assert hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).digest() == digest
    mh.load_adapter(fresh("nano").model, folder)


def test_a_save_replaces_what_was_there(nano: mh.Clip, folder: Path):
    (folder / "stray").write_text("of an older run")
    new = with_random_adapters(fresh("nano"), seed=1)
    mh.save_adapter(new, folder)
    loaded = mh.load_adapter(fresh("nano").model, folder)
    same_bits(adapter_state(loaded), adapter_state(new))
    assert not torch.equal(
        next(iter(adapter_state(loaded).values())), next(iter(adapter_state(nano.model).values()))
    )
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]
    assert not (folder / "stray").exists()


@pytest.mark.filterwarnings("error")
def test_saving_asks_no_network(nano: mh.Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """PEFT would look the base up on the hub, and warn that it could not."""
    asked = []

    def refuse(*args, **kwargs):
        asked.append(args)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    mh.save_adapter(mh.inject_lora(nano.model, targets="all"), tmp_path / "adapter")
    assert asked == []


def test_a_trained_logit_scale_travels_with_the_adapter(
    nano: mh.Clip, emoji: mh.PictureDataset, tmp_path: Path
):
    start = nano.model.logit_scale.item()
    peft = mh.inject_lora(nano.model)
    mh.train(nano, emoji, epochs=1, batch_size=8, train_logit_scale=True, progress=False)
    trained = nano.model.logit_scale.detach().clone()
    assert trained.item() != start

    model = fresh("nano").model
    loaded = mh.load_adapter(model, mh.save_adapter(peft, tmp_path / "adapter"))
    assert torch.equal(model.logit_scale, trained)
    assert torch.equal(mh.merge_adapter(loaded).state_dict()["logit_scale"], trained)


# ---- batch norm ---------------------------------------------------------------------------------


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("name", ["nano", "MobileCLIP2-S0", "MobileCLIP-B"])
def test_frozen_batch_norm_stays_still_and_unfreezing_undoes_it(name: str):
    tower = copy.deepcopy(load_once(name).model.visual)
    kinds, before = [type(m) for m in tower.modules()], snapshot(tower)
    norms = batch_norms(tower)
    assert norms
    images = torch.rand(2, 3, *tower.image_size)

    assert mh.freeze_batch_norm(tower) == len(norms)
    assert mh.freeze_batch_norm(tower) == 0, "they are frozen already"
    tower.train()
    assert tower.trunk.training and not any(norm.training for norm in norms)
    with torch.no_grad():
        tower(images)
    same_bits(snapshot(tower), before)

    assert mh.unfreeze_batch_norm(tower) == len(norms)
    assert [type(m) for m in tower.modules()] == kinds
    assert all(norm.training for norm in norms), "they follow the model, which is in training"
    with torch.no_grad():
        tower(images)
    after = snapshot(tower)
    moved = {
        name.rpartition(".")[2] for name in after if not torch.equal(after[name], before[name])
    }
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}


def test_unfreezing_a_model_in_eval_leaves_it_in_eval(nano: mh.Clip):
    mh.freeze_batch_norm(nano.model)
    mh.unfreeze_batch_norm(nano.model)
    untouched(nano.model, "nano")


def test_a_model_without_batch_norm_has_none_to_freeze():
    assert mh.freeze_batch_norm(skeleton("ViT-B-32").model) == 0


# ---- deepcopy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nano", "MobileCLIP2-S0"])
def test_a_deepcopy_of_an_adapted_model_is_equal_and_apart(name: str):
    clip = fresh(name)
    peft = with_random_adapters(clip)
    torch.manual_seed(0)
    tokens = clip.tokenizer(["a red apple", "a dog"])
    with torch.no_grad():
        expected = peft.encode_text(tokens)
        twin = copy.deepcopy(peft)
        assert torch.equal(twin.encode_text(tokens), expected)
        for p in mh.trainable_parameters(twin).values():
            p.zero_()
        assert not torch.equal(twin.encode_text(tokens), expected)
        assert torch.equal(peft.encode_text(tokens), expected)
        twin.train()
        assert not any(norm.training for norm in batch_norms(twin))
    merged = mh.merge_adapter(twin)  # its B is zero now: what comes out is the base
    same_bits(merged.state_dict(), load_once(name).model.state_dict())
    assert any(isinstance(m, LoraLayer) for m in peft.modules()), "merging spared the original"
