"""Loading by name: the model, the transform and the tokenizer that belong together."""

from __future__ import annotations

import logging
import re
import subprocess
import sys

import open_clip
import pytest
import torch
from PIL import Image

import mclip_helpers as mh
from mclip_helpers.model import choose_compute
from mclip_helpers.model import clip as clip_module
from mclip_helpers.model.weights import default_tag

MOBILECLIPS = mh.mobileclip_names()[1:]
ORDINARY_BUILD = clip_module._build


def test_nano_is_the_default_and_comes_in_eval_mode_with_its_names():
    clip = mh.load_model()
    assert (clip.name, clip.pretrained) == ("nano", "nano")
    assert clip.model.name_or_path == "nano/nano"
    assert not any(module.training for module in clip.model.modules())
    assert clip.device.type == choose_compute().device.type


def test_pictures_and_texts_become_unit_vectors_of_one_length_without_a_graph(nano):
    pictures = [Image.new("RGB", (72, 72), colour) for colour in ("red", "blue", "white")]
    images, texts = nano.encode_images(pictures), nano.encode_texts(("red", "blue", "white"))
    assert images.shape == texts.shape == (3, 256)
    for features in (images, texts):
        assert not features.requires_grad
        assert torch.allclose(features.norm(dim=1), torch.ones(3), atol=1e-5)
        assert len(features.unique(dim=0)) == 3


def test_a_feature_belongs_to_its_own_picture_or_text_alone(nano):
    dataset = mh.emoji_dataset("twemoji", "val").subset(range(3))
    pictures = [picture for picture, _ in dataset]
    for encode, items in (
        (nano.encode_images, pictures),
        (nano.encode_texts, dataset.captions),
    ):
        together = encode(items)
        for i, item in enumerate(items):
            assert torch.allclose(encode([item])[0], together[i], atol=1e-5)


def test_random_weights_are_there_only_for_who_asks_by_that_word(nano):
    first, second = (mh.load_model("nano", pretrained="random", device="cpu") for _ in range(2))
    assert first.pretrained == "random"
    assert not first.model.training
    a, b, c = (
        clip.model.state_dict()["text.positional_embedding"] for clip in (first, second, nano)
    )
    assert not torch.equal(a, b)
    assert not torch.equal(a, c)
    assert str(first.preprocess) == str(nano.preprocess)


def test_loading_logs_no_warning_and_leaves_logging_as_it_was(caplog):
    root = logging.getLogger()
    before = root.level
    mh.load_model("nano", device="cpu")
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert root.level == before


def test_it_says_in_one_line_what_it_is_and_what_it_is_computed_on(nano: mh.Clip):
    assert str(nano) == f"nano, weights 'nano', 64×64 pixels · {nano.compute}"


@pytest.mark.parametrize("name", ["nano", "MobileCLIP2-S0"])
def test_on_a_cpu_no_weight_gradient_takes_the_way_that_crashes(name: str):
    """In a process of its own: torch 2.15 writes beyond its memory there (see `_place`)."""
    code = f"""
import torch, mclip_helpers as mh
clip = mh.load_model({name!r}, pretrained="random", device="cpu")
model = clip.model.requires_grad_(True)
images, tokens = torch.rand(2, 3, *clip.image_size), clip.tokenizer(["a", "b"])
mh.contrastive_loss(model.encode_image(images), model.encode_text(tokens), 10).backward()
assert all(p.grad.isfinite().all() for n, p in model.named_parameters() if n != "logit_scale")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


# ----------------------------------------------------------------------------------- unknown tokens


def strange_word(clip: mh.Clip) -> str:
    """A plain word of one token that the weights have never seen."""
    table = clip.model.text.token_embedding.weight
    for number in (~table.any(dim=1)).nonzero().flatten().tolist():
        word = clip.tokenizer.decode([number]).strip()
        if re.fullmatch("[a-z]{5,}", word) and clip.tokenizer([word])[0, 1] == number:
            return word
    raise AssertionError("nano knows every word")


def test_unknown_tokens_names_the_words_never_seen_and_no_others(nano):
    word = strange_word(nano)
    assert nano.unknown_tokens(word) == [word]
    assert nano.unknown_tokens(f"a cat with a {word}") == [word]
    assert nano.unknown_tokens("") == []


def test_neither_padding_nor_one_zero_in_a_row_makes_a_token_unknown(nano):
    fresh = mh.load_model("nano", pretrained="random", device="cpu")
    with torch.no_grad():
        fresh.model.text.token_embedding.weight[0] = 0  # the number of the padding
        fresh.model.text.token_embedding.weight[:, 0] = 0
    assert fresh.unknown_tokens(strange_word(nano)) == []


# ----------------------------------------------------------------------------------- names and tags


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("nanno", "nano"),
        ("Nano", "nano"),
        ("mobileclip2-s0", "MobileCLIP2-S0"),
        ("MobileCLIP_S1", "MobileCLIP-S1"),
        ("apple/MobileCLIP2-S4", "MobileCLIP2-S4"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one_and_hears_of_nano(name, guess):
    with pytest.raises(ValueError, match=re.escape(f"Did you mean '{guess}'?")) as caught:
        mh.load_model(name)
    assert "'nano' works offline" in str(caught.value)


def test_a_name_like_no_other_gets_the_list_and_no_guess():
    with pytest.raises(ValueError, match="'qqqq'") as caught:
        mh.load_model("qqqq")
    assert "Did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in mh.mobileclip_names())


def test_an_unknown_tag_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="'laion'") as caught:
        mh.load_model("MobileCLIP-B", pretrained="laion")
    tags = open_clip.list_pretrained_tags_by_model("MobileCLIP-B")
    assert len(tags) > 1
    assert all(tag in str(caught.value) for tag in tags)


def test_a_model_without_published_weights_is_never_random_in_silence():
    without = [
        name
        for name in open_clip.list_models()
        if name != "nano" and not open_clip.list_pretrained_tags_by_model(name)
    ]
    assert without
    with pytest.raises(ValueError, match=r"lists no weights.*pretrained='random'"):
        mh.load_model(without[0])


@pytest.mark.parametrize("pretrained", [None, "random"])
@pytest.mark.parametrize("name", MOBILECLIPS)
def test_each_model_gets_the_transform_of_its_own_weights(name, pretrained, monkeypatch):
    asked = []

    def build(name: str, transform: dict):
        asked.append(transform)
        return ORDINARY_BUILD("nano", transform)

    monkeypatch.setattr(clip_module, "_build", build)
    monkeypatch.setattr(clip_module, "_find_weights", lambda *_: None)
    own = open_clip.get_pretrained_cfg(name, default_tag(name))
    clip = mh.load_model(name, pretrained=pretrained, device="cpu")
    assert asked == [own]
    white = clip.preprocess(Image.new("RGB", (80, 80), "white"))
    expected = (1 - torch.tensor(own["mean"])) / torch.tensor(own["std"])
    assert torch.allclose(white.amax(dim=(1, 2)), expected)


@pytest.mark.parametrize("name", ["MobileCLIP2-S0", "MobileCLIP2-S2", "MobileCLIP-S1"])
def test_the_small_mobileclips_want_mean_0_and_deviation_1(name):
    transform = open_clip.get_pretrained_cfg(name, default_tag(name))
    assert set(transform["mean"]) == {0}
    assert set(transform["std"]) == {1}
