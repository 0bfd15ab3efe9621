"""What one recorded step leaves: nodes, calls, and what is needed to tell their story.

All of it is plain data: names, shapes, norms and bytes. It holds no hook, and no tensor but the
gradients that `trace` was asked to keep, so you may have it for as long as you like.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ..names import clean_name, is_adapter, tower_of
from .kinds import Kind
from .saved import Saved
from .verdicts import Gradients

LEAF = "AccumulateGrad"

# Each recorded step makes hundreds of instances of the next three classes. They are not `frozen`,
# because construction would take three times as long; nobody changes them afterwards.


@dataclass(slots=True, unsafe_hash=True)
class Visit:
    """One time that a backward pass ran a node.

    `order` counts the nodes in the order in which they ran, from 1. `incoming` has the norm of the
    gradient at each result of the operation, `outgoing` at each of its inputs; None where there is
    no gradient. `outgoing` itself is None if the pass broke off inside this node.
    """

    order: int
    incoming: tuple[float | None, ...]
    incoming_shapes: tuple[tuple[int, ...] | None, ...]
    outgoing: tuple[float | None, ...] | None = None
    outgoing_shapes: tuple[tuple[int, ...] | None, ...] = ()


@dataclass(slots=True, unsafe_hash=True)
class Node:
    """One operation of the autograd graph.

    `module` is the full name of the innermost module that made it, None outside of any; `call`
    is the number of that module's call, from 1. `next` has for each input of the operation the
    index of the node behind it, or None. `parameters` has the names of the leaf's tensor: none if
    this is no leaf, several if the parameter is shared. `label` is the name from `trace.label`.
    """

    index: int
    operation: str
    module: str | None
    call: int
    next: tuple[int | None, ...]
    parameters: tuple[str, ...] = ()
    visits: tuple[Visit, ...] = ()
    label: str | None = None

    @property
    def is_leaf(self) -> bool:
        return self.operation == LEAF

    @property
    def order(self) -> int | None:
        """Its place in the order in which the backward pass first ran; None if it never did."""
        return self.visits[0].order if self.visits else None

    @property
    def norm_in(self) -> float | None:
        """Norm of the gradient that came in at its first visit."""
        return joint_norm(self.visits[0].incoming) if self.visits else None

    @property
    def norm_out(self) -> float | None:
        """Norm of all that went out at its first visit."""
        return joint_norm(self.visits[0].outgoing or ()) if self.visits else None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the gradient that came in: that of the operation's (first used) result."""
        shapes = self.visits[0].incoming_shapes if self.visits else ()
        return next((shape for shape in shapes if shape is not None), None)

    @property
    def name(self) -> str:
        """The full name of a leaf's parameter, else of the module; "" if there is neither."""
        return self.parameters[0] if self.parameters else self.module or ""

    @property
    def where(self) -> str:
        """`name` as it is without PEFT."""
        return clean_name(self.name)


def joint_norm(norms: Sequence[float | None]) -> float | None:
    """The norm of several gradients taken together; None if there is none."""
    known = [norm for norm in norms if norm is not None]
    return math.hypot(*known) if known else None


@dataclass(slots=True, unsafe_hash=True)
class Call:
    """One call of a module in the forward pass.

    `nodes` are the indices of the graph's nodes that it made itself, not by calling others;
    `weights` counts the numbers in the parameters that it holds itself. `recorded` says whether
    gradients were switched on, `needs_gradient` whether its result needs one; `lost` that it made
    nodes, itself or in modules that it called, and that none of them is in the graph. `inside` is
    the index of the call that it was made in.
    """

    module: str
    call: int
    nodes: tuple[int, ...]
    weights: int
    recorded: bool
    needs_gradient: bool
    lost: bool
    inside: int | None


@dataclass(frozen=True)
class BackwardGraph:
    """The graph of one recorded step, as data. `Graph` is the same with its questions attached.

    `nodes` stand in the order in which the forward pass made them, the leaves last; `roots` are
    the indices at which a backward pass began. `error` is what broke the block off, if anything
    did. `has_towers` says whether the model has an image and a text tower. `kept_gradients` has
    what lay in `.grad` of each trainable parameter when the block ended, if `trace` was to keep it.
    """

    nodes: tuple[Node, ...]
    roots: tuple[int, ...]
    calls: tuple[Call, ...]
    gradients: Gradients
    saved: Saved
    backward_calls: int
    error: str | None = None
    has_towers: bool = True
    kept_gradients: Mapping[str, torch.Tensor | None] | None = None

    @cached_property
    def order(self) -> tuple[Node, ...]:
        """The nodes that ran, in the order in which they first did."""
        ran = [(node.visits[0].order, node) for node in self.nodes if node.visits]
        return tuple(node for _, node in sorted(ran, key=lambda pair: pair[0]))

    @cached_property
    def leaves(self) -> dict[str, Node]:
        """The ends of the graph by their parameter's (first, full) name."""
        return {n.parameters[0]: n for n in self.nodes if n.parameters}

    @property
    def edges(self) -> list[tuple[int, int]]:
        """From each node to those behind it: the direction of the gradient."""
        return [(n.index, behind) for n in self.nodes for behind in n.next if behind is not None]

    @cached_property
    def _before(self) -> dict[int, list[int]]:
        before: dict[int, list[int]] = {}
        for a, b in self.edges:
            before.setdefault(b, []).append(a)
        return before

    def before(self, index: int) -> tuple[int, ...]:
        """The nodes that hand a gradient to this one; one of them twice if it does so twice."""
        return tuple(self._before.get(index, ()))

    def tower(self, node: Node) -> Kind:
        """The tower of a node: MODEL in a model without towers, or what `_outside` says."""
        return self.tower_of(node.where) if node.where else self._outside[node.index]

    def tower_of(self, name: str) -> Kind:
        """The tower of a module or parameter; LOSS for a parameter that is in neither tower."""
        if not self.has_towers or not clean_name(name):
            return Kind.MODEL
        return Kind(tower_of(name) or Kind.LOSS)

    @cached_property
    def _outside(self) -> dict[int, Kind]:
        """What the nodes belong to that no module made, or only the model as a whole.

        It is the loss, unless a module uses their results, as where a model by itself adds
        positions to the tokens. Then it is the tower of that module; MODEL, if there are several.
        """
        users: dict[int, set[Kind]] = {node.index: set() for node in self.nodes if not node.where}
        waiting = [
            (behind, self.tower_of(node.where))
            for node in self.nodes
            if node.where
            for behind in node.next
        ]
        while waiting:
            index, tower = waiting.pop()
            if index in users and tower not in users[index]:
                users[index].add(tower)
                waiting += [(behind, tower) for behind in self.nodes[index].next]
        several = {index: Kind.MODEL if towers else Kind.LOSS for index, towers in users.items()}
        return several | {i: next(iter(t)) for i, t in users.items() if len(t) == 1}

    def kind(self, node: Node) -> Kind:
        """What a picture draws a node as."""
        if is_adapter(node.where):
            return Kind.ADAPTER
        if node.is_leaf:
            return Kind.WEIGHTS if node.parameters else Kind.INPUT
        return self.tower(node)
