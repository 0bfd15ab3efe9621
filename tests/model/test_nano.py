"""nano: its stored weights, the whole of them, and what is wrong with a file in their place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import mclip_helpers as mh
from mclip_helpers.files import data_folder
from mclip_helpers.model import nano as nano_module

SOME = "text.positional_embedding"  # one of the weights; each of them is as good for the tests


def test_nano_has_exactly_the_stored_weights_and_zeros_for_tokens_never_seen(nano):
    stored = load_file(data_folder() / "nano.safetensors")
    rows = stored.pop("text.token_embedding.rows").long()
    table = nano.model.text.token_embedding.weight
    assert torch.equal(table[rows], stored.pop("text.token_embedding.weight").float())
    unseen = torch.ones(len(table), dtype=torch.bool)
    unseen[rows] = False
    assert 0 < len(rows) < len(table)
    assert not table[unseen].any()
    assert table[rows].any(dim=1).all()
    state = nano.model.state_dict()
    for name, value in stored.items():
        assert torch.equal(state.pop(name), value.float()), name
    left = [name for name in state if not name.endswith("num_batches_tracked")]
    assert left == ["text.token_embedding.weight"], "no weight stays as it was initialised"


def test_nano_is_the_same_at_every_load(nano):
    torch.manual_seed(1)
    again = mh.load_model("nano", device="cpu").model.state_dict()
    state = nano.model.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in state.items())


def test_nano_sees_64_pixels_and_keeps_colours_between_0_and_1(nano):
    assert nano.model.visual.image_size in (64, (64, 64))
    for value in (0, 51, 255):
        image = nano.preprocess(Image.new("RGB", (100, 80), (value, value, value)))
        assert image.shape == (3, 64, 64)
        assert torch.allclose(image, torch.full_like(image, value / 255))


def test_nano_tokens_fit_its_text_tower(nano):
    tokens = nano.tokenizer(["a cat", "a very long sentence " * 20])
    assert tokens.shape == (2, nano.model.text.context_length) == (2, 24)


def test_nano_knows_twemoji_far_better_than_chance(nano):
    dataset = mh.emoji_dataset("twemoji", "val")
    assert mh.evaluate(nano, dataset).image_to_text[1] > 10 / len(dataset)


def test_nano_knows_every_word_of_the_emoji_it_was_trained_on(nano):
    unknown = {item.en: nano.unknown_tokens(item.en) for item in mh.emoji_catalogue()}
    assert {name: words for name, words in unknown.items() if words} == {}


def test_nano_has_no_tags_to_choose_from():
    with pytest.raises(ValueError, match="'datacompdr'"):
        mh.load_model("nano", pretrained="datacompdr")


# ----------------------------------------------------------------------------------------- its file


@pytest.fixture
def nano_file(monkeypatch, tmp_path) -> Path:
    """Where nano is looked for in this test; nothing lies there yet."""
    monkeypatch.setattr(nano_module, "data_folder", lambda: tmp_path)
    return tmp_path / "nano.safetensors"


def error() -> str:
    """The message of the WeightsError that loading nano must raise."""
    with pytest.raises(mh.WeightsError) as caught:
        mh.load_model("nano", device="cpu")
    return str(caught.value)


def test_a_missing_nano_file_is_an_error_that_says_how_to_get_it_back(nano_file):
    message = error()
    assert f"{nano_file} is missing" in message
    assert f"git checkout {nano_file}" in message


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "folder"])
def test_a_damaged_nano_file_is_an_error_that_says_how_to_mend_it(nano_file, damage):
    if damage == "folder":
        nano_file.mkdir()
    else:
        whole = (data_folder() / "nano.safetensors").read_bytes()
        left = {"empty": b"", "garbage": b"x" * 5000, "truncated": whole[: len(whole) // 2]}
        nano_file.write_bytes(left[damage])
    message = error()
    assert f"{nano_file} is damaged" in message
    assert f"git checkout {nano_file}" in message


@pytest.mark.parametrize("change", ["no rows", "narrower table", "row too far", "a tensor less"])
def test_another_models_file_in_nanos_place_is_an_error(nano_file, change):
    state = load_file(data_folder() / "nano.safetensors")
    if change == "no rows":
        del state["text.token_embedding.rows"]
    elif change == "narrower table":
        table = state["text.token_embedding.weight"][:, :64]
        state["text.token_embedding.weight"] = table.contiguous()
    elif change == "row too far":
        state["text.token_embedding.rows"][-1] = 10**6
    else:
        del state[SOME]
    save_file(state, nano_file)
    message = error()
    assert f"{nano_file} does not hold the weights of this model" in message
    assert f"git checkout {nano_file}" in message
