"""A checkpoint is taken up by the same run alone; otherwise, what differs is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from short_runs import adapted, broken_off, everything, run, same_bits

import mclip_helpers as mh
from mclip_helpers.training.fingerprint import differences, run_fingerprint
from mclip_helpers.training.setup import Settings


@pytest.fixture
def interrupted(emoji: mh.PictureDataset, tmp_path: Path) -> Path:
    """The checkpoint of a run of 3 epochs that broke off in its second."""
    return broken_off(tmp_path / "runs" / "checkpoint", emoji)


@pytest.mark.parametrize(
    ("lora", "options", "named"),
    [
        ({}, {"epochs": 4}, "epochs: 3 in the file, 4 now"),
        ({}, {"batch_size": 6}, "batch_size: 8 in the file, 6 now"),
        ({}, {"lr": 2e-3}, "lr: 0.001 in the file, 0.002 now"),
        ({}, {"weight_decay": 0.5}, "weight_decay: 0.0 in the file, 0.5 now"),
        ({}, {"warmup": 0.3}, "warmup: 0.1 in the file, 0.3 now"),
        ({}, {"seed": 9}, "seed: 0 in the file, 9 now"),
        ({}, {"train_logit_scale": True}, "train_logit_scale: False in the file, True now"),
        ({"rank": 2}, {}, "trainable parameters: "),
        (
            {"alpha": 8},
            {},
            "adapters: ['alpha 16, dropout 0.2'] in the file, ['alpha 8, dropout 0.2'] now",
        ),
        ({"dropout": 0.3}, {}, "['alpha 16, dropout 0.3'] now"),
        ({"targets": r".*\.attn\.[kv]_proj"}, {}, "trainable tensors: "),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_settings_is_refused_naming_them(
    interrupted: Path, emoji: mh.PictureDataset, lora: dict, options: dict, named: str
):
    clip = adapted(**lora)
    before, bytes_before = everything(clip), interrupted.read_bytes()
    with pytest.raises(ValueError, match="is of another run") as error:
        run(clip, emoji, **{"epochs": 3, "checkpoint": interrupted} | options)
    assert named in str(error.value)
    if not lora and "train_logit_scale" not in options:
        assert str(error.value).count(" in the file, ") == 1, "and no other"
    same_bits(everything(clip), before)
    assert interrupted.read_bytes() == bytes_before


def test_a_checkpoint_of_the_same_number_of_other_layers_is_refused(emoji, tmp_path: Path):
    path = tmp_path / "checkpoint"
    run(adapted(targets=r"text\..*\.q_proj"), emoji, epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match="names of trainable tensors: ") as error:
        run(adapted(targets=r"text\..*\.k_proj"), emoji, epochs=1, checkpoint=path)
    assert str(error.value).count(" in the file, ") == 1, "and no other"


def test_a_checkpoint_of_other_pictures_or_captions_is_refused(interrupted: Path, emoji):
    """As many of them: only what they are differs."""
    pairs = emoji.pairs
    swapped = [
        dataclasses.replace(p, captions=q.captions) for p, q in zip(pairs, pairs[::-1], strict=True)
    ]
    for other in (swapped, pairs[::-1]):
        with pytest.raises(ValueError, match="pictures and captions: ") as error:
            run(adapted(), mh.PictureDataset(other), epochs=3, checkpoint=interrupted)
        assert str(error.value).count(" in the file, ") == 1
    with pytest.raises(ValueError, match="pairs: 24 in the file, 12 now"):
        run(adapted(), emoji.subset(range(12)), epochs=3, checkpoint=interrupted)


def test_a_checkpoint_of_another_base_is_refused(interrupted: Path, emoji: mh.PictureDataset):
    clip = adapted()
    clip.model.name_or_path = "MobileCLIP2-S0/dfndr2b"
    with pytest.raises(
        ValueError, match="model: nano/nano in the file, MobileCLIP2-S0/dfndr2b now"
    ):
        run(clip, emoji, epochs=3, checkpoint=interrupted)
    clip = adapted()
    with torch.no_grad():
        clip.model.text.token_embedding.weight[0, 0] += 1
    with pytest.raises(ValueError, match="frozen weights: "):
        run(clip, emoji, epochs=3, checkpoint=interrupted)


def test_only_what_is_asked_for_is_compared_and_each_difference_is_named():
    saved = {"lr": 0.1, "seed": 3, "adapters": ["alpha 8"], "left out today": 1}
    assert differences(saved, {"lr": 0.1, "seed": 3, "adapters": ["alpha 8"]}) == []
    assert differences(saved, {"lr": 0.2, "seed": 3}) == ["lr: 0.1 in the file, 0.2 now"]
    assert differences({}, {"seed": 3}) == ["seed: None in the file, 3 now"]


def test_a_fingerprint_survives_json_and_knows_nothing_of_what_is_trained(emoji):
    settings = Settings(
        epochs=1,
        batch_size=8,
        lr=1e-3,
        weight_decay=0.0,
        warmup=0.1,
        seed=0,
        train_logit_scale=False,
        classes=False,
    )
    clip = adapted()
    fingerprint = run_fingerprint(clip.model, emoji, settings)
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert dataclasses.asdict(settings).items() <= fingerprint.items()
    with torch.no_grad():
        for p in mh.trainable_parameters(clip.model).values():
            p.add_(1)
    assert run_fingerprint(clip.model, emoji, settings) == fingerprint
