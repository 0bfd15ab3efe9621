"""What has a name in the model that is recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import nn


def hint_at_model(value: object, function: str) -> str:
    """What to add to a refusal of `value` where it has a model inside, as a `Clip` has."""
    inside = isinstance(getattr(value, "model", None), nn.Module)
    return f": pass its model, as in {function}(clip.model)" if inside else ""


class Inventory:
    """The modules and parameters of a model by name, or the tensors of a dict.

    `modules` gives the name of a module, `names` all names of a tensor (a shared parameter has
    several); `weights` counts the numbers in the parameters that a module holds itself. `tensors`
    are all parameters and buffers.
    """

    def __init__(self, model: nn.Module | Mapping[str, torch.Tensor]):
        self.modules: dict[nn.Module, str] = {}
        self.names: dict[torch.Tensor, tuple[str, ...]] = {}
        self.weights: Counter[str] = Counter()
        self._buffers: list[torch.Tensor] = []
        self.is_model = isinstance(model, nn.Module)
        if isinstance(model, nn.Module):
            self._enter("", model)
        else:
            for name, tensor in model.items():
                self._name(name, tensor)

    def _enter(self, name: str, module: nn.Module) -> None:
        """Write down a module and all that lies in it.

        Does what `named_modules(remove_duplicate=False)` does, which takes long in a deep model.
        A module that is registered under two names goes by the first of them.
        """
        self.modules.setdefault(module, name)
        dot = f"{name}." if name else ""
        for last, parameter in module._parameters.items():
            if parameter is not None:
                self._name(dot + last, parameter)
                self.weights[name] += parameter.numel()
        self._buffers += [b for b in module._buffers.values() if b is not None]
        for last, child in module._modules.items():
            if child is not None:
                self._enter(dot + last, child)

    def _name(self, name: str, tensor: torch.Tensor) -> None:
        self.names[tensor] = (*self.names.get(tensor, ()), name)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [*self._buffers, *self.names]

    def zero_parameters(self) -> tuple[str, ...]:
        """The names of trainable parameters in which every number is zero now."""
        return tuple(
            name
            for tensor, names in self.names.items()
            if tensor.requires_grad and not tensor.any()
            for name in names
        )
