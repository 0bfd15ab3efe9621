"""The backward pass: in which order the nodes ran, and the gradients that went in and out."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import torch
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from .nodes import Visit
from .norms import Norm, norm

Tensors = tuple[torch.Tensor | None, ...]
Edge = tuple[Node | None, int]  # a node, and the number of its result that is meant


@dataclass(slots=True)
class RunningNode:
    """A node while it is recorded; `edges` are the nodes behind it, one for each input.

    `version` is that of the gradient that came in, when it did.
    """

    edges: tuple[Edge, ...]
    version: int | None = None
    visits: list[Visit] = field(default_factory=list)
    handles: list = field(default_factory=list)


class _Handed:
    """A gradient on its way along an edge, and its norm."""

    __slots__ = ("norm", "tensor", "version")

    def __init__(self, tensor: torch.Tensor, norm: Norm | None):
        # Weak: if we held it, it could not be added to in place, nor become a `.grad` uncopied.
        self.tensor, self.version, self.norm = weakref.ref(tensor), tensor._version, norm

    def is_still(self, tensor: torch.Tensor) -> bool:
        """Whether this is what arrives: a hook in between may have put another in its place."""
        return self.tensor() is tensor and self.version == tensor._version


class BackwardLog:
    """What every backward pass of the block did at each node."""

    def __init__(self) -> None:
        self.nodes: dict[Node, RunningNode] = {}
        self.roots: list[Node] = []
        self.calls = 0
        self.is_running = False
        self._order = count(1)
        self._handed: dict[Edge, _Handed | None] = {}

    def run(self, backward: Callable, tensors: object, *args: object, **options: object) -> None:
        """Call `backward(tensors, …)`, PyTorch's own, and note what it does."""
        if not isinstance(tensors, torch.Tensor | GradientEdge):
            tensors = tuple(tensors)  # type: ignore[arg-type]  # it may be a generator
        roots = roots_of(tensors)
        self.calls += 1
        self.roots += [root for root in dict.fromkeys(roots) if root not in self.roots]
        self._watch(roots)
        self._handed.clear()
        self.is_running = True
        try:
            backward(tensors, *args, **options)
        finally:
            self.is_running = False

    def _watch(self, roots: list[Node]) -> None:
        """Put our hooks on every node behind `roots` that has none yet."""
        waiting = list(roots)
        while waiting:
            node = waiting.pop()
            if node in self.nodes:
                continue
            running = self.nodes[node] = RunningNode(node.next_functions)
            running.handles.append(node.register_prehook(partial(self._arrive, node, running)))
            running.handles.append(node.register_hook(partial(self._depart, running)))
            waiting += [behind for behind, _ in running.edges if behind is not None]

    def _arrive(self, node: Node, running: RunningNode, incoming: Tensors) -> None:
        """The gradient has come to a node, and the operation is about to run."""
        if self.is_running:  # else it is `torch.autograd.grad`
            # (Any: on a GPU they are tensors until `norms.fetch`.)
            norms: Any = tuple([self._measure((node, i), t) for i, t in enumerate(incoming)])
            running.visits.append(Visit(next(self._order), norms, _shapes(incoming)))
            running.version = _version(incoming)

    def _depart(self, running: RunningNode, outgoing: Tensors, incoming: Tensors) -> None:
        """The operation has run, and its gradients leave for the nodes behind."""
        if not self.is_running:
            return
        if _version(incoming) != running.version:
            incoming = ()  # a custom operation has changed it in place: its norm is out of date
        visit = running.visits[-1]
        norms: Any = tuple([_passed_on(t, incoming, visit.incoming) for t in outgoing])
        visit.outgoing = norms
        visit.outgoing_shapes = _shapes(outgoing)
        for edge, tensor, size in zip(running.edges, outgoing, norms, strict=False):
            if tensor is not None and edge not in self._handed:
                self._handed[edge] = _Handed(tensor, size)
            else:  # gradients that meet are added up on arrival: neither arrives as it left
                self._handed[edge] = None

    def _measure(self, edge: Edge, tensor: torch.Tensor | None) -> Norm | None:
        """The norm of what arrives. As a rule it was measured when it left the node before."""
        if tensor is None:
            return None
        handed = self._handed.pop(edge, None)
        if handed and handed.is_still(tensor):
            return handed.norm
        return norm(tensor)

    def forget(self) -> None:
        """Take our hooks away, and hold on to nothing any more."""
        for running in self.nodes.values():
            for handle in running.handles:
                handle.remove()
        self.nodes, self.roots = {}, []
        self._handed.clear()


def _passed_on(
    tensor: torch.Tensor | None, incoming: Tensors, norms: tuple[Norm | None, ...]
) -> Norm | None:
    """The norm of what leaves a node; that of what came in, if it is the same numbers.

    An addition hands its gradient on, a change of shape gives another view of it.
    """
    if tensor is None:
        return None
    came = incoming[0] if len(incoming) == 1 else None
    if came is not None and _are_same_numbers(tensor, came):
        return norms[0]
    return norm(tensor)


def _version(tensors: Tensors) -> int | None:
    """How often the only one of these tensors has been changed in place."""
    return tensors[0]._version if len(tensors) == 1 and tensors[0] is not None else None


def _are_same_numbers(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether one is a view of the other's memory that leaves nothing out."""
    if tensor is other:
        return True
    if tensor.layout is not torch.strided or other.layout is not torch.strided:
        return False
    if not tensor.numel() == other.numel() > 1 or tensor.data_ptr() != other.data_ptr():
        return False
    return 0 not in tensor.stride()  # else it repeats some of the numbers, and leaves others out


def roots_of(tensors: object) -> list[Node]:
    """The nodes at which `backward(tensors)` begins."""
    several = [tensors] if isinstance(tensors, torch.Tensor | GradientEdge) else tensors
    roots = []
    for root in several:  # type: ignore[attr-defined]
        if isinstance(root, GradientEdge):
            roots.append(root.node)
        elif root.requires_grad:  # if not, PyTorch's own error is the one to read
            roots.append(get_gradient_edge(root).node)
    return roots


def _shapes(tensors: Tensors) -> tuple[tuple[int, ...] | None, ...]:
    return tuple([None if t is None else tuple(t.shape) for t in tensors])
