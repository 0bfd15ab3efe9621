"""A change of a model that is made whole, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def whole_or_not_at_all(model: nn.Module) -> Iterator[None]:
    """If the block raises, Ctrl-C included, `model` is put back before the error goes on.

    Put back are the modules and their order, their classes, modes, hooks and other attributes, and
    which parameters require a gradient; all are the same objects as before. Numbers are not copied:
    the block may replace tensors, but not write into them.
    """
    modules = [(m, type(m), _attributes(m)) for m in model.modules()]
    parameters = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield
    except BaseException:
        for module, kind, attributes in modules:
            module.__class__ = kind  # type: ignore[assignment]  # python/mypy#11469
            module.__dict__.clear()
            module.__dict__.update(attributes)
        for parameter, required in parameters:
            parameter.requires_grad_(required)
        raise


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What `module` holds; of its containers (children, parameters, hooks) copies, one deep."""
    copied = (dict, list, set)
    return {k: v.copy() if isinstance(v, copied) else v for k, v in vars(module).items()}
