"""The story of a backward pass: the few nodes at which it is worth stopping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..display import ShownAsPicture
from ..names import block_of, is_adapter, layer_and_part, lies_in
from .boxes import Collapsed
from .groups import collapse
from .kinds import Kind, Scene
from .nodes import BackwardGraph, Node
from .paths import find_leaf, shortest_path

FRAMES = 6


@dataclass(frozen=True)
class Frame:
    """One picture of the strip: the scene, the name that belongs to it, the node that runs."""

    scene: Scene
    name: str
    node: Node


@dataclass(frozen=True)
class Frames(ShownAsPicture):
    """A backward pass in at most six frames, for paper and for pages without widgets.

    `shown` is the map that all frames share; `ends` are the leaves that the story is about.
    """

    graph: BackwardGraph
    shown: Collapsed
    frames: tuple[Frame, ...]
    ends: tuple[Node, ...]

    def __repr__(self) -> str:
        return f"<{len(self.frames)} frames of a backward pass of {len(self.graph.order)} nodes>"


def tell(graph: BackwardGraph, parameter: str | None = None, level: str = "blocks") -> Frames:
    """The backward pass up to `parameter`, in frames in the order in which their nodes ran.

    For `parameter` and the errors see `destinations`, for `level` see `at_level`.
    """
    ends = destinations(graph, parameter)
    return Frames(graph, at_level(graph, level), tuple(_frames(graph, ends)), ends)


def destinations(graph: BackwardGraph, parameter: str | None = None) -> tuple[Node, ...]:
    """The leaf of `parameter`, and that of the other matrix of its adapter, as they ran.

    Without a name: those of the first lora_B that ran, else of the first parameter; none at all in
    a graph without parameters. Raises ValueError for a graph in which nothing ran, and for a
    parameter to which the pass did not come.
    """
    if not graph.order:
        raise ValueError("no node of this graph ran: there is no backward pass to show")
    ran = [node for node in graph.order if node.parameters]
    if parameter is not None:
        chosen = find_leaf(graph, parameter)
        if not chosen.visits:
            raise ValueError(
                f"the backward pass did not come to {chosen.where}, though it is in the graph"
            )
    elif ran:
        chosen = next((node for node in ran if _is_b(node)), ran[0])
    else:
        return ()
    if not is_adapter(chosen.where):
        return (chosen,)
    layer = layer_and_part(chosen.name)[0]
    return tuple(n for n in ran if is_adapter(n.where) and layer_and_part(n.name)[0] == layer)


def _is_b(leaf: Node) -> bool:
    return is_adapter(leaf.where) and layer_and_part(leaf.name)[1] == "B"


def at_level(graph: BackwardGraph, level: str) -> Collapsed:
    """The graph in groups; each operation by itself where else one group would hold them all."""
    shown = collapse(graph, level)
    groups = [group for group in shown.groups if group.nodes and not group.is_leaf]
    return shown if len(groups) > 1 else collapse(graph, "operations")


def _frames(graph: BackwardGraph, ends: Sequence[Node]) -> list[Frame]:
    """The frames: first those with a meaning, then as many between them as there is room for."""
    goal = next((node for node in ends if _is_b(node)), ends[0] if ends else None)
    path = list(graph.order)
    if goal is not None:
        path = [node for node in shortest_path(graph, goal.where).nodes if node.visits]
    frames: dict[int, Frame] = {}
    for frame in _meaningful(graph, path, ends, goal):
        if len(frames) < FRAMES:
            frames.setdefault(frame.node.index, frame)
    rest = [node for node in path if node.index not in frames]
    count = min(FRAMES - len(frames), len(rest))
    for i in range(count):
        node = rest[(2 * i + 1) * len(rest) // (2 * count)]
        frames[node.index] = Frame(Scene.BETWEEN, node.where, node)
    return sorted(frames.values(), key=lambda frame: frame.node.order or 0)


def _meaningful(
    graph: BackwardGraph, path: Sequence[Node], ends: Sequence[Node], goal: Node | None
) -> list[Frame]:
    """The frames with a meaning, the most important first."""
    frames = [Frame(Scene.LOSS, "", path[0])]
    for end in ends:
        scene = Scene.ZERO if end.norm_in == 0 else Scene.ARRIVED
        frames.append(Frame(scene, end.where.rpartition(".")[2], end))
    if goal is None:
        return frames
    tower, block, layer = graph.tower(goal), block_of(goal.name), layer_and_part(goal.name)[0]
    inside = [node for node in path if not node.is_leaf]
    if tower in (Kind.IMAGE, Kind.TEXT):
        both = [node for node in inside if _towers_behind(graph, node) >= {Kind.IMAGE, Kind.TEXT}]
        frames += [Frame(Scene.PARTING, "", node) for node in both[-1:]]
        inside = [node for node in inside if graph.tower(node) is tower]
        frames += [Frame(Scene.TOWER, tower, node) for node in inside[:1]]
    modules = [node for node in inside if node.module]
    own = [node for node in modules if block_of(node.name) == block]
    frames += [Frame(Scene.BLOCK, block, node) for node in own[:1]]
    own = [node for node in modules if lies_in(node.name, layer)]
    frames += [Frame(Scene.LAYER, layer.rpartition(".")[2], node) for node in own[:1]]
    return frames


def _towers_behind(graph: BackwardGraph, node: Node) -> set[Kind]:
    """The towers of all nodes that the gradient goes to from here, this one's included."""
    seen, waiting = {node.index}, [node.index]
    towers: set[Kind] = set()
    while waiting:
        current = graph.nodes[waiting.pop()]
        towers.add(graph.tower(current))
        new = [behind for behind in current.next if behind is not None and behind not in seen]
        seen.update(new)
        waiting += new
    return towers
