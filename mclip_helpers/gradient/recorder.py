"""The recorder: watch one training step, and keep what its backward pass did.

    with mh.trace(model) as tape:
        loss = contrastive_loss(...)
        loss.backward()
    tape.graph.path("head.fc.lora_B")

Three things are noted while the step runs, each by a small class of its own: the calls of modules
(`calls`), what the backward pass does at each node (`backward`), and which tensors autograd saves
for it (`kept`). When the block ends, `build` makes a `Graph` of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from torch.autograd.graph import Node as AutogradNode

from ..checks import true_or_false
from .backward import BackwardLog
from .build import Recording, build, is_of_another_forward_pass
from .calls import CallLog
from .graph import Graph
from .inventory import Inventory, hint_at_model
from .kept import SavedTensors
from .saved import Saved

ANOTHER = "another recording is running: one at a time. End its `with` block first"


class trace:
    """Record one training step: `with trace(model) as tape:` around a forward and `backward()`.

    Afterwards `tape.graph` is a `Graph`. `model` is any module, or, where there is none, a dict
    of named tensors. With an `optimizer`, the graph also knows which parameters it lacks. With
    `keep_gradients` it keeps a copy of what lies in each trainable parameter's `.grad` when the
    block ends, so that two recordings can be compared (`Graph.diff`).

    It changes no gradient; when the block ends, in whatever way, no hook and no other tensor of it
    is left. Raises RuntimeError if another recording is running, and on `tape.graph` if no backward
    pass ran in the block, or only one whose forward pass ran before it.

    It records what goes through `Tensor.backward` and `torch.autograd.backward`, in the thread
    that began it; `torch.autograd.grad` fills no `.grad` and is not recorded. Refused with an
    error: a forward pass in another thread, a backward pass inside of another (checkpointing with
    `use_reentrant=True`), sparse and complex gradients, and `torch.func`'s transforms (PyTorch
    refuses them beside hooks for saved tensors). Where the block's own code sets such hooks, as
    checkpointing does, those are used, and what they keep is not counted.
    """

    _running: ClassVar[dict[trace, None]] = {}  # the first one runs; any other is about to give up

    def __init__(
        self,
        model: nn.Module | Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer | None = None,
        *,
        keep_gradients: bool = False,
    ):
        _check(model, optimizer)
        self._model: nn.Module | Mapping[str, torch.Tensor] | None = model
        self._optimizer = optimizer
        self._keep_gradients = true_or_false("keep_gradients", keep_gradients)
        self._tape: _Tape | None = None  # only inside of the block
        self._graph: Graph | None = None
        self._problem = "the recording has not ended: read `graph` after the `with` block"
        self._exit = ExitStack()

    @property
    def graph(self) -> Graph:
        """The recorded step. RuntimeError if there is none, with the reason."""
        if self._graph is None:
            raise RuntimeError(self._problem)
        return self._graph

    def label(self, **results: torch.Tensor) -> None:
        """Name results of the block, as in `tape.label(loss=loss)`: their nodes carry the names.

        Raises ValueError for a tensor that no node of a graph made, RuntimeError outside the block.
        """
        if self._tape is None:
            raise RuntimeError("nothing is being recorded: use `label` inside the `with` block")
        for name, tensor in results.items():
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"{name} is a {type(tensor).__name__}; a label names a tensor")
            if tensor.grad_fn is None:
                raise ValueError(f"{name} has no grad_fn: no operation on the tape made it")
            self._tape.labels[tensor.grad_fn] = name

    def __enter__(self) -> trace:
        if self._model is None:
            raise RuntimeError("this recording has ended: begin another one with `trace(model)`")
        if self in trace._running:
            raise RuntimeError(ANOTHER)
        # Each thing is undone by a callback of its own, which stands in the stack before there is
        # anything to undo: Ctrl-C may come at any line.
        try:
            self._exit.callback(trace._running.pop, self, None)
            trace._running[self] = None
            if next(iter(trace._running)) is not self:
                raise RuntimeError(ANOTHER)
            self._exit.callback(self._forget)
            self._tape = _Tape(self._model)
            self._tape.listen(self._exit)
            self._exit.push(self._finish)
            return self
        except BaseException:
            self._exit.close()
            raise

    def __exit__(self, *error: Any) -> None:
        self._exit.__exit__(*error)

    def _finish(self, kind: type | None, error: BaseException | None, _: object) -> None:
        """Make the graph of what was recorded before the block ended, in whatever way."""
        message = None if error is None else f"{type(error).__name__}: {error}"
        try:
            self._make_graph(message)
        except Exception as own:
            if error is None:
                raise
            # The block's own error goes on, and is the one to read.
            self._problem = f"the block broke off: {message}; what it had recorded is lost: {own}"

    def _make_graph(self, error: str | None) -> None:
        """Make the graph, or say why there is none."""
        assert self._tape is not None
        if not self._tape.backward.calls:
            self._problem = (
                "no backward pass ran inside the `with` block: call loss.backward() in it"
            )
            if error:
                self._problem = f"the block broke off before a backward pass: {error}"
            return
        recording = self._tape.recording(self._optimizer, error, self._keep_gradients)
        if is_of_another_forward_pass(recording):
            self._problem = (
                "the forward pass of this loss ran before the `with` block began, so nothing is "
                "known of where it came from: run the forward pass inside the block too"
            )
            return
        self._graph = build(recording)

    def _forget(self) -> None:
        """Drop all that could keep a tensor alive."""
        self._model = self._optimizer = self._tape = None


def _check(model: object, optimizer: object) -> None:
    """Raise TypeError unless both are what `trace` takes, with what to pass instead."""
    if not isinstance(model, nn.Module | Mapping):
        wanted = f"expected a module or a dict of tensors, got {type(model).__name__}"
        raise TypeError(wanted + hint_at_model(model, "trace"))
    for name, value in model.items() if isinstance(model, Mapping) else ():
        if not isinstance(name, str):
            raise TypeError(f"expected a dict of tensors by name; {name!r} is no name")
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"expected a dict of tensors; {name!r} is a {type(value).__name__}")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"the optimizer is a {type(optimizer).__name__}; pass a torch.optim.Optimizer, or none"
        )


class _Tape:
    """What is noted while the block runs."""

    def __init__(self, model: nn.Module | Mapping[str, torch.Tensor]):
        self.inventory = Inventory(model)
        self.calls = CallLog(self.inventory.modules)
        self.backward = BackwardLog()
        self.kept = SavedTensors(lambda: self.calls.running)
        self.labels: dict[AutogradNode, str] = {}
        self._saved = Saved({})
        self._zeros: tuple[str, ...] = ()
        self._ended = False

    def listen(self, stack: ExitStack) -> None:
        """Note everything until `stack` closes.

        `Tensor.backward` and checkpointing look `torch.autograd.backward` up when they need it,
        and it is the only place at which the whole graph stands and has not run yet.
        """
        stack.callback(self.backward.forget)
        stack.callback(self.kept.forget)
        self.calls.listen(stack)
        stack.enter_context(self.kept.hooks())
        original = torch.autograd.backward
        stack.callback(self._end)
        stack.callback(setattr, torch.autograd, "backward", original)
        torch.autograd.backward = partial(self._run_backward, original)

    def _end(self) -> None:
        self._ended = True

    def _run_backward(
        self, original: Callable, tensors: object, *args: object, **options: object
    ) -> None:
        if self._ended:  # somebody has kept this function for longer than the block
            return original(tensors, *args, **options)
        if self.backward.is_running:
            raise RuntimeError(
                "a backward pass runs inside of another one, as checkpointing with "
                "use_reentrant=True does: the recorder does not follow it. Use use_reentrant=False"
            )
        if not self.backward.calls:
            self._saved = self.kept.count(self.inventory.tensors)
            self._zeros = self.inventory.zero_parameters()
        self.calls.paused = True
        try:
            self.backward.run(original, tensors, *args, **options)
        finally:
            self.calls.paused = False

    def recording(
        self, optimizer: torch.optim.Optimizer | None, error: str | None, keep_gradients: bool
    ) -> Recording:
        return Recording(
            inventory=self.inventory,
            calls=self.calls,
            backward=self.backward,
            labels=self.labels,
            saved=self._saved,
            zeros=self._zeros,
            optimizer=optimizer,
            error=error,
            keep_gradients=keep_gradients,
        )
