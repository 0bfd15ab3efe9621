"""Collapsing the graph: its nodes in groups, by tower, block or module, small enough to look at."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..display import ShownAsPicture, Table
from ..names import block_of, clean_name, is_adapter, lies_in
from . import words
from .boxes import Collapsed, Group, LeafGroup, OperationGroup
from .dark import DARK_LEVELS, dark_groups, darkness
from .kinds import LEVELS, Kind, Level
from .nodes import BackwardGraph, Node, joint_norm
from .reasons import Verdict


def collapse(graph: BackwardGraph, level: str = "blocks", within: str | None = None) -> Collapsed:
    """The graph in groups: by "towers", "blocks" or "modules", or each of its "operations".

    `within`: only what the module of that name made, and its parameters. Raises ValueError for
    another level, and for a module that left nothing in the graph, with the reason.
    """
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}; it must be one of {', '.join(LEVELS)}")
    level = Level(level)
    shown = [n for n in graph.nodes if within is None or lies_in(n.where, within)]
    if not shown:
        raise ValueError(_nothing_within(graph, str(within)))
    groups = [*_operations(graph, shown, level), *_leaves(graph, shown, level)]
    owner = {index: group.key for group in groups for index in group.nodes}
    edges = {
        (owner[a], owner[b]): None
        for a, b in graph.edges
        if a in owner and b in owner and owner[a] != owner[b]
    }
    if level in DARK_LEVELS:
        dark, dark_edges = dark_groups(graph, level, within, groups)
        groups, edges = [*groups, *dark], edges | dict.fromkeys(dark_edges)
    return Collapsed(level, tuple(groups), tuple(edges), within)


def _nothing_within(graph: BackwardGraph, name: str) -> str:
    called = [call for call in graph.calls if lies_in(call.module, name)]
    if called:
        why = words.NOTHING_WITHIN[darkness(called[:1])]
        return f"nothing that {name} computed is in this graph: {why}"
    names = {clean_name(call.module) for call in graph.calls}
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return f"no module called {name!r} ran." + (f" Near it: {', '.join(near)}" if near else "")


# --------------------------------------------------------------------------------------- operations


@dataclass(frozen=True)
class _Place:
    """Where a node is drawn at a level. Nodes in the same place may share a box."""

    tower: Kind
    name: str = ""
    call: int = 1


def _place(graph: BackwardGraph, node: Node, level: Level) -> _Place:
    tower = graph.tower(node)
    if tower is Kind.LOSS or level is Level.TOWERS:
        return _Place(tower)
    if level is Level.BLOCKS:
        return _Place(tower, block_of(node.name))
    return _Place(tower, node.where, node.call)


def _operations(
    graph: BackwardGraph, shown: Sequence[Node], level: Level
) -> Iterator[OperationGroup]:
    """The groups of operations.

    A group is a *run*: nodes that the forward pass made one after the other in the same place.
    What a block does before and after it calls its layers is thus two groups and not one, and no
    arrow can lead back to where it came from. The loss is one group: no module uses it.
    """
    operations = [node for node in shown if not node.is_leaf]
    if level is Level.OPERATIONS:
        runs = [(_place(graph, node, level), [node]) for node in operations]
    else:
        operations.sort(key=lambda node: graph.tower(node) is Kind.LOSS)
        by_place = groupby(operations, key=lambda node: _place(graph, node, level))
        runs = [(place, list(nodes)) for place, nodes in by_place]
    for number, (place, nodes) in enumerate(runs):
        modules = {node.module for node in nodes}
        first = nodes[0]
        yield OperationGroup(
            key=f"g{number}",
            kind=Kind.ADAPTER if is_adapter(place.name) else place.tower,
            tower=place.tower,
            place=place.name,
            call=place.call,
            title=(first.label or first.operation) if level is Level.OPERATIONS else "",
            operations=tuple(n.operation for n in nodes) if len(modules) == 1 else (),
            module=first.where,
            **_flow(graph, nodes),
        )


# ------------------------------------------------------------------------------------------- leaves


def _leaves(graph: BackwardGraph, shown: Sequence[Node], level: Level) -> Iterator[LeafGroup]:
    """The groups of leaves: one for each place and kind, or, at the finer levels, for each leaf."""
    together: dict[tuple, list[Node]] = {}
    for node in shown:
        if node.is_leaf:
            key: tuple = (graph.kind(node), graph.tower(node))
            if level is Level.BLOCKS:
                key += (block_of(node.name),)
            elif level is not Level.TOWERS:
                key += (node.index,)
            together.setdefault(key, []).append(node)
    for number, ((kind, tower, *_), nodes) in enumerate(together.items()):
        yield LeafGroup(
            key=f"w{number}",
            kind=kind,
            tower=tower,
            place=_leaf_place(nodes, level),
            verdicts=tuple(_verdict(node) for node in nodes),
            **_flow(graph, nodes),
        )


def _leaf_place(nodes: Sequence[Node], level: Level) -> str:
    if level is Level.TOWERS:
        return ""
    return block_of(nodes[0].name) if level is Level.BLOCKS else nodes[0].where


def _verdict(leaf: Node) -> Verdict:
    if leaf.norm_in is None:
        return Verdict.NOT_REACHED
    return Verdict.REACHED if leaf.norm_in else Verdict.ZERO


def _flow(graph: BackwardGraph, nodes: Sequence[Node]) -> dict:
    """What every group says of its nodes: which they are, when they ran, and what arrived."""
    inside = {node.index for node in nodes}
    entries = [
        node
        for node in nodes
        if node.index in graph.roots or any(b not in inside for b in graph.before(node.index))
    ]
    return {
        "nodes": tuple(node.index for node in nodes),
        "order": min((n.order for n in nodes if n.order is not None), default=None),
        "norm": joint_norm([node.norm_in for node in entries]),
    }


# -------------------------------------------------------------------------------------------- norms


@dataclass(frozen=True)
class Norms(ShownAsPicture):
    """The norm of the gradient that arrives at each block, from the loss down, by tower."""

    towers: Mapping[Kind, tuple[tuple[str, float], ...]]

    def __repr__(self) -> str:
        rows = [
            [tower, block, words.short_number(norm)]
            for tower, blocks in self.towers.items()
            for block, norm in blocks
        ]
        return str(Table(["tower", "block", "norm of the gradient that arrives"], rows))


def block_norms(graph: BackwardGraph) -> Norms:
    """The norm of the gradient at each block, in the order in which the pass came to them."""
    towers: dict[Kind, list[tuple[str, float]]] = {}
    arrived: list[Group] = [
        group
        for group in collapse(graph, "blocks").groups
        if group.kind in (Kind.IMAGE, Kind.TEXT, Kind.MODEL) and group.norm is not None
    ]
    for group in sorted(arrived, key=lambda group: group.order or 0):
        towers.setdefault(group.tower, []).append((group.label, group.norm or 0.0))
    return Norms({tower: tuple(blocks) for tower, blocks in towers.items()})
