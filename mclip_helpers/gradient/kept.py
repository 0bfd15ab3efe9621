"""The saved tensors: what autograd keeps from the forward pass, and where it was made."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from itertools import count

import torch

from ..names import clean_name
from .saved import Saved


class SavedTensor:
    """A tensor that autograd keeps; `number` counts them in the order in which they were saved."""

    __slots__ = ("__weakref__", "module", "number", "tensor", "version")

    def __init__(self, tensor: torch.Tensor, module: str, number: int):
        # Detached: else the node that keeps it would keep itself alive through it.
        self.tensor, self.version = tensor.detach(), tensor._version
        self.module, self.number = module, number

    def unpack(self) -> torch.Tensor:
        """Give the tensor back to autograd.

        Without hooks autograd itself checks that it is unchanged; with hooks it leaves that to us.
        """
        if self.tensor._version != self.version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: a tensor of shape {tuple(self.tensor.shape)} that "
                f"{clean_name(self.module) or 'an operation outside of the model'} needs"
            )
        return self.tensor


class SavedTensors:
    """All tensors that autograd keeps at the moment; `module` tells which module is running."""

    def __init__(self, module: Callable[[], str]):
        self._module = module
        self._number = count()
        self._kept: weakref.WeakSet[SavedTensor] = weakref.WeakSet()

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        """A context in which every tensor that autograd saves is noted."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, SavedTensor.unpack)

    def _pack(self, tensor: torch.Tensor) -> SavedTensor:
        if tensor.layout is not torch.strided:
            raise NotImplementedError(
                f"autograd saves a sparse tensor ({tensor.layout}) of shape {tuple(tensor.shape)}: "
                f"the recorder counts the bytes of dense tensors only"
            )
        saved = SavedTensor(tensor, self._module(), next(self._number))
        self._kept.add(saved)
        return saved

    def count(self, of_the_model: Iterable[torch.Tensor]) -> Saved:
        """The bytes that are kept now, each piece of memory once."""
        the_models = {tensor.untyped_storage().data_ptr() for tensor in of_the_model}
        counted: set[int] = set()
        modules: dict[str, int] = {}
        in_the_model = 0
        for saved in sorted(self._kept, key=lambda saved: saved.number):
            memory = saved.tensor.untyped_storage()
            if memory.data_ptr() in counted:
                continue
            counted.add(memory.data_ptr())
            if memory.data_ptr() in the_models:
                in_the_model += memory.nbytes()
            else:
                modules[saved.module] = modules.get(saved.module, 0) + memory.nbytes()
        return Saved(modules, in_the_model)

    def forget(self) -> None:
        """Hold on to nothing any more."""
        self._kept.clear()
