"""The forward pass: which call of a module made which node.

Autograd numbers the nodes of its graph as they are made. The value of its counter at each entry to
and exit from a module tells which call made a node: the innermost that was running then.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

sequence_number = torch.autograd._get_sequence_nr


@dataclass(slots=True)
class RunningCall:
    """A call while it is recorded. Nodes made in it have numbers from `first` to below `last`."""

    module: str
    inside: int | None
    recorded: bool
    first: int
    last: int
    needs_gradient: bool = False


class CallLog:
    """Every call of a model's modules in one thread.

    Nodes numbered from `_since[i]` on were made in the call `_innermost[i]`. What modules do while
    `paused` (checkpointing runs them again in the backward pass) is not a call of its own.
    """

    def __init__(self, names: Mapping[nn.Module, str]):
        self.calls: list[RunningCall] = []
        self.begun = sequence_number()
        self.paused = False
        self._names = names
        self._thread = threading.get_ident()
        self._running: list[int] = []
        self._since: list[int] = []
        self._innermost: list[int | None] = []

    def listen(self, stack: ExitStack) -> None:
        """Follow the modules until `stack` closes.

        The hooks are global: a module with hooks of its own may take another path through
        PyTorch's code than one without.
        """
        stack.callback(register_module_forward_pre_hook(self._enter).remove)
        stack.callback(register_module_forward_hook(self._leave, always_call=True).remove)

    @property
    def running(self) -> str:
        """The module whose call is running; "" outside of any."""
        return self.calls[self._running[-1]].module if self._running else ""

    def made_by(self, number: int) -> int | None:
        """The index of the call that made the node of this number."""
        at = bisect_right(self._since, number) - 1
        return self._innermost[at] if at >= 0 else None

    def _enter(self, module: nn.Module, _inputs: object) -> None:
        name = self._names.get(module)
        if name is None or self.paused:
            return
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                f"{name or 'the model'} was called in another thread than the one that began the "
                f"recording, and PyTorch numbers the nodes of each thread anew: run the forward "
                f"pass, the backward pass and the `with` block in one thread"
            )
        running, number = self._running, sequence_number()
        inside = running[-1] if running else None
        running.append(len(self.calls))
        self.calls.append(RunningCall(name, inside, torch.is_grad_enabled(), number, number))
        self._mark(number)

    def _leave(self, module: nn.Module, _inputs: object, output: object) -> None:
        name = self._names.get(module)
        if name is None or self.paused or threading.get_ident() != self._thread:
            return
        running = self._running
        is_innermost = running and self.calls[running[-1]].module == name
        if not is_innermost and not self._drop_interrupted(name):
            return
        call = self.calls[running.pop()]
        call.last = number = sequence_number()
        call.needs_gradient = _needs_gradient(output)
        self._mark(number)

    def _drop_interrupted(self, name: str) -> bool:
        """End the calls within that of `name`, which an interrupt has left without their hook.

        Returns whether a call of `name` is running at all.
        """
        if not any(self.calls[i].module == name for i in self._running):
            return False
        while self.calls[self._running[-1]].module != name:
            self.calls[self._running.pop()].last = sequence_number()
        return True

    def _mark(self, number: int) -> None:
        self._since.append(number)
        self._innermost.append(self._running[-1] if self._running else None)


def _needs_gradient(output: object) -> bool:
    """Whether any tensor in the result of a module requires a gradient."""
    if isinstance(output, torch.Tensor):
        return output.requires_grad
    if isinstance(output, Mapping):
        return any(map(_needs_gradient, output.values()))
    return isinstance(output, list | tuple) and any(map(_needs_gradient, output))
