"""A recorded backward pass, and the questions it answers.

`autograd.trace` makes a `Graph`. It is plain data: names, shapes, norms and bytes. It holds no
tensor and no hook, so it may be kept, and compared with another one, for as long as you like.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from ..names import block_of, clean_name, is_adapter, lies_in, tower_of

LEVELS = ("towers", "blocks", "modules", "operations")
LEAF = "AccumulateGrad"


# ------------------------------------------------------------------------------------------- nodes

# Many of these are made in every recorded step. They are not `frozen` because that makes the
# making of them three times as slow; nobody changes them afterwards.


@dataclass(slots=True, unsafe_hash=True)
class Visit:
    """One time that a backward pass came through a node.

    `order` counts the nodes in the order in which they really ran, from 1. `incoming` has the norm
    of the gradient at each result of the operation, `outgoing` at each of its inputs; None where
    none was asked for. `outgoing` itself is None if the pass broke off inside this node.
    """

    order: int
    incoming: tuple[float | None, ...]
    outgoing: tuple[float | None, ...] | None
    incoming_shapes: tuple[tuple[int, ...] | None, ...]
    outgoing_shapes: tuple[tuple[int, ...] | None, ...]


@dataclass(slots=True, unsafe_hash=True)
class Node:
    """One operation of the autograd graph.

    `module` is the full name of the innermost module that made it, None outside of any; `call`
    says at which call of that module, from 1. `next` has for each input of the operation the index
    of the node behind it, or None. `parameters` has the names of the leaf's tensor: none if this
    is no leaf, several if the parameter is shared. `label` is a name that `trace.label` gave it.
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
        return _together(self.visits[0].incoming) if self.visits else None

    @property
    def norm_out(self) -> float | None:
        """Norm of all that went out at its first visit."""
        return _together(self.visits[0].outgoing or ()) if self.visits else None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the gradient that came in: that of the operation's (first used) result."""
        shapes = self.visits[0].incoming_shapes if self.visits else ()
        return next((shape for shape in shapes if shape is not None), None)

    @property
    def where(self) -> str:
        """The module, or the parameter of a leaf, without PEFT's additions."""
        return clean_name(self.parameters[0] if self.parameters else self.module or "")


def _together(norms: Sequence[float | None]) -> float | None:
    known = [norm for norm in norms if norm is not None]
    return math.hypot(*known) if known else None


@dataclass(slots=True, unsafe_hash=True)
class Call:
    """One call of a module in the forward pass.

    `nodes` are the indices of the graph's nodes that it made itself, not by calling others;
    `weights` counts the numbers in the parameters that it holds itself. `recorded` says whether
    gradients were switched on, `needs_gradient` whether what it returned needs one; `lost` that it
    made nodes, by calling others too, and that not one of them is in the graph. `inside` is the
    index of the call that it was made in.
    """

    module: str
    call: int
    nodes: tuple[int, ...]
    weights: int
    recorded: bool
    needs_gradient: bool
    lost: bool
    inside: int | None


# -------------------------------------------------------------------------------------- parameters


@dataclass(slots=True, unsafe_hash=True)
class Gradient:
    """One parameter and the norm of its gradient; None if it has none.

    `name` is its name without PEFT's additions; `layer` that of the module which holds it, and
    `part` is "A" or "B" in an adapter, else the parameter's own name. `why` says in words what lies
    behind the verdict, as far as it is known. `in_optimizer` is None where no optimizer was given.
    """

    name: str
    layer: str
    part: str
    tower: str | None
    shape: tuple[int, ...]
    requires_grad: bool
    norm: float | None
    why: str = ""
    in_optimizer: bool | None = None

    @property
    def verdict(self) -> str:
        """ "frozen", "not reached" (no gradient arrived), "exactly zero", or "reached"."""
        if not self.requires_grad:
            return "frozen"
        if self.norm is None:
            return "not reached"
        return "exactly zero" if self.norm == 0 else "reached"


class Gradients(tuple[Gradient, ...]):
    """The gradients of a whole model, in the order of its parameters; draws and prints itself."""

    def count(self, verdict: str, part: str | None = None) -> int:  # type: ignore[override]
        """How many have this `verdict` (and are this `part`: "A", "B")."""
        return sum(g.verdict == verdict and part in (None, g.part) for g in self)

    @property
    def adapters(self) -> dict[str, dict[str, Gradient]]:
        """Those of adapters alone: layer → {"A": …, "B": …}."""
        layers: dict[str, dict[str, Gradient]] = {}
        for g in self:
            if g.part in ("A", "B") and is_adapter(g.name):
                layers.setdefault(g.layer, {})[g.part] = g
        return layers

    @property
    def dead(self) -> tuple[str, ...]:
        """The layers whose adapter can't learn: neither A nor B gets a gradient other than zero."""
        return tuple(
            layer
            for layer, pair in self.adapters.items()
            if not any(g.verdict == "reached" for g in pair.values())
        )

    @property
    def forgotten(self) -> tuple[str, ...]:
        """Trainable parameters that the optimizer was not given: they will never change."""
        return tuple(g.name for g in self if g.requires_grad and g.in_optimizer is False)

    def table(self):
        """A row for each verdict and reason, the number of parameters, and one of them by name."""
        from .. import draw

        kinds: dict[tuple[str, str], list[Gradient]] = {}
        for g in self:
            missing = "" if g.in_optimizer is not False else "the optimizer was not given it"
            why = "; ".join(filter(None, (g.why, missing if g.requires_grad else "")))
            kinds.setdefault((g.verdict, why), []).append(g)
        order = {"reached": 0, "exactly zero": 1, "not reached": 2, "frozen": 3}
        rows = [
            [verdict, len(found), why, found[0].name + (", …" if len(found) > 1 else "")]
            for (verdict, why), found in sorted(kinds.items(), key=lambda item: order[item[0][0]])
        ]
        return draw.Table(["verdict", "parameters", "why", "which"], rows)

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def plot(self):
        """A bar for each adapter: the norms of A's and B's gradient, by tower."""
        from .. import draw

        return draw.adapter_gradients(self)


# -------------------------------------------------------------------------------------------- path


@dataclass(frozen=True)
class Path:
    """A shortest way from the loss to one parameter. `ways` counts all the ways there are.

    `kinds` has for each node what `Group.kind` would be.
    """

    parameter: str
    nodes: tuple[Node, ...]
    kinds: tuple[str, ...]
    ways: int

    def table(self):
        """A row for each stop: what runs there, where it was made, and what arrives."""
        from .. import draw

        rows = [
            [
                i,
                node.operation,
                node.where or "(the loss)",
                short_shape(node.shape),
                short_number(node.norm_in),
            ]
            for i, node in enumerate(self.nodes, start=1)
        ]
        header = ["stop", "operation", "made by", "gradient's shape", "gradient's norm"]
        return draw.Table(header, rows)

    def __repr__(self) -> str:
        head = f"{len(self.nodes)} stops from the loss to {self.parameter}"
        return f"{head} (one of {self.ways:,} ways)\n{self.table()}"

    def plot(self):
        from ..draw import diagrams

        return diagrams.path(self)

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()


def short_shape(shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return "?"
    return " × ".join(map(str, shape)) if shape else "one number"


def short_number(norm: float | None) -> str:
    """Two digits of it; a dash for none."""
    return "–" if norm is None else "0" if norm == 0 else f"{norm:.2g}"


# ---------------------------------------------------------------------------------------- collapse


@dataclass(frozen=True)
class Group:
    """Some nodes of the graph, drawn as one box.

    `kind` is "image", "text", "loss" or "model" (of no tower) for operations, "adapter" or
    "weights" for leaves, and "dark" for modules that ran without leaving a node. `modules` counts
    the modules in it. `norm` is that of the gradient that arrives from outside.
    """

    key: str
    label: str
    kind: str
    nodes: tuple[int, ...]
    modules: int
    order: int | None
    norm: float | None
    note: str = ""

    @property
    def is_end(self) -> bool:
        """Whether it is made of leaves: parameters, at which the gradient arrives."""
        return self.key.startswith("w")


@dataclass(frozen=True)
class Collapsed:
    """The graph with its nodes in groups: boxes and arrows, along which the gradient flows."""

    level: str
    groups: tuple[Group, ...]
    edges: tuple[tuple[str, str], ...]
    within: str | None = None

    def group_of(self, node: int) -> Group | None:
        """The group that a node is in; None if it is outside of what is shown."""
        return next((group for group in self.groups if node in group.nodes), None)

    def __repr__(self) -> str:
        lines = []
        for g in self.groups:
            behind = [b for a, b in self.edges if a == g.key]
            labels = [other.label for other in self.groups if other.key in behind]
            said = f" → {', '.join(labels)}" if labels else ""
            lines.append(f"[{g.kind}] {g.label}{f' ({g.note})' if g.note else ''}{said}")
        return "\n".join(lines)

    def plot(self):
        """As SVG, by Graphviz where there is one, else by matplotlib."""
        from ..draw import diagrams

        return diagrams.collapsed(self)

    def _repr_svg_(self) -> str:
        return self.plot()._repr_svg_()


# ------------------------------------------------------------------------------------------- norms


@dataclass(frozen=True)
class Norms:
    """The norm of the gradient that arrives at each block, from the loss down, by tower."""

    towers: Mapping[str, tuple[tuple[str, float], ...]]

    def __repr__(self) -> str:
        from .. import draw

        rows = [[t, b, short_number(n)] for t, blocks in self.towers.items() for b, n in blocks]
        return str(draw.Table(["tower", "block", "norm of the gradient that arrives"], rows))

    def plot(self):
        from ..draw import diagrams

        return diagrams.norms(self)

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()


# ------------------------------------------------------------------------------------------- saved


@dataclass(frozen=True)
class Saved:
    """Bytes that autograd keeps from the forward pass for the backward pass.

    `modules` has them by the full name of the module that first kept them ("" outside of any).
    Two saved tensors that share their memory count once. The model's own parameters and buffers
    are there anyway: they are left out of `modules`, and their bytes are `of_the_model`.
    """

    modules: Mapping[str, int]
    of_the_model: int = 0

    @property
    def total(self) -> int:
        return sum(self.modules.values())

    def by(self, level: str) -> dict[str, int]:
        """Added up by "towers", "blocks" or "modules"."""
        if level not in LEVELS[:3]:
            raise ValueError(f"level is {level!r}; bytes are known by {', '.join(LEVELS[:3])}")
        found: dict[str, int] = {}
        for name, size in self.modules.items():
            clean = clean_name(name)
            tower = tower_of(clean) or "loss"
            key = {"towers": tower, "blocks": f"{tower}: {block_of(clean)}", "modules": clean}
            where = key[level] if clean else "loss"
            found[where] = found.get(where, 0) + size
        return found

    def __repr__(self) -> str:
        from .. import draw

        rows = [[name, f"{size:,}"] for name, size in self.by("blocks").items()]
        return str(draw.Table(["made by", "bytes kept"], [*rows, ["all", f"{self.total:,}"]]))

    def plot(self, name: str = "this step", **others: Saved):
        """A bar for each block; with `others` (name=Saved) beside them."""
        from ..draw import diagrams

        return diagrams.saved({name: self, **others})

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()


# ------------------------------------------------------------------------------------------- graph


@dataclass(frozen=True)
class Graph:
    """What one recorded step leaves to look at. See `autograd.trace`.

    `nodes` stand in the order in which the forward pass made them, the leaves last; `roots` are
    the indices where a backward pass began. `error` says what broke the block off, if anything
    did.
    """

    nodes: tuple[Node, ...]
    roots: tuple[int, ...]
    calls: tuple[Call, ...]
    gradients: Gradients
    saved: Saved
    backward_calls: int
    error: str | None = None
    _towers: bool = field(default=True, repr=False)

    def __repr__(self) -> str:
        ran = sum(bool(node.visits) for node in self.nodes)
        said = f"{len(self.nodes)} nodes, {ran} ran, {len(self.leaves)} leaves"
        return f"<Graph: {said}{f'; broke off: {self.error}' if self.error else ''}>"

    @property
    def edges(self) -> list[tuple[int, int]]:
        """From each node to those behind it, the way that the gradient goes."""
        return [(n.index, behind) for n in self.nodes for behind in n.next if behind is not None]

    @cached_property
    def order(self) -> tuple[Node, ...]:
        """The nodes that ran, in the order in which they first did."""
        return tuple(sorted((n for n in self.nodes if n.visits), key=lambda n: n.order))

    @cached_property
    def leaves(self) -> dict[str, Node]:
        """The ends of the graph by their parameter's (first, whole) name."""
        return {n.parameters[0]: n for n in self.nodes if n.parameters}

    @cached_property
    def _before(self) -> dict[int, list[int]]:
        before: dict[int, list[int]] = {}
        for a, b in self.edges:
            before.setdefault(b, []).append(a)
        return before

    def before(self, index: int) -> tuple[int, ...]:
        """The nodes that hand a gradient to this one; one of them twice if it does so twice."""
        return tuple(self._before.get(index, ()))

    def tower(self, node: Node) -> str:
        """ "image" or "text", "loss" outside of every module, "model" in a model of no towers."""
        name = node.parameters[0] if node.parameters else node.module
        return self._tower_of(name)

    def _tower_of(self, name: str | None) -> str:
        if not name:
            return "loss"
        return (tower_of(clean_name(name)) or "loss") if self._towers else "model"

    # ---- one weight

    def leaf(self, name: str) -> Node:
        """The node at which the gradient of the parameter `name` arrives.

        Any ending of its name that fits one parameter alone will do, with or without PEFT's
        additions: "stages.3.blocks.0.token_mixer.qkv.lora_B". Raises ValueError for a name that
        fits none or several, or a parameter that is not in the graph, and says why it is not.
        """
        wanted = clean_name(name)
        every = {g.name: g for g in self.gradients}
        for node in self.leaves.values():  # a shared parameter goes by each of its names
            first, *others = map(clean_name, node.parameters)
            every.update({other: every[first] for other in others if other not in every})
        fits = [n for n in every if n == wanted] or [
            n for n in every if f".{n}".endswith(f".{wanted}")
        ]
        if not fits:
            near = difflib.get_close_matches(wanted, every, n=3, cutoff=0.4)
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise ValueError(f"no parameter is called {name!r}.{hint}")
        if len({id(every[n]) for n in fits}) > 1:
            raise ValueError(
                f"{name!r} fits {len(fits)} parameters ({', '.join(fits[:3])}, …): say more of it"
            )
        for node in self.leaves.values():
            if clean_name(node.parameters[0]) == every[fits[0]].name:
                return node
        raise ValueError(f"{fits[0]} is not in this graph: {every[fits[0]].why}")

    def path(self, name: str) -> Path:
        """A shortest way from the loss to the parameter `name` (see `leaf` for what fits)."""
        leaf = self.leaf(name)
        came_from: dict[int, int | None] = dict.fromkeys(self.roots)
        waiting = deque(self.roots)
        while waiting and leaf.index not in came_from:
            current = waiting.popleft()
            for behind in self.nodes[current].next:
                if behind is not None and behind not in came_from:
                    came_from[behind] = current
                    waiting.append(behind)
        way: list[Node] = []
        step: int | None = leaf.index
        while step is not None:
            way.insert(0, self.nodes[step])
            step = came_from[step]
        kinds = ["adapter" if is_adapter(node.where) else self.tower(node) for node in way]
        return Path(leaf.where, tuple(way), tuple(kinds), self.ways(leaf.index))

    def ways(self, index: int) -> int:
        """In how many ways the gradient comes from the roots to a node."""
        known: dict[int, int] = {}
        waiting = [index]
        while waiting:  # no recursion: deep graphs exceed Python's limit
            current = waiting[-1]
            before = self.before(current)
            unknown = [b for b in before if b not in known]
            if unknown:
                waiting += unknown
                continue
            waiting.pop()
            known[current] = (current in self.roots) + sum(known[b] for b in before)
        return known[index]

    # ---- the whole

    def frames(self, parameter: str | None = None, level: str = "blocks"):
        """The backward pass in six frames, up to `parameter` (see `frames.frames`)."""
        from ..draw import strip as frames

        return frames.frames(self, parameter, level)

    def norms(self) -> Norms:
        """The norm of the gradient that arrives at each block, from the loss down, by tower."""
        towers: dict[str, list[tuple[str, float]]] = {}
        groups = [g for g in self.collapse("blocks").groups if g.norm is not None]
        for g in sorted(groups, key=lambda g: g.order or 0):
            if g.kind not in ("loss", "adapter", "weights", "dark"):
                towers.setdefault(g.kind, []).append((g.label, g.norm))
        return Norms({tower: tuple(blocks) for tower, blocks in towers.items()})

    def collapse(self, level: str = "blocks", within: str | None = None) -> Collapsed:
        """The graph in groups: by "towers", "blocks" or "modules", or each of its "operations".

        `within`: only what the module of that name made, and its parameters. Raises ValueError for
        another level, and for a module that left nothing in the graph, with the reason.
        """
        if level not in LEVELS:
            raise ValueError(f"level is {level!r}; it must be one of {', '.join(LEVELS)}")
        shown = [n for n in self.nodes if within is None or lies_in(n.where, within)]
        if not shown:
            raise ValueError(self._nothing_within(str(within)))
        pieces = list(self._pieces(shown, level))
        pieces += self._leaf_pieces(shown, level)
        owner = {index: key for key, _, _, nodes in pieces for index in nodes}
        groups = [self._group(*piece) for piece in pieces]
        edges = {
            (owner[a], owner[b]): None
            for a, b in self.edges
            if a in owner and b in owner and owner[a] != owner[b]
        }
        dark, dark_edges = self._dark(level, within, groups) if level != "operations" else ([], [])
        return Collapsed(level, (*groups, *dark), (*edges, *dark_edges), within)

    def _nothing_within(self, name: str) -> str:
        names = {clean_name(call.module) for call in self.calls}
        called = [c for c in self.calls if lies_in(clean_name(c.module), name)]
        if called:
            return f"nothing that {name} computed is in this graph: {self._why_no_nodes(called[0])}"
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        return f"no module called {name!r} ran." + (f" Near it: {', '.join(near)}" if near else "")

    def _why_no_nodes(self, call: Call) -> str:
        if not call.recorded:
            return "ran under no_grad"
        return "leads nowhere: detached, or not used" if call.lost else "nothing in it needs one"

    def _why_dark(self, calls: Sequence[Call]) -> str:
        odd = [call for call in calls if call.lost or not call.recorded]
        weights = {call.module: call.weights for call in calls}
        return self._why_no_nodes(odd[0]) if odd else f"{sum(weights.values()):,} frozen weights"

    def _pieces(
        self, shown: Sequence[Node], level: str
    ) -> Iterator[tuple[str, str, str, tuple[int, ...]]]:
        """(key, label, kind, nodes) of each group of operations.

        A group is a *run*: nodes that the forward pass made one after the other in the same place.
        What a block does before and after calling its layers is thus two groups and not one, and
        no arrow can lead back to where it came from.
        """
        run: list[int] = []
        place: tuple[str, str] | None = None
        number = 0

        def piece() -> tuple[str, str, str, tuple[int, ...]]:
            first = self.nodes[run[0]]
            single = level == "operations"
            label = first.label or first.operation if single else place[1] or place[0]
            kind = "adapter" if is_adapter(place[1]) else place[0]
            return f"g{number}", label, kind, tuple(run)

        for node in shown:
            if node.is_leaf:
                continue
            here = self._place(node, level)
            if run and (here != place or level == "operations"):
                yield piece()
                number, run = number + 1, []
            place = here
            run.append(node.index)
        if run:
            yield piece()

    def _place(self, node: Node, level: str) -> tuple[str, str]:
        tower = self.tower(node)
        if tower == "loss" or level == "towers":
            return tower, ""
        clean = clean_name(node.module or "")
        again = f" (call {node.call})" if node.call > 1 and level != "blocks" else ""
        return tower, block_of(clean) if level == "blocks" else clean + again

    def _leaf_pieces(
        self, shown: Sequence[Node], level: str
    ) -> list[tuple[str, str, str, tuple[int, ...]]]:
        leaves: dict[tuple[str, str, str], list[int]] = {}
        for node in shown:
            if node.is_leaf:
                kind = "adapter" if is_adapter(node.where) else "weights"
                tower = self._tower_of(node.parameters[0]) if node.parameters else "input"
                if level in ("towers", "blocks"):
                    place = (kind, tower, block_of(node.where) if level == "blocks" else "")
                else:
                    place = (kind, tower, f"{node.where}#{node.index}")
                leaves.setdefault(place, []).append(node.index)
        return [
            (f"w{i}", place.partition("#")[0], kind, tuple(nodes))
            for i, ((kind, _, place), nodes) in enumerate(leaves.items())
        ]

    def _group(self, key: str, label: str, kind: str, nodes: tuple[int, ...]) -> Group:
        inside = set(nodes)
        members = [self.nodes[i] for i in nodes]
        entries = [
            n
            for n in members
            if n.index in self.roots or any(b not in inside for b in self.before(n.index))
        ]
        orders = [n.order for n in members if n.order is not None]
        leaves = [n for n in members if n.is_leaf]
        note = ""
        if leaves:
            note = self._note_on_leaves(leaves)
            if len(leaves) > 1 or not label:
                what = "matrices A, B" if kind == "adapter" else "weights"
                what = what if leaves[0].parameters else "input" + "s" * (len(leaves) > 1)
                label = f"{len(leaves)} {what}"
        elif len(members) == 1:
            note = members[0].operation if label != members[0].operation else members[0].where
        elif len({n.module for n in members}) == 1:
            kinds = Counter(n.operation.removesuffix("0").removesuffix("Backward") for n in members)
            note = ", ".join(f"{k} ×{n}" if n > 1 else k for k, n in kinds.items())
        return Group(
            key,
            label,
            kind,
            nodes,
            len({n.module for n in members}),
            min(orders, default=None),
            _together([n.norm_in for n in entries]),
            note,
        )

    def _note_on_leaves(self, leaves: Sequence[Node]) -> str:
        verdicts = Counter(
            "not visited" if n.norm_in is None else "reached" if n.norm_in else "exactly zero"
            for n in leaves
        )
        if len(leaves) == 1:
            return "" if verdicts["reached"] else next(iter(verdicts))
        order = ("reached", "exactly zero", "not visited")
        return ", ".join(f"{verdicts[v]} {v}" for v in order if verdicts[v])

    def _dark(
        self, level: str, within: str | None, groups: Sequence[Group]
    ) -> tuple[list[Group], list[tuple[str, str]]]:
        """Modules with weights that ran and left no node, in the order in which they ran.

        How their data flowed was not recorded: the arrows between them say only which came first.
        """
        lit_blocks = {(self.tower(n), block_of(n.where)) for n in self.nodes if not n.is_leaf}
        runs: dict[tuple[str, str], list[Call]] = {}
        for call in self.calls:
            clean = clean_name(call.module)
            handed_on = call.needs_gradient and not call.lost  # what others had computed
            if not call.weights or call.nodes or handed_on:
                continue
            if within and not lies_in(clean, within):
                continue
            tower = self._tower_of(call.module)
            if level == "towers" and (tower, block_of(clean)) in lit_blocks:
                continue  # in a block that is in light, as a whole
            place = {"towers": "", "blocks": block_of(clean), "modules": clean}[level]
            runs.setdefault((tower, place), []).append(call)
        lit = {(g.kind, g.label) for g in groups}
        dark: list[Group] = []
        edges: list[tuple[str, str]] = []
        for tower in dict.fromkeys(tower for tower, _ in runs):
            rest = "the rest of the" if any(g.kind == tower for g in groups) else "the whole"
            own = [
                Group(
                    f"d{tower}{i}",
                    place or f"{rest} {tower} tower",
                    "dark",
                    (),
                    len({c.module for c in calls}),
                    None,
                    None,
                    self._why_dark(calls),
                )
                for i, ((t, place), calls) in enumerate(runs.items())
                if t == tower and (tower, place) not in lit
            ]
            # The last group that the backward pass reached hands nothing on to the dark.
            reached = [g for g in groups if g.kind == tower and g.order is not None]
            chain = [max(reached, key=lambda g: g.order).key] if reached else []
            chain += [g.key for g in reversed(own)]
            edges += list(pairwise(chain))
            dark += own
        return dark, edges
