"""Frozen batch norm stays still in training, and unfreezing undoes it."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import load_once, skeleton
from lora_checks import batch_norms, same_bits, snapshot, untouched

import mclip_helpers as mh


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
