"""The dark region: modules that ran, and at which no gradient is computed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..names import block_of, clean_name, lies_in
from .boxes import DarkGroup, Group
from .kinds import Darkness, Kind, Level
from .nodes import BackwardGraph, Call

DARK_LEVELS = (Level.TOWERS, Level.BLOCKS, Level.MODULES)


def dark_groups(
    graph: BackwardGraph, level: Level, within: str | None, lit: Sequence[Group]
) -> tuple[list[DarkGroup], list[tuple[str, str]]]:
    """The groups of modules with weights that ran and left no node, and the arrows to them.

    They stand in the order in which they ran. How their data flowed was not recorded: the arrows
    between them say only which came first. `lit` are the groups that have nodes.
    """
    groups: list[DarkGroup] = []
    edges: list[tuple[str, str]] = []
    by_tower: dict[Kind, list[tuple[str, list[Call]]]] = {}
    lit_places = {(group.kind, group.place) for group in lit if group.place}
    for (tower, place), calls in _dark_calls(graph, level, within).items():
        if (tower, place) not in lit_places:
            by_tower.setdefault(tower, []).append((place, calls))
    for tower, places in by_tower.items():
        bright = [group for group in lit if group.kind is tower]
        own = [
            DarkGroup(
                key=f"d{number}",
                kind=Kind.DARK,
                tower=tower,
                place=place,
                darkness=darkness(calls),
                weights=sum({call.module: call.weights for call in calls}.values()),
                is_rest=bool(bright),
            )
            for number, (place, calls) in enumerate(places, start=len(groups))
        ]
        # The dark hangs on the last group that the backward pass reached; no gradient flows there.
        reached = [group for group in bright if group.order is not None]
        chain = [max(reached, key=lambda group: group.order or 0).key] if reached else []
        edges += pairwise([*chain, *(group.key for group in reversed(own))])
        groups += own
    return groups, edges


def _dark_calls(
    graph: BackwardGraph, level: Level, within: str | None
) -> dict[tuple[Kind, str], list[Call]]:
    """The calls that left no node, by tower and by what their place is called at this level."""
    lit_blocks = {(graph.tower(n), block_of(n.name)) for n in graph.nodes if not n.is_leaf}
    places: dict[tuple[Kind, str], list[Call]] = {}
    for call in graph.calls:
        tower, block = graph.tower_of(call.module), block_of(call.module)
        hands_on = call.needs_gradient and not call.lost  # what other modules computed
        if not call.weights or call.nodes or hands_on:
            continue
        if within is not None and not lies_in(call.module, within):
            continue
        if level is Level.TOWERS and (tower, block) in lit_blocks:
            continue  # a part of a block that is lit
        place = {
            Level.TOWERS: "",
            Level.BLOCKS: block,
            Level.MODULES: clean_name(call.module),
        }[level]
        places.setdefault((tower, place), []).append(call)
    return places


def darkness(calls: Sequence[Call]) -> Darkness:
    """Why these calls left no node in the graph: being frozen is named only if nothing else is."""
    for call in calls:
        if not call.recorded:
            return Darkness.NO_GRAD
        if call.lost:
            return Darkness.LOST
    return Darkness.FROZEN
