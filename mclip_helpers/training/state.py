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

    (But for `reached`: whether a step of this call has reached every adapter, see `first_step`.)
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


class LastStep:
    """What the last whole step left in a model: what it trains, and its buffers (batch norm's).

    A step that is cut short (by Ctrl-C, by an error in the middle of it) may have changed a part of
    them. Both methods are one call to PyTorch, which Ctrl-C comes before or after.
    """

    def __init__(self, model: nn.Module):
        self.tensors = [*trainable_parameters(model).values(), *model.buffers()]
        self.kept = [tensor.detach().clone() for tensor in self.tensors]

    @torch.no_grad()
    def keep(self) -> None:
        """Take the model as it is for the last whole step."""
        torch._foreach_copy_(self.kept, self.tensors)

    @torch.no_grad()
    def put_back(self) -> None:
        """Make the model what it was when `keep` was last called."""
        torch._foreach_copy_(self.tensors, self.kept)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name. ValueError if there are none."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("no parameter requires a gradient; call inject_lora on the model first")
    return parameters
