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
        self._since = [self.begun]
        self._innermost: list[int | None] = [None]

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
        current = self._innermost[-1]
        return "" if current is None else self.calls[current].module

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
        number = sequence_number()
        call = RunningCall(name, self._innermost[-1], torch.is_grad_enabled(), number, number)
        self._since.append(number)
        self._innermost.append(len(self.calls))
        self.calls.append(call)

    def _leave(self, module: nn.Module, _inputs: object, output: object) -> None:
        name = self._names.get(module)
        if name is None or self.paused or threading.get_ident() != self._thread:
            return
        call = self._running_call_of(name)
        if call is None:
            return
        call.last = number = sequence_number()
        call.needs_gradient = _needs_gradient(output)
        self._since.append(number)
        self._innermost.append(call.inside)

    def _running_call_of(self, name: str) -> RunningCall | None:
        """The innermost running call of this module, if it is running at all.

        As a rule it is the innermost of all. Calls within it that an interrupt has ended, without
        a hook that says so, are closed here.
        """
        interrupted: list[RunningCall] = []
        current = self._innermost[-1]
        while current is not None:
            call = self.calls[current]
            if call.module == name:
                for inner in interrupted:
                    inner.last = sequence_number()
                return call
            interrupted.append(call)
            current = call.inside
        return None


def _needs_gradient(output: object) -> bool:
    """Whether any tensor in the result of a module requires a gradient."""
    if isinstance(output, torch.Tensor):
        return output.requires_grad
    if isinstance(output, Mapping):
        return any(map(_needs_gradient, output.values()))
    return isinstance(output, list | tuple) and any(map(_needs_gradient, output))
