"""A saved adapter is whole, belongs to its base, and comes back as it was."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from conftest import fresh, load_once
from lora_checks import adapter_state, form, same_bits, untouched, with_random_adapters
from peft import PeftModel
from safetensors.torch import load_file, save_file

import mclip_helpers as mh
from mclip_helpers.lora.adapters import BASE_FILE
from mclip_helpers.lora.state import fingerprint


@pytest.fixture
def folder(nano: mh.Clip, tmp_path: Path) -> Path:
    return mh.save_adapter(with_random_adapters(nano), tmp_path / "adapter")


# ------------------------------------------------------------------------------------------ loading


def test_a_loaded_adapter_is_frozen_unless_asked_for(folder: Path):
    lora_model = mh.load_adapter(fresh("nano").model, folder)
    assert not any(p.requires_grad for p in lora_model.parameters())
    lora_model = mh.load_adapter(fresh("nano").model, folder, trainable=True)
    assert set(mh.trainable_parameters(lora_model)) == set(adapter_state(lora_model))


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


# ------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize("where", ["in PEFT", "in the note", "in the last rename"])
def test_a_failed_save_leaves_the_old_adapter_and_nothing_else(
    folder: Path, where: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    digest = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).digest()
    new = fresh("nano")
    lora_model = with_random_adapters(new, seed=1)
    if where == "in PEFT":
        save = PeftModel.save_pretrained

        def half(*args, **kwargs):
            save(*args, **kwargs)
            fail()

        monkeypatch.setattr(PeftModel, "save_pretrained", half)
    elif where == "in the note":
        monkeypatch.setattr(Path, "write_text", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        mh.save_adapter(lora_model, folder)
    monkeypatch.undo()

    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]
    assert hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).digest() == digest
    mh.load_adapter(fresh("nano").model, folder)


def test_a_save_replaces_an_older_save(nano: mh.Clip, folder: Path):
    new = with_random_adapters(fresh("nano"), seed=1)
    mh.save_adapter(new, folder)
    loaded = mh.load_adapter(fresh("nano").model, folder)
    same_bits(adapter_state(loaded), adapter_state(new))
    assert not torch.equal(
        next(iter(adapter_state(loaded).values())), next(iter(adapter_state(nano.model).values()))
    )
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]


def test_a_save_without_the_merged_model_takes_an_old_one_away(tmp_path: Path):
    lora_model = with_random_adapters(fresh("nano"))
    folder = mh.save_adapter(lora_model, tmp_path / "adapter", merged=True)
    assert (folder / "merged").is_dir()
    mh.save_adapter(lora_model, folder)
    assert not (folder / "merged").exists()


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
    lora_model = mh.inject_lora(nano.model)
    mh.train(nano, emoji, epochs=1, batch_size=8, train_logit_scale=True, progress=False)
    trained = nano.model.logit_scale.detach().clone()
    assert trained.item() != start

    model = fresh("nano").model
    loaded = mh.load_adapter(model, mh.save_adapter(lora_model, tmp_path / "adapter"))
    assert torch.equal(model.logit_scale, trained)
    assert torch.equal(mh.merge_adapter(loaded).state_dict()["logit_scale"], trained)


def test_a_trained_logit_bias_travels_with_the_adapter(tmp_path: Path):
    """SigLIP has one."""

    def with_bias(value: float) -> mh.Clip:
        clip = fresh("nano")
        clip.model.logit_bias = torch.nn.Parameter(torch.tensor(value))
        return clip

    folder = mh.save_adapter(with_random_adapters(with_bias(-9.7)), tmp_path / "adapter")
    model = with_bias(-10.0).model
    mh.load_adapter(model, folder)
    assert torch.equal(model.logit_bias, torch.tensor(-9.7))
    as_older_version = json.loads((folder / BASE_FILE).read_text())
    hashes = as_older_version.pop("files")
    for key in ("sha256", "logit_bias"):
        del as_older_version[key]
    as_older_version["adapter_sha256"] = hashes["adapter_model.safetensors"]
    (folder / BASE_FILE).write_text(json.dumps(as_older_version))
    with pytest.raises(ValueError, match=r"base_model\.json lacks logit_bias"):
        mh.load_adapter(with_bias(-10.0).model, folder)


@pytest.mark.parametrize("trainable", [False, True])
def test_a_loaded_model_is_what_peft_itself_would_have_made(folder: Path, trainable: bool):
    """Modules, flags and numbers, and as many random ones drawn on the way."""
    torch.manual_seed(0)
    ours = mh.load_adapter(fresh("nano").model, folder, trainable=trainable)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    model = fresh("nano").model
    mh.split_attention(model)
    mh.freeze_batch_norm(model)
    pefts = PeftModel.from_pretrained(model, folder, is_trainable=trainable).eval()
    assert torch.equal(drawn, torch.rand(1))
    assert form(ours) == form(pefts)
    same_bits(ours.state_dict(), pefts.state_dict())
    options = ("r", "lora_alpha", "lora_dropout", "target_modules", "inference_mode", "bias")
    for option in options:
        left, right = (getattr(m.peft_config["default"], option) for m in (ours, pefts))
        assert left == right, option


def test_killed_at_any_moment_there_is_an_old_adapter_or_a_new_one(folder: Path):
    """A child saves two adapters in turn to the same place, and is killed; seven times."""
    models = [with_random_adapters(fresh("nano"), seed) for seed in (0, 1)]
    known = [adapter_state(model) for model in models]
    for wait in (0.02, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9):
        child = os.fork()
        if child == 0:
            for turn in itertools.count():
                mh.save_adapter(models[turn % 2], folder)
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = adapter_state(mh.load_adapter(fresh("nano").model, folder))
        assert any(all(torch.equal(found[n], state[n]) for n in found) for state in known)
    mh.save_adapter(models[1], folder)
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]
