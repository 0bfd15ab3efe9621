"""Batch norm whose running statistics don't move while adapters are trained.

In training mode they move even where every parameter is frozen, and the adapter file does not hold
them: a reloaded model would differ from the trained one. (timm and open_clip can freeze batch norm,
too, but by a class that drops `num_batches_tracked` from the state dict.)
"""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

BATCH_NORM = nn.modules.batchnorm._BatchNorm


class _Frozen:
    """Mixed into a batch norm's class: the layer stays in `eval`, also under `.train()`."""

    original: type[nn.Module]

    def train(self, mode: bool = True) -> Any:
        return super().train(False)  # type: ignore[misc]


@functools.cache
def _frozen_class(original: type[nn.Module]) -> type[nn.Module]:
    return type(f"Frozen{original.__name__}", (_Frozen, original), {"original": original})


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """The batch norm layers in `module`, frozen or not."""
    return [layer for layer in module.modules() if isinstance(layer, BATCH_NORM)]


def freeze_batch_norm(model: nn.Module) -> int:
    """Keep the running statistics of every batch norm as they are, also under `.train()`; in place.

    Changes no name of a parameter or buffer. Returns the number of layers that it froze.
    """
    norms: list[Any] = [m for m in batch_norms(model) if not isinstance(m, _Frozen)]
    for norm in norms:
        norm.__class__ = _frozen_class(type(norm))  # type: ignore[arg-type]  # python/mypy#11469
        norm.eval()
    return len(norms)


def unfreeze_batch_norm(model: nn.Module) -> int:
    """Undo `freeze_batch_norm`, in place. Returns the number of layers that it unfroze."""
    norms: list[Any] = [m for m in model.modules() if isinstance(m, _Frozen)]
    for norm in norms:
        norm.__class__ = norm.original
        norm.train(model.training)
    return len(norms)
