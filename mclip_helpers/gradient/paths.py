"""Paths from the loss to a parameter."""

from __future__ import annotations

import difflib
from collections import deque
from dataclasses import dataclass

from ..display import ShownAsPicture, Table, readable
from ..names import clean_name, is_adapter
from . import words
from .kinds import Kind
from .nodes import BackwardGraph, Node
from .reasons import join_reasons
from .verdicts import Gradient


@dataclass(frozen=True)
class Path(ShownAsPicture):
    """A shortest path from the loss to one parameter. `ways` counts all the paths there are.

    `kinds` says for each node what it is drawn as: ADAPTER, or else its tower.
    """

    parameter: str
    nodes: tuple[Node, ...]
    kinds: tuple[Kind, ...]
    ways: int

    def table(self) -> Table:
        """A row for each stop: what runs there, where it was made, and what arrives."""
        rows = [
            [
                i,
                node.operation,
                node.where or ("(the loss)" if kind is Kind.LOSS else f"({words.OUTSIDE})"),
                words.short_shape(node.shape),
                words.short_number(node.norm_in),
            ]
            for i, (node, kind) in enumerate(zip(self.nodes, self.kinds, strict=True), start=1)
        ]
        header = ["stop", "operation", "made by", "gradient's shape", "gradient's norm"]
        return Table(header, rows)

    def __repr__(self) -> str:
        head = f"{len(self.nodes)} stops from the loss to {readable(self.parameter)}"
        return f"{head} (one of {self.ways:,} paths)\n{self.table()}"


def shortest_path(graph: BackwardGraph, name: str) -> Path:
    """A shortest path from the loss to the parameter `name` (see `find_leaf` for what fits)."""
    leaf = find_leaf(graph, name)
    came_from: dict[int, int | None] = dict.fromkeys(graph.roots)
    waiting = deque(graph.roots)
    while waiting and leaf.index not in came_from:
        current = waiting.popleft()
        for behind in graph.nodes[current].next:
            if behind is not None and behind not in came_from:
                came_from[behind] = current
                waiting.append(behind)
    nodes = [leaf]
    while (previous := came_from[nodes[-1].index]) is not None:
        nodes.append(graph.nodes[previous])
    nodes.reverse()
    kinds = [Kind.ADAPTER if is_adapter(node.where) else graph.tower(node) for node in nodes]
    return Path(leaf.where, tuple(nodes), tuple(kinds), count_ways(graph, leaf.index))


def count_ways(graph: BackwardGraph, index: int) -> int:
    """How many paths lead from the roots to a node."""
    known: dict[int, int] = {}
    waiting = [index]
    while waiting:  # no recursion: deep graphs exceed Python's limit
        current = waiting[-1]
        before = graph.before(current)
        unknown = [b for b in before if b not in known]
        if unknown:
            waiting += unknown
            continue
        waiting.pop()
        known[current] = (current in graph.roots) + sum(known[b] for b in before)
    return known[index]


def find_leaf(graph: BackwardGraph, name: str) -> Node:
    """The node at which the gradient of the parameter `name` arrives.

    Any ending of its name that fits one parameter alone will do, with or without PEFT's
    additions: "stages.3.blocks.0.token_mixer.qkv.lora_B". Raises ValueError for a name that fits
    none or several, or a parameter that is not in the graph, and says why it is not.
    """
    if not isinstance(name, str):
        raise TypeError(f"a parameter is asked for by a {type(name).__name__}; pass its name")
    wanted = clean_name(name)
    parameters = _parameters(graph)
    fits = [n for n in parameters if n == wanted]
    fits = fits or [n for n in parameters if f".{n}".endswith(f".{wanted}")]
    if not fits:
        near = difflib.get_close_matches(wanted, parameters, n=3, cutoff=0.4)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"no parameter is called {name!r}.{hint}")
    if len({id(parameters[n]) for n in fits}) > 1:
        raise ValueError(
            f"{name!r} fits {len(fits)} parameters ({', '.join(fits[:3])}, …): "
            f"give more of the name"
        )
    gradient = parameters[fits[0]]
    for node in graph.leaves.values():
        if clean_name(node.parameters[0]) == gradient.name:
            return node
    raise ValueError(f"{fits[0]} is not in this graph: {join_reasons(gradient.reasons)}")


def _parameters(graph: BackwardGraph) -> dict[str, Gradient]:
    """The gradients by name; a shared parameter goes by each of its names."""
    parameters = {g.name: g for g in graph.gradients}
    for node in graph.leaves.values():
        first, *others = map(clean_name, node.parameters)
        for other in others:
            parameters.setdefault(other, parameters[first])
    return parameters
