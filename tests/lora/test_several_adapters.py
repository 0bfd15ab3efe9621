"""Several adapters on one base: loaded by name, switched, and switched off."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import fresh

import mclip_helpers as mh
from mclip_helpers.lora.state import base_state_dict

PICTURES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def trained(targets: str, seed: int, logit_scale: float | None = None) -> torch.nn.Module:
    """`nano` with an adapter whose B is not zero any more."""
    torch.manual_seed(seed)
    lora_model = mh.inject_lora(fresh("nano").model, 2, 4, targets=targets)
    with torch.no_grad():
        for name, parameter in lora_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        if logit_scale is not None:
            lora_model.logit_scale.fill_(logit_scale)
    return lora_model.eval()


@torch.no_grad()
def seen(model: torch.nn.Module) -> torch.Tensor:
    return model.encode_image(PICTURES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two saved adapters on different layers, and what each makes of the pictures."""
    folder = tmp_path_factory.mktemp("adapters")
    outputs = {}
    for seed, (name, targets) in enumerate({"thermal": "image", "sketch": "default"}.items()):
        lora_model = trained(targets, seed)
        mh.save_adapter(lora_model, folder / name)
        outputs[name] = seen(lora_model)
    return folder, outputs


def both(folder) -> torch.nn.Module:
    lora_model = mh.load_adapter(fresh("nano").model, folder / "thermal", name="thermal")
    return mh.load_adapter(lora_model, folder / "sketch", name="sketch")


def test_each_computes_what_it_computed_alone_in_any_order(saved):
    folder, outputs = saved
    lora_model = both(folder)
    assert torch.equal(seen(lora_model), outputs["sketch"]), "the last one loaded is on"
    for name in ("thermal", "sketch", "thermal"):
        lora_model.set_adapter(name)
        assert torch.equal(seen(lora_model), outputs[name])


def test_with_everything_off_the_base_is_back_bit_for_bit(saved):
    folder, outputs = saved
    lora_model, base = both(folder), fresh("nano").model.eval()
    with lora_model.disable_adapter():
        assert torch.equal(seen(lora_model), seen(base))
    assert torch.equal(seen(lora_model), outputs["sketch"])
    state = base_state_dict(lora_model)
    assert all(torch.equal(value, state[name]) for name, value in base.state_dict().items())


@torch.no_grad()  # with gradients PyTorch's own attention takes another way, and rounds differently
def test_attention_without_an_adapter_is_left_as_it_is(saved, tmp_path):
    """Split, it would compute the base's captions only up to rounding, with everything off too."""
    folder, _ = saved
    base = fresh("nano")
    texts = base.tokenizer(["a red apple", "a dog"])
    before = base.model.eval().encode_text(texts)
    lora_model = mh.load_adapter(fresh("nano").model, folder / "thermal", name="thermal")
    assert not any(isinstance(m, mh.lora.SplitAttention) for m in lora_model.modules())
    assert torch.equal(lora_model.encode_text(texts), before)

    mh.save_adapter(trained("text", 5), tmp_path / "words")
    alone = mh.load_adapter(fresh("nano").model, tmp_path / "words").encode_text(texts)
    mh.load_adapter(lora_model, tmp_path / "words", name="words")
    assert torch.equal(lora_model.encode_text(texts), alone)
    with lora_model.disable_adapter():
        assert torch.allclose(lora_model.encode_text(texts), before, atol=1e-5)


def test_they_share_the_base_in_memory(saved):
    folder, _ = saved
    one = mh.load_adapter(fresh("nano").model, folder / "thermal")
    two = both(folder)
    count = [sum(p.numel() for p in model.parameters()) for model in (one, two)]
    adapter = trained("default", 0).get_nb_trainable_parameters()[0]
    assert count[1] - count[0] == adapter


def test_only_the_one_that_is_loaded_as_trainable_is_trained(saved):
    folder, _ = saved
    lora_model = mh.load_adapter(fresh("nano").model, folder / "thermal", name="thermal")
    mh.load_adapter(lora_model, folder / "sketch", name="sketch", trainable=True)
    names = [name for name, p in lora_model.named_parameters() if p.requires_grad]
    assert names and all(name.endswith(".sketch.weight") for name in names)


def test_merging_takes_the_one_that_is_on(saved):
    folder, outputs = saved
    lora_model = both(folder)
    lora_model.set_adapter("thermal")
    merged = mh.merge_adapter(lora_model)
    assert torch.allclose(seen(merged), outputs["thermal"], atol=1e-4)
    assert set(merged.state_dict()) == set(fresh("nano").model.state_dict())


def test_a_name_that_is_taken_is_refused_and_nothing_changes(saved):
    folder, outputs = saved
    lora_model = both(folder)
    with pytest.raises(ValueError, match="adapters already, called thermal, sketch"):
        mh.load_adapter(lora_model, folder / "thermal", name="thermal")
    assert torch.equal(seen(lora_model), outputs["sketch"])


@pytest.mark.parametrize("name", ["", "a.b", "lora_A", "a b", "é"])
def test_a_name_that_can_not_be_one_is_refused(saved, name):
    folder, _ = saved
    with pytest.raises(ValueError, match="an adapter's name has letters"):
        mh.load_adapter(fresh("nano").model, folder / "thermal", name=name)
    with pytest.raises(TypeError, match="name is a int"):
        mh.load_adapter(fresh("nano").model, folder / "thermal", name=1)


def test_another_temperature_is_refused_and_nothing_changes(saved, tmp_path):
    folder, outputs = saved
    mh.save_adapter(trained("image", 3, logit_scale=1.5), tmp_path / "warm")
    lora_model = both(folder)
    with pytest.raises(ValueError, match=r"trained with logit_scale = 1\.5.*share"):
        mh.load_adapter(lora_model, tmp_path / "warm", name="warm")
    assert list(lora_model.peft_config) == ["thermal", "sketch"]
    assert torch.equal(seen(lora_model), outputs["sketch"])


def test_a_damaged_second_one_is_refused_and_nothing_changes(saved, tmp_path):
    folder, outputs = saved
    mh.save_adapter(trained("image", 4), tmp_path / "third")
    config = tmp_path / "third" / "adapter_config.json"
    changed = json.loads(config.read_text()) | {"lora_alpha": 1600}
    config.write_text(json.dumps(changed))
    lora_model = both(folder)
    before = {name: (p, p.requires_grad) for name, p in lora_model.named_parameters()}
    with pytest.raises(ValueError, match="third"):
        mh.load_adapter(lora_model, tmp_path / "third", name="third")
    assert {name: (p, p.requires_grad) for name, p in lora_model.named_parameters()} == before
    assert torch.equal(seen(lora_model), outputs["sketch"])


def test_an_adapter_that_is_added_to_the_base_makes_no_room_for_another(saved):
    folder, _ = saved
    lora_model = mh.load_adapter(fresh("nano").model, folder / "thermal", name="thermal")
    lora_model.merge_adapter()
    with pytest.raises(ValueError, match="unmerge_adapter"):
        mh.load_adapter(lora_model, folder / "sketch", name="sketch")
