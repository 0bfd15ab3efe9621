"""The first step finds adapters that can't learn, and costs a run nothing where all can."""

from __future__ import annotations

import pytest
import torch
from conftest import fresh
from short_runs import adapted, broken_off, everything, run, same_bits, trainable
from torch import nn

import mclip_helpers as mh
from mclip_helpers.training import first_step, loop
from mclip_helpers.training.first_step import DeadAdapterError

HEAD = "visual.trunk.head.fc"


def head(clip: mh.Clip):
    return dict(mh.lora_layers(clip.model))[HEAD]


def kill(clip: mh.Clip) -> None:
    head(clip).forward = head(clip).get_base_layer().forward


def test_where_every_adapter_learns_nothing_is_recorded(emoji, monkeypatch):
    monkeypatch.setattr(first_step, "trace", lambda model: pytest.fail("recorded"))
    assert run(adapted(), emoji, epochs=1).steps


def test_a_run_with_the_check_is_bit_equal_to_one_without(emoji, monkeypatch):
    checked, unchecked = adapted(), adapted()
    run(checked, emoji, epochs=1)
    monkeypatch.setattr(loop, "require_reached", lambda *_: None)
    run(unchecked, emoji, epochs=1)
    same_bits(trainable(checked), trainable(unchecked))


def test_a_dead_adapter_is_named_before_a_step_is_taken(emoji):
    clip = adapted()
    kill(clip)
    before = everything(clip)
    with pytest.raises(DeadAdapterError, match=rf"1 of 17 .*no step(.|\n)*never called: {HEAD}"):
        run(clip, emoji)
    same_bits(everything(clip), before)
    assert not clip.model.training
    assert all(p.grad is None for p in clip.model.parameters())


def test_each_call_of_train_looks_anew_and_so_does_one_that_goes_on(emoji, tmp_path):
    path = broken_off(tmp_path / "run", emoji)
    clip = adapted()
    kill(clip)
    with pytest.raises(DeadAdapterError):
        run(clip, emoji, epochs=3, checkpoint=path)


def test_many_names_are_counted_and_grouped_by_their_reason(emoji):
    clip = adapted(targets="all")
    for name, layer in mh.lora_layers(clip.model):
        if name.startswith("text"):
            layer.scaling["default"] = 0.0
    kill(clip)
    with pytest.raises(DeadAdapterError) as caught:
        run(clip, emoji)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("19 of 48 adapters")
    assert len(lines) == 2
    assert any(line.endswith("and 14 more") and "scaling" in line for line in lines)


def test_what_dropout_leaves_out_of_the_first_step_is_not_dead(emoji):
    """Every block of the image tower is skipped in train mode, and none in eval mode."""

    class Skip(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0 if self.training else x

    clip = fresh("nano")
    mh.inject_lora(clip.model, rank=2, targets="image")
    clip.model.visual.trunk.stages.append(Skip())
    assert len(run(clip, emoji, epochs=1).steps) == 3


def test_a_gradient_of_zeros_that_the_adapter_did_not_make_is_a_warning(emoji):
    clip = adapted(targets=[HEAD, "text.transformer.resblocks.0.mlp.c_fc"])
    clip.model.visual.register_forward_hook(lambda tower, inputs, output: output * 0 + 1)
    with pytest.warns(UserWarning, match="1 of 2 adapters got a gradient of zeros") as caught:
        run(clip, emoji, epochs=1)
    assert caught[0].filename.endswith("short_runs.py")


def test_a_model_without_adapters_is_trained_as_before(emoji):
    clip = fresh("nano")
    assert run(clip, emoji, epochs=1, lr=1e-5).steps
