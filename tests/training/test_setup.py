"""What stands before the loop: which parameters the optimizer gets, and with which options."""

from __future__ import annotations

import pytest
import torch
from short_runs import adapted, run, trainable

import mclip_helpers as mh


class Spy(torch.optim.AdamW):
    """Remembers what it was given."""

    given: list[torch.nn.Parameter]

    def __init__(self, params, **options):
        Spy.given = list(params)
        super().__init__(Spy.given, **options)


@pytest.mark.parametrize("train_logit_scale", [False, True])
def test_only_adapters_are_in_the_optimizer_and_the_scale_if_asked(
    emoji: mh.PictureDataset, monkeypatch, train_logit_scale: bool
):
    lora = adapted()
    monkeypatch.setattr(torch.optim, "AdamW", Spy)
    run(lora, emoji, epochs=1, train_logit_scale=train_logit_scale)
    names = {id(p): name for name, p in lora.model.named_parameters()}
    given = [names[id(p)] for p in Spy.given]
    adapters = [name for name in names.values() if ".lora_" in name]
    assert len(adapters) == 2 * len(list(mh.lora_layers(lora.model)))
    assert sorted(given) == sorted(adapters + ["logit_scale"] * train_logit_scale)


def test_a_model_without_anything_to_train_is_refused(nano: mh.Clip, emoji: mh.PictureDataset):
    nano.model.requires_grad_(False)
    with pytest.raises(ValueError, match="call inject_lora"):
        run(nano, emoji)


def test_weight_decay_reaches_the_optimizer(emoji: mh.PictureDataset):
    norms = []
    for weight_decay in (0.0, 50.0):
        clip = adapted()
        run(clip, emoji, weight_decay=weight_decay)
        norms.append(sum(v.norm() for name, v in trainable(clip).items() if ".lora_A." in name))
    assert norms[1] < 0.95 * norms[0]
