"""Adapters change nothing until they are trained, and nothing but themselves when they are.

The same claims for every model: `nano` with its weights, and three others at random. One `Journey`
a model takes it from the base through training, saving and loading to the merged model; each test
makes one claim about it.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import open_clip
import pytest
import torch
from conftest import CASES, fresh, load_once
from lora_checks import DEFAULT_LAYERS, State, difference, outputs, same_bits, snapshot, two_steps
from safetensors.torch import load_file, save_file
from torch import nn

import mclip_helpers as mh
from mclip_helpers.lora import base_state_dict
from mclip_helpers.lora.adapters import BASE_FILE
from mclip_helpers.lora.state import fingerprint
from mclip_helpers.model.clip import _place
from mclip_helpers.names import clean_name


def plain_copy(name: str, state: State) -> nn.Module:
    """A new open_clip model, which knows nothing of this project, with the numbers of `state`."""
    model = open_clip.create_model(name)
    model.load_state_dict(state, strict=True)
    # Neither changes a number, but each may choose another kernel, and so another rounding.
    return _place(model, torch.device("cpu")).requires_grad_(False).eval()


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
    lora_model = mh.inject_lora(model, rank=4, alpha=8, targets="default").eval()
    fingerprints.append(fingerprint(lora_model))
    untrained = outputs(lora_model, *seen)
    before = snapshot(lora_model)
    trainable = [n for n, p in lora_model.named_parameters() if p.requires_grad]

    gradients = two_steps(lora_model, *seen)
    fingerprints.append(fingerprint(lora_model))
    trained = outputs(lora_model, *seen)
    with lora_model.disable_adapter():
        disabled = outputs(lora_model, *seen)
    folder = mh.save_adapter(lora_model, tmp_path_factory.mktemp(name) / "adapter")

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
        after=snapshot(lora_model),
        trainable=trainable,
        fingerprints=fingerprints,
        base_state=base_state_dict(lora_model),
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
    layers = {clean_name(name.partition(".lora_")[0]) for name in journey.trainable}
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


# --------------------------------------------------------- through mh.train, and into a new process


def test_train_leaves_the_base_bit_equal(nano: mh.Clip, emoji: mh.PictureDataset):
    lora_model = mh.inject_lora(nano.model)
    before = snapshot(lora_model)
    adapters = copy.deepcopy([p for p in lora_model.parameters() if p.requires_grad])
    mh.train(nano, emoji, epochs=1, batch_size=8, progress=False)
    same_bits(snapshot(lora_model), before)
    trained = [p for p in lora_model.parameters() if p.requires_grad]
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
    lora_model = mh.inject_lora(nano.model, dropout=0.1)
    mh.train(nano, emoji, epochs=1, batch_size=8, progress=False)
    images, tokens = next(iter(mh.loader(emoji, nano, 4)))
    save_file({"images": images.contiguous(), "tokens": tokens}, tmp_path / "given")
    mh.save_adapter(lora_model, tmp_path / "adapter")
    files = [str(tmp_path / name) for name in ("adapter", "given", "found")]
    subprocess.run([sys.executable, "-c", NEW_PROCESS, *files], check=True, timeout=120)

    found = load_file(tmp_path / "found")
    with torch.no_grad():
        assert torch.equal(found["image"], lora_model.eval().encode_image(images))
        assert torch.equal(found["text"], lora_model.encode_text(tokens))
