"""The script that pretrains `nano`, for a few steps and in one style: no font, no Fluent."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType

import data_scripts
import pytest
import torch

import mclip_helpers as mh
from mclip_helpers.data.emoji import draw_emoji, emoji_catalogue
from mclip_helpers.model.nano import read_compact


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return data_scripts.script("train_nano")


@pytest.fixture
def args(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(steps=3, batch=8, lr=1e-3, seed=0, out=tmp_path / "nano.safetensors")


def test_its_r_at_1_is_that_of_the_pairs_in_order(script: ModuleType):
    clip = mh.load_model("nano", device="cpu")
    items = [item for item in emoji_catalogue() if item.split == "val"][:20]
    rgba = torch.stack([script.to_tensor(draw_emoji(item, "twemoji")) for item in items])
    images, tokens = script.plain(rgba, 64), clip.tokenizer([item.en for item in items])
    with torch.no_grad():
        features = clip.model.encode_image(images), clip.model.encode_text(tokens)
    share = mh.retrieval(*features).image_to_text[1]
    assert share > 0.8
    assert script.recall_at_1(clip.model, images, tokens) == share
    assert script.recall_at_1(clip.model, images, tokens.roll(1, 0)) < 0.2


def test_a_few_steps_change_the_weights_and_write_what_load_model_reads(
    script: ModuleType, args: argparse.Namespace, capsys
):
    torch.manual_seed(0)
    clip = mh.load_model("nano", pretrained="random", device="cpu")
    before = {name: p.detach().clone() for name, p in clip.model.named_parameters()}
    items = list(emoji_catalogue())[:20]
    rgba = [script.to_tensor(draw_emoji(item, "twemoji")) for item in items]
    names = [[item.en] for item in items]
    spoken = [t.format(item.en) for item in items for t in set(script.TEMPLATES)]
    tokens = clip.tokenizer(spoken)
    token_of = dict(zip(spoken, tokens, strict=True))
    batches = script.training_batches({"twemoji": dict(enumerate(rgba))}, names, token_of, 64, args)
    watched = {
        "Twemoji": (script.plain(torch.stack(rgba), 64), clip.tokenizer([n for [n] in names]))
    }
    script.train(clip.model, batches, watched, tokens, args)

    shown = capsys.readouterr().out
    assert "step     0  loss" in shown and "step     3  R@1 Twemoji" in shown
    assert all(p.isfinite().all() for p in clip.model.parameters())
    moved = [n for n, p in clip.model.named_parameters() if not torch.equal(p, before[n])]
    assert {"visual.head.proj.weight", "text.text_projection", "logit_scale"} & set(moved)
    state = read_compact(args.out, clip.model)
    assert set(state) == set(clip.model.state_dict())
    half = clip.model.logit_scale.detach().half().float()
    assert torch.equal(state["logit_scale"], half)
