"""open_clip's other architectures: every adapter that is put on them learns, and is kept."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, small
from conftest import fresh
from lora_checks import adapter_state, difference, outputs, same_bits, snapshot

import mclip_helpers as mh
from mclip_helpers.lora import TARGET_SETS, SplitAttention, base_state_dict
from mclip_helpers.lora.forward import forward_pass

NO_DEFAULT = "RN50"  # its image tower has no layer for it
WITH_SETS = [
    (n, s) for n in ARCHITECTURES for s in TARGET_SETS if (n, s) != (NO_DEFAULT, "default")
]


def inject(clip: mh.Clip, targets: str) -> torch.nn.Module:
    """Fresh adapters; what is left out is the subject of other tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return mh.inject_lora(clip.model, rank=2, targets=targets)


@pytest.mark.parametrize(("name", "targets"), WITH_SETS)
def test_every_adapter_learns_and_is_reloaded_and_merged(
    name: str, targets: str, emoji: mh.PictureDataset, tmp_path: Path
):
    clip = small(name)
    before = clip.model.state_dict()
    torch.manual_seed(0)
    lora_model = inject(clip, targets)
    base, fresh = snapshot(lora_model), adapter_state(lora_model)
    mh.train(clip, emoji.head(16), epochs=2, batch_size=8, progress=False)

    same_bits(snapshot(lora_model), base)
    same_bits({n: base_state_dict(lora_model)[n] for n in before}, before)
    trained = adapter_state(lora_model)
    assert [n for n, matrix in trained.items() if torch.equal(matrix, fresh[n])] == []

    images = torch.rand(1, 3, *clip.image_size)
    tokens = clip.tokenizer(["a red apple"])
    wanted = outputs(lora_model.eval(), images, tokens)
    other = small(name)
    loaded = mh.load_adapter(other.model, mh.save_adapter(lora_model, tmp_path / "adapter"))
    assert torch.equal(outputs(loaded, images, tokens), wanted)
    merged = mh.merge_adapter(loaded)
    plain = small(name).model
    plain.load_state_dict(merged.state_dict(), strict=True)
    assert difference(outputs(plain, images, tokens), wanted) < 1e-5


LAST = {
    "RN50": None,
    "convnext_base": "visual.head.proj",
    "ViT-B-16": None,
    "coca_ViT-B-32": None,
    "ViT-B-16-SigLIP": None,
    "EVA01-g-14": "visual.trunk.head",
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_layer_that_makes_the_embedding_is_found_by_what_it_returns(name: str):
    model = small(name).model
    assert forward_pass(model).embedding == LAST[name]
    if LAST[name]:
        mh.split_attention(model)
        assert LAST[name] in mh.lora_targets(model)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_looking_at_a_forward_pass_changes_nothing(name: str):
    model = small(name).model
    model.train()
    model.visual.eval()
    modes = [m.training for m in model.modules()]
    state = {n: t.clone() for n, t in model.state_dict().items()}
    random = torch.get_rng_state()
    forward_pass(model)
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    same_bits(model.state_dict(), state)


# What a set leaves out on each, by the ends of its names, and a word of the reason.
LEFT_OUT = {
    ("RN50", "image"): (("q_proj", "k_proj", "v_proj", "c_proj"), "AttentionPool2d"),
    ("coca_ViT-B-32", "all"): (("attn_pool.attn.out_proj",), "MultiheadAttention"),
    ("ViT-B-16-SigLIP", "text"): (("text.text_projection",), "asks for by its class"),
    ("EVA01-g-14", "default"): (("0.attn.qkv", "1.attn.qkv"), "EvaAttention"),
}


@pytest.mark.parametrize(("name", "targets"), LEFT_OUT)
def test_what_a_set_leaves_out_is_said_in_one_sentence(name: str, targets: str):
    ends, reason = LEFT_OUT[name, targets]
    clip = small(name)
    with pytest.warns(UserWarning, match=f"^{len(ends)} layers of the target set") as caught:
        lora_model = mh.inject_lora(clip.model, targets=targets)
    (warning,) = caught
    assert reason in str(warning.message)
    assert Path(warning.filename) == Path(__file__)
    assert not any(
        layer.endswith(ends) for layer, _ in mh.lora_layers(lora_model) if "pool" in layer
    )


def test_where_nothing_is_left_out_nothing_is_said(recwarn):
    for name in ("nano", "ViT-B-16", "convnext_base"):
        for targets in TARGET_SETS:
            model = fresh("nano").model if name == "nano" else small(name).model
            mh.inject_lora(model, targets=targets)
    assert [str(w.message) for w in recwarn if w.category is UserWarning] == []


def test_the_decoder_of_coca_belongs_to_no_tower_and_to_no_set():
    model = small("coca_ViT-B-32").model
    mh.split_attention(model)
    assert not any(name.startswith("text_decoder") for name in mh.lora_targets(model, "all"))


def test_a_pooling_attention_with_weights_of_its_own_stays_as_it_is():
    model = small("coca_ViT-B-32").model
    inject_names = mh.split_attention(model)
    assert "visual.attn_pool.attn" not in inject_names
    assert not isinstance(model.visual.attn_pool.attn, SplitAttention)
