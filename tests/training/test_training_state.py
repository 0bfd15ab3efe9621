"""The parameters that are trained, and the learning rate of a state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mclip_helpers as mh
from mclip_helpers.training.state import TrainingState


def test_the_trainable_parameters_are_those_that_require_a_gradient_by_name():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    found = mh.trainable_parameters(model)
    assert list(found) == ["1.weight", "1.bias"]
    assert found["1.bias"] is model[1].bias


def test_a_model_without_any_is_refused():
    with pytest.raises(ValueError, match="call inject_lora"):
        mh.trainable_parameters(nn.Linear(2, 2).requires_grad_(False))


def test_the_learning_rate_is_that_of_the_next_step():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    state = TrainingState(model, optimizer, schedule, torch.amp.GradScaler("cpu", enabled=False))
    assert state.lr == 0.5
    optimizer.step()
    schedule.step()
    assert state.lr == 0.25
