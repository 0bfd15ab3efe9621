"""What training changes as it goes: the model, the optimizer, the schedule, the gradient scaler."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from ..model import ClipModel
from .history import History


@dataclass
class TrainingState:
    """Everything that a step of training changes, so everything that a checkpoint must hold.

    (But `reached`: whether a step of this call has reached every adapter, see `first_step`.)
    """

    model: ClipModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    history: History = field(default_factory=History)
    reached: bool = False

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.scheduler.get_last_lr()[0])


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name. ValueError if there are none."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("no parameter requires a gradient; call inject_lora on the model first")
    return parameters
