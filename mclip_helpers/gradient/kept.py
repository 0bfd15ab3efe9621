"""The saved tensors: what autograd keeps from the forward pass, and where it was made."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

import torch

from ..names import clean_name
from .saved import Saved


class SavedTensor:
    """A tensor that autograd keeps, and the module that ran when it was saved."""

    __slots__ = ("__weakref__", "module", "tensor", "version")

    def __init__(self, tensor: torch.Tensor, module: str):
        # Detached: through its `grad_fn` the tensor would keep alive the node that keeps it.
        self.tensor, self.version, self.module = tensor.detach(), tensor._version, module

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
    """All tensors that autograd saves; `module` tells which module is running.

    They are held weakly: autograd alone decides how long it keeps them.
    """

    def __init__(self, module: Callable[[], str]):
        self._module = module
        self._saved: list[weakref.ref[SavedTensor]] = []

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        """A context in which every tensor that autograd saves is noted."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, SavedTensor.unpack)

    def _pack(self, tensor: torch.Tensor) -> SavedTensor:
        if tensor.layout is not torch.strided:
            raise NotImplementedError(
                f"autograd saves a sparse tensor ({tensor.layout}) of shape {tuple(tensor.shape)}: "
                f"the recorder counts the bytes of dense tensors only"
            )
        saved = SavedTensor(tensor, self._module())
        self._saved.append(weakref.ref(saved))
        return saved

    def count(self, of_the_model: Iterable[torch.Tensor]) -> Saved:
        """The bytes that are kept now; memory that two modules saved counts for the first."""
        the_models = {tensor.untyped_storage().data_ptr() for tensor in of_the_model}
        counted: set[int] = set()
        modules: dict[str, int] = {}
        in_the_model = 0
        for saved in [kept for ref in self._saved if (kept := ref()) is not None]:
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
        self._saved.clear()
