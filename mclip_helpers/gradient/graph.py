"""What a recording gives to its reader: the graph, and every question that it answers."""

from __future__ import annotations

from dataclasses import dataclass

from ..display import readable
from .boxes import Collapsed
from .diff import GradientDiff, gradient_diff
from .groups import Norms, block_norms, collapse
from .nodes import BackwardGraph, Node
from .paths import Path, count_ways, find_leaf, shortest_path
from .scenes import Frames, tell


@dataclass(frozen=True, repr=False)
class Graph(BackwardGraph):
    """The recorded step of `trace`. Each question is a function of a module of its own."""

    def __repr__(self) -> str:
        ran = len(self.order)
        broken = f"; broke off: {readable(self.error)}" if self.error else ""
        return f"<Graph: {len(self.nodes)} nodes, {ran} ran, {len(self.leaves)} leaves{broken}>"

    def leaf(self, name: str) -> Node:
        """The node at which the gradient of a parameter arrives (see `paths.find_leaf`)."""
        return find_leaf(self, name)

    def path(self, name: str) -> Path:
        """A shortest path from the loss to a parameter (see `paths.shortest_path`)."""
        return shortest_path(self, name)

    def ways(self, index: int) -> int:
        """How many paths lead from the loss to a node."""
        return count_ways(self, index)

    def collapse(self, level: str = "blocks", within: str | None = None) -> Collapsed:
        """The graph in groups, as boxes and arrows (see `groups.collapse`)."""
        return collapse(self, level, within)

    def norms(self) -> Norms:
        """The norm of the gradient that arrives at each block (see `groups.block_norms`)."""
        return block_norms(self)

    def diff(self, other: Graph) -> GradientDiff:
        """How far the gradients of two recorded steps are apart, module by module.

        ValueError unless both were recorded with `trace(model, keep_gradients=True)`.
        """
        if self.kept_gradients is None or other.kept_gradients is None:
            raise ValueError(
                "a recording holds the norms of gradients and not the gradients themselves, unless "
                "it is made with mh.trace(model, keep_gradients=True): record both steps so"
            )
        return gradient_diff(self.kept_gradients, other.kept_gradients)

    def frames(self, parameter: str | None = None, level: str = "blocks") -> Frames:
        """The backward pass in six frames, up to `parameter` (see `scenes.tell`)."""
        return tell(self, parameter, level)
