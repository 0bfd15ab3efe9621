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
from torch.utils.hooks import RemovableHandle

from .nodes import Visit
from .norms import Norm, norm

Tensors = tuple[torch.Tensor | None, ...]
Edge = tuple[Node | None, int]  # a node, and the number of its result that is meant
# A gradient on its way along an edge: the tensor, its version and its norm when it left.
Handed = tuple[weakref.ref[torch.Tensor], int, Norm]


@dataclass(slots=True)
class RunningNode:
    """A node while it is recorded; `edges` are the nodes behind it, one for each input.

    `name` and `number` (autograd counts nodes as they are made) are read before the pass: with
    torch 2.11, the node of a custom operation can't be asked for them afterwards.
    `version` counts the changes in place of the gradient that came in, up to its arrival.
    """

    edges: tuple[Edge, ...]
    name: str
    number: int
    version: int | None = None
    visits: list[Visit] = field(default_factory=list)


class BackwardLog:
    """What every backward pass of the block did at each node."""

    def __init__(self) -> None:
        self.nodes: dict[Node, RunningNode] = {}
        self.roots: list[Node] = []
        self.calls = 0
        self.is_running = False
        self._handles: list[RemovableHandle] = []
        self._order = count(1)
        self._handed: dict[Edge, Handed | None] = {}

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
            running = self.nodes[node] = RunningNode(
                node.next_functions, node.name(), node._sequence_nr()
            )
            self._handles.append(node.register_prehook(partial(self._arrive, node, running)))
            if running.edges:  # a leaf hands nothing on
                self._handles.append(node.register_hook(partial(self._depart, running)))
            waiting += [behind for behind, _ in running.edges if behind is not None]

    def _arrive(self, node: Node, running: RunningNode, incoming: Tensors) -> None:
        """The gradient has come to a node, and the operation is about to run."""
        if not self.is_running:  # it is `torch.autograd.grad`
            return
        # (Any: on a GPU they are tensors until `norms.fetch`.)
        norms: Any = tuple([self._measure((node, i), t) for i, t in enumerate(incoming)])
        outgoing = None if running.edges else ()
        running.visits.append(Visit(next(self._order), norms, _shapes(incoming), outgoing))
        running.version = _version(incoming)

    def _depart(self, running: RunningNode, outgoing: Tensors, incoming: Tensors) -> None:
        """The operation has run, and its gradients leave for the nodes behind."""
        if not self.is_running:
            return
        visit = running.visits[-1]
        # A custom operation may have changed what came in: then the norm on arrival is out of date.
        came = incoming[0] if len(incoming) == 1 and _version(incoming) == running.version else None
        norms: list[Any] = []
        for tensor in outgoing:
            if tensor is None:
                norms.append(None)
            elif came is not None and _are_same_numbers(tensor, came):
                norms.append(visit.incoming[0])  # an addition, a change of shape
            else:
                norms.append(norm(tensor))
        visit.outgoing = tuple(norms)
        visit.outgoing_shapes = _shapes(outgoing)
        self._hand_on(running.edges, outgoing, norms)

    def _hand_on(self, edges: tuple[Edge, ...], gradients: Tensors, norms: list[Any]) -> None:
        """Remember the norm of what goes along each edge, until it arrives."""
        for edge, tensor, size in zip(edges, gradients, norms, strict=False):
            if tensor is not None and edge not in self._handed:
                # Weak: if we held it, it could not be added to in place, nor become a `.grad`.
                self._handed[edge] = weakref.ref(tensor), tensor._version, size
            else:  # gradients that meet are added up on arrival: neither arrives as it left
                self._handed[edge] = None

    def _measure(self, edge: Edge, tensor: torch.Tensor | None) -> Norm | None:
        """The norm of what arrives. As a rule it was measured when it left the node before."""
        if tensor is None:
            return None
        handed = self._handed.pop(edge, None)
        if handed is not None:
            sent, version, size = handed
            # A hook in between may have put another tensor in its place, or changed it.
            if sent() is tensor and version == tensor._version:
                return size
        return norm(tensor)

    def forget(self) -> None:
        """Take our hooks away, and hold on to nothing any more."""
        for handle in self._handles:
            handle.remove()
        self._handles, self.nodes, self.roots = [], {}, []
        self._handed.clear()


def _version(tensors: Tensors) -> int | None:
    """How often the only one of these tensors has been changed in place."""
    return tensors[0]._version if len(tensors) == 1 and tensors[0] is not None else None


def _are_same_numbers(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether one is a view of the other's memory that leaves nothing out."""
    if tensor is other:
        return True
    if tensor.layout is not torch.strided or tensor.data_ptr() != other.data_ptr():
        return False
    if not tensor.numel() == other.numel() > 1:
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
