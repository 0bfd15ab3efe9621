"""Two gradients beside each other: how far apart, and where."""

from __future__ import annotations

import math

import pytest
import torch
from recorded_steps import clip_loss, step_of
from shown import png
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import gradient_diff


def recorded(clip: mh.Clip, factor: float = 1.0):
    clip.model.zero_grad()
    with mh.trace(clip.model, keep_gradients=True) as tape:
        (factor * clip_loss(clip)).backward()
    return tape.graph


def test_the_same_step_twice_has_the_same_gradient_to_the_last_bit(nano: mh.Clip):
    mh.inject_lora(nano.model, rank=2)
    nano.model.logit_scale.requires_grad_(True)
    diff = recorded(nano).diff(recorded(nano))
    assert diff.total == 0 and set(diff.modules.values()) == {0.0}
    layers = {name.removeprefix("base_model.model.") for name, _ in mh.lora_layers(nano.model)}
    assert diff.modules.keys() == layers | {"logit_scale"}


def test_a_scaled_loss_is_that_much_apart_everywhere(nano: mh.Clip):
    mh.inject_lora(nano.model, rank=2)
    diff = recorded(nano, 1.5).diff(recorded(nano))
    assert diff.total == pytest.approx(0.5, rel=1e-4)
    assert diff.modules == pytest.approx(dict.fromkeys(diff.modules, 0.5), rel=1e-3)


def test_the_difference_is_relative_to_the_second_and_by_module():
    ours = {"a.weight": torch.tensor([3.0, 4.0]), "a.bias": torch.tensor([0.0]), "b": torch.ones(1)}
    theirs = {
        "a.weight": torch.tensor([3.0, 0.0]),
        "a.bias": torch.tensor([4.0]),
        "b": torch.ones(1),
    }
    diff = gradient_diff(ours, theirs)
    assert diff.modules == {"a": pytest.approx(math.sqrt(32) / 5), "b": 0.0}
    assert diff.total == pytest.approx(math.sqrt(32 / 26))
    assert diff.worst[0] == "a"


def test_what_only_one_side_has_is_infinitely_far():
    some, none = {"a": torch.ones(2), "b": torch.ones(1)}, {"a": None, "b": torch.ones(1)}
    for diff in (gradient_diff(some, none), gradient_diff(none, some)):
        assert diff.modules == {"a": math.inf, "b": 0.0} and diff.total == math.inf
    assert gradient_diff({"a": torch.zeros(2)}, {"a": None}).total == 0
    assert gradient_diff({"a": torch.zeros(2)}, {"a": torch.zeros(2)}).total == 0


def test_names_with_peft_and_without_are_one():
    a = {"base_model.model.visual.head.lora_A.default.weight": torch.ones(1)}
    assert gradient_diff(a, {"visual.head.lora_A": torch.ones(1)}).modules == {"visual.head": 0.0}


def test_gradients_of_other_models_are_refused():
    with pytest.raises(ValueError, match="no parameter in common: a on one side, b on the other"):
        gradient_diff({"a": torch.ones(1)}, {"b": torch.ones(1)})
    with pytest.raises(ValueError, match=r"shapes \(1,\) and \(2,\)"):
        gradient_diff({"a": torch.ones(1)}, {"a": torch.ones(2)})


def test_a_recording_without_gradients_says_how_to_keep_them():
    graph = step_of("nano")
    assert graph.kept_gradients is None
    with pytest.raises(ValueError, match="keep_gradients=True"):
        graph.diff(graph)
    with pytest.raises(ValueError, match="keep_gradients is 'yes'"):
        mh.trace(nn.Linear(1, 1), keep_gradients="yes")


def test_what_is_kept_is_a_copy():
    model = nn.Linear(2, 1)
    with mh.trace(model, keep_gradients=True) as tape:
        model(torch.ones(1, 2)).sum().backward()
    model.weight.grad.zero_()
    assert tape.graph.kept_gradients["weight"].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("count", [1, 5, 200])
def test_it_is_drawn_and_told(count: int):
    theirs = {f"visual.{i}.weight": torch.ones(2) for i in range(count)}
    ours = {name: g * (1 + 10.0**-i) for i, (name, g) in enumerate(theirs.items())}
    ours["visual.0.weight"] = None
    diff = gradient_diff(ours, theirs)
    assert "inf" in str(diff) and len(str(diff).splitlines()) <= 14
    picture = png(diff.plot())
    assert 100 < picture.height < 1500
    assert diff._repr_mimebundle_().keys() == {"image/png"}


def test_only_such_a_difference_is_drawn():
    from mclip_helpers.draw.gradient_diffs import gradient_diff as drawn

    with pytest.raises(TypeError, match=r"a\.graph\.diff"):
        drawn({"a": 1.0})
