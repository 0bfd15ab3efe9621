"""The gradients that lie in a model now, whoever put them there."""

from __future__ import annotations

from torch import nn

from .inventory import hint_at_model
from .norms import norm
from .verdicts import Gradient, Gradients


def gradients(model: nn.Module) -> Gradients:
    """Look at every parameter's `.grad` after a backward pass. Changes nothing.

    It sees what lies there; `trace` sees it come, and can say why it did not. TypeError for what is
    no model.
    """
    if not isinstance(model, nn.Module):
        wanted = f"expected a module, got {type(model).__name__}"
        raise TypeError(wanted + hint_at_model(model, "gradients"))
    return Gradients(
        Gradient.of(name, p, None if p.grad is None else float(norm(p.grad)))
        for name, p in model.named_parameters()
    )
