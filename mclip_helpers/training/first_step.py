"""Whether the loss reaches every adapter: asked at the first step, before it is taken.

What is dead can't always be told from names and classes. The backward pass tells: an adapter learns
only if its A or its B gets a gradient other than zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from ..gradient import Cause, Gradient, Verdict, trace
from ..lora import lora_layers
from ..model import in_eval

NAMES_SHOWN, REASONS_SHOWN = 4, 5


class DeadAdapterError(ValueError):
    """Adapters that this loss never reaches. No step was taken."""


def require_reached(model: nn.Module, compute_loss: Callable[[], torch.Tensor]) -> None:
    """Raise DeadAdapterError if an adapter that is to be trained can't learn from this loss.

    Call it between the first backward pass and the optimizer's step. Where every adapter has a
    gradient, it looks at those and no more. Otherwise `compute_loss()`, a forward pass over the
    same batch, is recorded in eval mode: what stochastic depth or dropout had left out of the first
    pass is reached now. An adapter is dead if no gradient arrives at it even then, or if the
    adapter itself makes it zero (its scaling is 0, or A and B are). One whose gradient is zero for
    another reason, as behind a ReLU that is zero for the whole batch, may still learn: a warning.

    Gradients and modes are afterwards what they were; where it raises, there are no gradients.
    """
    adapters = {name: layer for name, layer in lora_layers(model) if _trainable(layer)}
    suspects = [name for name, layer in adapters.items() if not _has_gradient(layer)]
    if not suspects:
        return
    with _set_aside(model), trace(model) as tape:
        compute_loss().backward()
    found = tape.graph.gradients.adapters
    dead: dict[str, str] = {}
    still: dict[str, str] = {}
    for name in suspects:
        gradient = _without_gradient(found[name].values())
        if gradient is None or _is_zero_loss(gradient):
            continue
        layer = adapters[name]
        if gradient.verdict is Verdict.NOT_REACHED or _stays_zero(layer):
            dead[name] = gradient.why
        elif _has_no_scaling(layer):
            dead[name] = "its scaling, alpha / rank, is 0"
        else:
            still[name] = gradient.why
    if dead:
        model.zero_grad()
        raise DeadAdapterError(
            f"{len(dead)} of {len(adapters)} adapters would never learn, so no step was taken. "
            f"Load the model again, and remove the cause, or inject without them: `targets` takes "
            f"a list of names, as lora_targets gives it.\n{_listed(dead)}"
        )
    if still:
        warnings.warn(
            f"{len(still)} of {len(adapters)} adapters got a gradient of zeros from the first "
            f"batch; if that is so for every batch, they don't learn:\n{_listed(still)}",
            stacklevel=5,  # where `train` was called
        )


def _trainable(layer: LoraLayer) -> list[nn.Parameter]:
    """Those of an adapter's matrices that are trained."""
    matrices = (*layer.lora_A.parameters(), *layer.lora_B.parameters())
    return [matrix for matrix in matrices if matrix.requires_grad]


def _has_gradient(layer: LoraLayer) -> bool:
    """Whether any of them has a gradient other than zero. (NaN is other than zero.)"""
    return any(p.grad is not None and bool(p.grad.any()) for p in _trainable(layer))


@contextmanager
def _set_aside(model: nn.Module) -> Iterator[None]:
    """A block in eval mode and without gradients; modes and gradients come back after it."""
    gradients = [(p, p.grad) for p in model.parameters()]
    try:
        with in_eval(model):
            model.zero_grad()
            yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _without_gradient(pair: Iterable[Gradient]) -> Gradient | None:
    """Of an adapter's A and B the last one trained; None if either got a gradient after all."""
    trained = [g for g in pair if g.requires_grad]
    return None if any(g.verdict is Verdict.REACHED for g in trained) else trained[-1]


def _is_zero_loss(gradient: Gradient) -> bool:
    """Whether this batch gave nothing to learn, to any parameter."""
    return gradient.reason is not None and gradient.reason.cause is Cause.ZERO_LOSS


def _has_no_scaling(layer: LoraLayer) -> bool:
    """Whether alpha / rank is zero in the precision of the adapter's numbers."""
    return not any(torch.tensor(value, dtype=torch.float32) for value in layer.scaling.values())


def _stays_zero(layer: LoraLayer) -> bool:
    """Whether B A is zero, and no step can change that: both are, or one that is not trained."""
    matrices = (*layer.lora_A.parameters(), *layer.lora_B.parameters())
    zero = [matrix for matrix in matrices if not matrix.any()]
    return len(zero) == len(matrices) or not all(matrix.requires_grad for matrix in zero)


def _listed(reasons: Mapping[str, str]) -> str:
    """A line for each reason, with some of the names: reasons are by name."""
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    lines = []
    for reason, names in list(groups.items())[:REASONS_SHOWN]:
        more = len(names) - NAMES_SHOWN
        shown = ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"  {reason}: {shown}")
    if len(groups) > REASONS_SHOWN:
        lines.append(f"  and {len(groups) - REASONS_SHOWN} more reasons")
    return "\n".join(lines)
