"""The weights underneath adapters: the merged ones are those of a merge; the fingerprint."""

from __future__ import annotations

import pytest
import torch
from conftest import fresh
from lora_checks import with_random_adapters
from torch import nn

import mclip_helpers as mh
from mclip_helpers.lora import merged_state_dict
from mclip_helpers.lora.state import fingerprint, scalars


@pytest.mark.parametrize("name", ["nano", "MobileCLIP2-S0", "ViT-B-32"])
def test_the_merged_numbers_are_those_of_a_merge_and_the_adapter_stays(name: str):
    lora_model = with_random_adapters(fresh(name), targets="all")
    before = {key: value.clone() for key, value in lora_model.state_dict().items()}
    merged = merged_state_dict(lora_model)
    after = lora_model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    by_peft = mh.merge_adapter(lora_model).state_dict()
    assert merged.keys() == by_peft.keys()
    assert all(torch.equal(merged[key], by_peft[key]) for key in merged)


def test_the_fingerprint_sees_buffers_too():
    model = fresh("nano").model
    before = fingerprint(model)
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).running_var.mul_(2)
    assert fingerprint(model) != before


def test_the_fingerprint_leaves_out_what_is_trained_with_an_adapter():
    """And so a model with a `logit_bias`, as SigLIP's, has that of one without."""
    model = fresh("nano").model
    before = fingerprint(model)
    model.logit_bias = nn.Parameter(torch.tensor(-10.0))
    nn.init.constant_(model.logit_scale, 2.0)
    assert fingerprint(model) == before
    assert scalars(model) == {"logit_scale": 2.0, "logit_bias": -10.0}


def test_the_fingerprint_of_a_base_stays_from_version_to_version():
    """Adapters that people have name it."""
    assert fingerprint(fresh("nano").model) == "ac4a2ddccdea6470"
