"""What a picture of the graph is made of: groups of nodes as boxes, and arrows between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ..display import ShownAsPicture, readable
from . import words
from .derivatives import stem
from .kinds import Darkness, Kind, Level
from .reasons import Verdict

Naming = Callable[[str], str]  # shortens the name of a module or parameter


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some nodes of the graph, drawn as one box.

    `key` tells groups apart and means nothing. `place` is the block, module or parameter, without
    PEFT; "" for a whole tower. `order` is that of the first node that ran; `norm` is that of the
    gradient that arrives from outside of the group.
    """

    key: str
    kind: Kind
    tower: Kind
    place: str
    nodes: tuple[int, ...] = ()
    order: int | None = None
    norm: float | None = None

    @property
    def is_leaf(self) -> bool:
        """Whether it is made of leaves: parameters, at which the gradient arrives."""
        return isinstance(self, LeafGroup)

    @property
    def label(self) -> str:
        """The heading of its box."""
        return self.heading()

    @property
    def note(self) -> str:
        """What stands below the heading; empty if there is nothing to add."""
        return self.detail()

    def heading(self, name: Naming = str) -> str:
        """`label`, with names as `name` shortens them."""
        return name(self.place) if self.place else self.tower

    def detail(self, name: Naming = str) -> str:
        """`note`, with names as `name` shortens them."""
        return ""


@dataclass(frozen=True, kw_only=True)
class OperationGroup(Group):
    """Operations that the forward pass made one after the other in the same place.

    `call` is the number of the module's call, where calls are told apart. `title` is the name of a
    single operation, at the level that shows each. `operations` are their names as autograd gives
    them, if one module made them all; `module` is that module.
    """

    call: int = 1
    title: str = ""
    operations: tuple[str, ...] = ()
    module: str = ""

    def heading(self, name: Naming = str) -> str:
        if self.title:
            return self.title
        heading = super().heading(name)
        return words.CALL.format(name=heading, call=self.call) if self.call > 1 else heading

    def detail(self, name: Naming = str) -> str:
        if len(self.operations) == 1:
            [operation] = self.operations
            return name(self.module) if self.title == operation else operation
        count = Counter(stem(operation) for operation in self.operations)
        return ", ".join(f"{k} ×{n}" if n > 1 else k for k, n in count.items())


@dataclass(frozen=True, kw_only=True)
class LeafGroup(Group):
    """Parameters of one place, with the verdict on each; `place` is the name of a single one."""

    verdicts: tuple[Verdict, ...]

    def heading(self, name: Naming = str) -> str:
        count = len(self.nodes)
        if count == 1 and self.place:
            return name(self.place)
        return words.LEAVES[self.kind].format(count=count, plural="s" if count > 1 else "")

    def detail(self, name: Naming = str) -> str:
        return ", ".join(self.counts())

    def counts(self) -> list[str]:
        """How many have each verdict; of a single one that was reached, nothing."""
        if self.verdicts == (Verdict.REACHED,):
            return []
        if len(self.verdicts) == 1:
            return [str(self.verdicts[0])]
        count = Counter(self.verdicts)
        return [f"{count[v]} {v}" for v in Verdict if count[v]]


@dataclass(frozen=True, kw_only=True)
class DarkGroup(Group):
    """Modules that ran and left no node: no gradient is computed there.

    `is_rest` says whether a part of the tower is in light; `weights` counts the numbers in their
    parameters.
    """

    darkness: Darkness
    weights: int
    is_rest: bool

    def heading(self, name: Naming = str) -> str:
        if self.place:
            return name(self.place)
        return (words.REST if self.is_rest else words.WHOLE).format(tower=self.tower)

    def detail(self, name: Naming = str) -> str:
        return words.DARKNESS[self.darkness].format(weights=self.weights)


@dataclass(frozen=True)
class Collapsed(ShownAsPicture):
    """The graph in groups: boxes, and arrows from key to key along which the gradient flows.

    Shows itself as a picture; as text, a line for each group. `within` is the module that it shows,
    None for all of the graph.
    """

    level: Level
    groups: tuple[Group, ...]
    edges: tuple[tuple[str, str], ...]
    within: str | None = None

    def group_of(self, node: int) -> Group | None:
        """The group that a node is in; None if it is outside of what is shown."""
        return next((group for group in self.groups if node in group.nodes), None)

    def __repr__(self) -> str:
        lines = []
        for group in self.groups:
            behind = {b for a, b in self.edges if a == group.key}
            targets = [other.label for other in self.groups if other.key in behind]
            note = f" ({readable(group.note)})" if group.note else ""
            arrow = f" → {', '.join(map(readable, targets))}" if targets else ""
            lines.append(f"[{group.kind}] {readable(group.label)}{note}{arrow}")
        return "\n".join(lines)
