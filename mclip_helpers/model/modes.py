"""Eval mode or training mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import nn


def in_eval(model: nn.Module) -> AbstractContextManager[None]:
    """A block with `model` in eval mode; each of its modules goes back into its own afterwards."""
    return _in_mode(model, training=False)


def in_train(model: nn.Module) -> AbstractContextManager[None]:
    """The same with `model` in training mode."""
    return _in_mode(model, training=True)


@contextmanager
def _in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train(training)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
