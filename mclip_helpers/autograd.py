"""The recorder: watch one training step, and keep what its backward pass did.

    with mh.trace(model) as tape:
        loss = contrastive_loss(...)
        loss.backward()
    tape.graph.path("qkv.lora_B")

Three things are enough to see all of it. Nodes of the autograd graph are numbered as they are made,
so the counter's value at each entry to and exit from a module tells which module made which node.
Hooks on the nodes are called when the backward pass comes through. And each tensor that autograd
keeps is offered to a hook first.
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.autograd.graph import Node as AutogradNode
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from .graph import (
    LEAF,
    Call,
    Gradient,
    Gradients,
    Graph,
    Node,
    Saved,
    Visit,
    clean_name,
    layer_and_part,
)
from .lora import tower_of

HALF = (torch.float16, torch.bfloat16)
NO_NUMBER = 2**64 - 1  # the number of a node that ends in a tensor


def gradients(model: nn.Module) -> Gradients:
    """Look at every parameter's `.grad` after a backward pass. Changes nothing.

    It sees what lies there, whoever put it there; `trace` sees it come, and can say why not.
    """
    return Gradients(
        _gradient(name, p, None if p.grad is None else float(_norm(p.grad)))
        for name, p in model.named_parameters()
    )


def _gradient(
    name: str,
    p: torch.Tensor,
    norm: float | None,
    why: str = "",
    in_optimizer: bool | None = None,
) -> Gradient:
    place = (*layer_and_part(name), tower_of(name))
    return Gradient(*place, tuple(p.shape), p.requires_grad, norm, why, in_optimizer)


def _norm(gradient: torch.Tensor, exact: bool = True) -> torch.Tensor:
    """The Euclidean norm. If `exact`, it is zero only where every number is.

    (The square of a small number is zero long before the number is: in double precision later.)
    """
    if gradient.requires_grad:  # only under `create_graph`
        gradient = gradient.detach()
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    if exact and gradient.device.type != "mps" and not gradient.is_complex():
        return torch.linalg.vector_norm(gradient, dtype=torch.float64)
    wider = torch.float32 if gradient.dtype in HALF else None
    return torch.linalg.vector_norm(gradient, dtype=wider)


# ------------------------------------------------------------------------------------- the record


@dataclass(slots=True)
class _Call:
    """A module's call while it is being recorded. Its nodes have numbers from `first` to `last`."""

    module: str
    call: int
    inside: int | None
    recorded: bool
    in_backward: bool
    first: int
    last: int
    needs_gradient: bool = False


class _Thread:
    """What one thread has done. Autograd numbers the nodes of each thread for itself.

    `marks` are pairs: from this number of a node on, the innermost running call is that one.
    """

    def __init__(self) -> None:
        self.running: list[int] = []
        self.marks: list[tuple[int, int | None]] = []

    def mark(self, number: int) -> None:
        self.marks.append((number, self.running[-1] if self.running else None))

    def call_of(self, number: int) -> int | None:
        at = bisect_right(self.marks, number, key=lambda mark: mark[0]) - 1
        return self.marks[at][1] if at >= 0 else None


class _Kept:
    """A tensor that autograd keeps, and where it was made."""

    def __init__(self, tensor: torch.Tensor, module: str, number: int):
        # Detached: else the node that keeps it would keep itself alive through it.
        self.tensor, self.version = tensor.detach(), tensor._version
        self.module, self.number = module, number

    def give_back(self) -> torch.Tensor:
        # Without a hook autograd checks this itself; with one it leaves it to the hook.
        if self.tensor._version != self.version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: a tensor of shape {tuple(self.tensor.shape)} that "
                f"{clean_name(self.module) or 'an operation outside of the model'} needs"
            )
        return self.tensor


_Norms = tuple[torch.Tensor | None, ...]
_Shapes = tuple[tuple[int, ...] | None, ...]


@dataclass(slots=True)
class _Visit:
    """One time that a backward pass, of that number, came to a node."""

    order: int
    backward: int
    incoming: _Norms
    incoming_shapes: _Shapes
    outgoing: _Norms | None = None
    outgoing_shapes: _Shapes = ()


@dataclass(slots=True)
class _Node:
    """A node while it is being recorded. `made_by`: the index of the call.

    `edges` are the nodes behind it, each with the number of its result that is meant.
    """

    number: int
    made_by: int | None
    edges: tuple[tuple[AutogradNode | None, int], ...]
    handles: list
    visits: list[_Visit] = field(default_factory=list)
    inner: list[AutogradNode] = field(default_factory=list)  # roots of a backward run inside it
    is_measured: bool = False  # what goes out of it has a hook of its own


class trace:
    """Record one training step: `with trace(model) as tape:` around a forward and `backward()`.

    Afterwards `tape.graph` is a `Graph`. `model` is any module, or, where there is none, a dict
    of named tensors. With an `optimizer`, the graph can also say what that was not given.

    It changes no gradient; when the block ends, in whatever way, no hook and no tensor of it is
    left. Raises RuntimeError if another recording is running, and on `tape.graph` if no backward
    pass ran in the block, or only one whose forward pass ran before it. It records what goes
    through `Tensor.backward` and `torch.autograd.backward`, not through `torch.autograd.grad`.
    Where the block's own code sets hooks for saved tensors (checkpointing does), theirs are used:
    what they keep is not counted.
    """

    _running = threading.Lock()

    def __init__(
        self,
        model: nn.Module | Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer | None = None,
    ):
        if not isinstance(model, nn.Module | Mapping):
            raise TypeError(f"expected a module or a dict of tensors, got {type(model).__name__}")
        self._model = model
        self._optimizer = optimizer
        self._graph: Graph | None = None
        self._problem = "the recording has not ended: read `graph` after the `with` block"

    @property
    def graph(self) -> Graph:
        if self._graph is None:
            raise RuntimeError(self._problem)
        return self._graph

    # ---- begin and end

    def __enter__(self) -> trace:
        if not trace._running.acquire(blocking=False):
            raise RuntimeError(
                "another recording is running: one at a time. End its `with` block first"
            )
        self._exit = ExitStack()
        self._exit.callback(trace._running.release)
        try:
            self._begin()
        except BaseException:
            self._exit.close()
            raise
        return self

    def _begin(self) -> None:
        self._graph = None
        self._first = torch.autograd._get_sequence_nr()
        self._threads: defaultdict[int, _Thread] = defaultdict(_Thread)
        self._calls: list[_Call] = []
        self._times: Counter[str] = Counter()
        self._nodes: dict[AutogradNode, _Node] = {}
        self._feeders: Counter[tuple[AutogradNode, int]] = Counter()
        self._roots: list[AutogradNode] = []
        self._running_node: AutogradNode | None = None
        self._depth = self._backward_calls = self._passes = self._pass = 0
        self._count, self._count_kept = count(1), count()
        self._kept: weakref.WeakSet[_Kept] = weakref.WeakSet()
        self._saved = Saved({})
        self._zero: set[str] = set()
        self._modules: dict[nn.Module, str] = {}
        self._weights: Counter[str] = Counter()
        self._memory: list[torch.Tensor] = []
        self._names: dict[torch.Tensor, tuple[str, ...]] = {}
        if isinstance(self._model, nn.Module):
            for name, module in self._model.named_modules(remove_duplicate=False):
                # A module that is registered under two names goes by the first of them.
                self._modules.setdefault(module, name)
                self._memory += filter(torch.is_tensor, module._buffers.values())
                for last, parameter in module._parameters.items():
                    if parameter is not None:
                        self._name(parameter, f"{name}.{last}" if name else last)
                        self._weights[name] += parameter.numel()
        else:
            for name, tensor in self._model.items():
                self._name(tensor, name)
        self._memory += self._names

        # Global hooks on modules: a module with hooks of its own may take another way through
        # PyTorch's code than one without.
        self._exit.callback(self._forget)
        self._exit.callback(register_module_forward_pre_hook(self._enter_module).remove)
        self._exit.callback(
            register_module_forward_hook(self._leave_module, always_call=True).remove
        )
        self._exit.enter_context(
            torch.autograd.graph.saved_tensors_hooks(self._keep, _Kept.give_back)
        )
        # `Tensor.backward` and checkpointing look this function up when they need it, and it is
        # the only place at which the whole graph stands and has not run yet.
        original = torch.autograd.backward
        self._exit.callback(setattr, torch.autograd, "backward", original)
        torch.autograd.backward = partial(self._backward, original)

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        said = None if error is None else f"{type(error).__name__}: {error}"
        try:
            self._finish(said)
        finally:
            self._exit.close()

    def _forget(self) -> None:
        """Drop all that could keep a tensor alive."""
        for node in self._nodes.values():
            for handle in node.handles:
                handle.remove()
        self._nodes, self._roots, self._running_node = {}, [], None
        self._feeders.clear()
        self._kept.clear()
        del self._modules, self._names, self._memory
        self._model = self._optimizer = None  # type: ignore[assignment]

    def _name(self, tensor: torch.Tensor, name: str) -> None:
        self._names[tensor] = (*self._names.get(tensor, ()), name)

    # ---- the forward pass

    def _here(self) -> _Thread:
        return self._threads[threading.get_ident()]

    def _enter_module(self, module: nn.Module, _inputs: object) -> None:
        name = self._modules.get(module)
        if name is None:
            return
        here, number = self._here(), torch.autograd._get_sequence_nr()
        self._times[name] += 1
        inside = here.running[-1] if here.running else None
        here.running.append(len(self._calls))
        here.mark(number)
        recorded, in_backward = torch.is_grad_enabled(), self._depth > 0
        self._calls.append(
            _Call(name, self._times[name], inside, recorded, in_backward, number, number)
        )

    def _leave_module(self, module: nn.Module, _inputs: object, output: object) -> None:
        here, number = self._here(), torch.autograd._get_sequence_nr()
        if module not in self._modules or not here.running:
            return
        call = self._calls[here.running.pop()]
        here.mark(number)
        call.last = number
        call.needs_gradient = any(t.requires_grad for t in _tensors_in(output))

    def _keep(self, tensor: torch.Tensor) -> _Kept:
        running = self._here().running
        module = self._calls[running[-1]].module if running else ""
        kept = _Kept(tensor, module, next(self._count_kept))
        self._kept.add(kept)
        return kept

    # ---- the backward pass

    def _backward(self, original, tensors, *args, **kwargs) -> None:
        roots = _nodes_of(tensors)
        if self._depth == 0:
            self._backward_calls += 1
            if self._backward_calls == 1:
                self._saved = self._count_saved()
                self._zero = {
                    name
                    for tensor, names in self._names.items()
                    for name in names
                    if tensor.requires_grad and not tensor.any()
                }
            self._roots += [root for root in roots if root not in self._roots]
        elif self._running_node is not None:  # checkpointing runs a backward pass inside of one
            self._nodes[self._running_node].inner += roots
        self._watch(roots)
        outside = self._running_node, self._pass
        self._passes += 1
        self._pass = self._passes
        self._depth += 1
        try:
            original(tensors, *args, **kwargs)
        finally:
            self._depth -= 1
            self._running_node, self._pass = outside

    def _watch(self, roots: list[AutogradNode]) -> None:
        """Put our hooks on every node behind `roots` that has none yet.

        What comes in is measured at every node. What goes out comes in at the next one, unless
        something else flows into the same place: only then it is measured apart.
        """
        here = self._here()
        waiting = list(roots)
        while waiting:
            node = waiting.pop()
            if node in self._nodes:
                continue
            number = node._sequence_nr()
            made_by = None if number == NO_NUMBER else here.call_of(number)
            handle = node.register_prehook(partial(self._arrive, node, number == NO_NUMBER))
            edges = node.next_functions
            self._nodes[node] = _Node(number, made_by, edges, [handle])
            for edge in edges:
                if edge[0] is not None:
                    self._feeders[edge] += 1
                    waiting.append(edge[0])
        for node, record in self._nodes.items():
            if not record.is_measured and any(self._feeders[edge] > 1 for edge in record.edges):
                record.is_measured = True
                record.handles.append(node.register_hook(partial(self._depart, record)))

    def _arrive(
        self, node: AutogradNode, is_leaf: bool, incoming: tuple[torch.Tensor | None, ...]
    ) -> None:
        visit = _Visit(next(self._count), self._pass, _norms(incoming, is_leaf), _shapes(incoming))
        self._nodes[node].visits.append(visit)
        self._running_node = node

    def _depart(self, record: _Node, outgoing: tuple[torch.Tensor | None, ...], _) -> None:
        visit = record.visits[-1]
        visit.outgoing, visit.outgoing_shapes = _norms(outgoing, False), _shapes(outgoing)

    # ---- what was kept

    def _count_saved(self) -> Saved:
        """The tensors that are still kept now, by the memory they lie in."""
        the_models = {t.untyped_storage().data_ptr() for t in self._memory}
        counted: set[int] = set()
        modules: dict[str, int] = {}
        of_the_model = 0
        for kept in sorted(self._kept, key=lambda kept: kept.number):
            memory = kept.tensor.untyped_storage()
            if memory.data_ptr() in counted:
                continue
            counted.add(memory.data_ptr())
            if memory.data_ptr() in the_models:
                of_the_model += memory.nbytes()
            else:
                modules[kept.module] = modules.get(kept.module, 0) + memory.nbytes()
        return Saved(modules, of_the_model)

    # ---- the end

    def _finish(self, error: str | None) -> None:
        if not self._backward_calls:
            self._problem = (
                f"the block broke off before a backward pass: {error}"
                if error
                else "no backward pass ran inside the `with` block: call loss.backward() in it"
            )
            return
        operations = [node for node in self._nodes.values() if node.number != NO_NUMBER]
        if operations and all(node.number < self._first for node in operations):
            self._problem = (
                "the forward pass of this loss ran before the `with` block began, so nothing is "
                "known of where it came from: run the forward pass inside the block too"
            )
            return
        self._graph = self._build(error)

    def _build(self, error: str | None) -> Graph:
        ordered = sorted(self._nodes.items(), key=lambda item: item[1].number)
        index = {node: i for i, (node, _) in enumerate(ordered)}
        self._fill_outgoing(broke_off=error is not None)
        read = _read_norms([v for _, node in ordered for v in node.visits])
        nodes = tuple(self._node(node, record, index, read) for node, record in ordered)
        calls = self._build_calls(nodes, [record for _, record in ordered])
        graph = Graph(
            nodes,
            tuple(index[root] for root in self._roots),
            calls,
            Gradients(),
            self._saved,
            self._backward_calls,
            error,
            any(clean_name(name) == "visual" for name in self._modules.values()),
        )
        return replace(graph, gradients=Gradients(self._build_gradients(graph)))

    def _fill_outgoing(self, broke_off: bool) -> None:
        """Take over what came in at the nodes behind, where it was not measured apart."""
        arrived = {
            (node, visit.backward): visit
            for node, record in self._nodes.items()
            for visit in record.visits
        }
        last = max((visit.order for visit in arrived.values()), default=0)
        for (node, number), visit in arrived.items():
            if visit.outgoing is not None or (broke_off and visit.order == last):
                continue
            norms, shapes = [], []
            for behind, result in self._nodes[node].edges:
                there = arrived.get((behind, number)) if behind is not None else None
                norms.append(there.incoming[result] if there else None)
                shapes.append(there.incoming_shapes[result] if there else None)
            visit.outgoing, visit.outgoing_shapes = tuple(norms), tuple(shapes)

    def _node(
        self,
        node: AutogradNode,
        record: _Node,
        index: Mapping[AutogradNode, int],
        read: Mapping[int, Visit],
    ) -> Node:
        call = None if record.made_by is None else self._calls[record.made_by]
        operation = node.name().rpartition("::")[2]
        # A tensor that no parameter's name belongs to (an input that wants a gradient) has none.
        names = self._names.get(node.variable, ()) if operation == LEAF else ()
        behind = [n for n, _ in record.edges]
        return Node(
            index[node],
            operation,
            call.module if call else None,
            call.call if call else 1,
            tuple(None if n is None else index[n] for n in [*behind, *record.inner]),
            names,
            tuple(read[id(visit)] for visit in record.visits),
        )

    def _build_calls(self, nodes: tuple[Node, ...], records: list[_Node]) -> tuple[Call, ...]:
        made: dict[int, list[int]] = {}
        for node, record in zip(nodes, records, strict=True):
            if record.made_by is not None:
                made.setdefault(record.made_by, []).append(node.index)
        numbers = sorted(record.number for record in records)
        calls, place = [], {}
        for i, call in enumerate(self._calls):
            if call.in_backward and i not in made:
                continue  # only repeated for its saved tensors
            place[i] = len(calls)
            none_of_it = bisect_left(numbers, call.first) == bisect_left(numbers, call.last)
            calls.append(
                Call(
                    call.module,
                    call.call,
                    tuple(made.get(i, ())),
                    self._weights[call.module],
                    call.recorded,
                    call.needs_gradient,
                    call.last > call.first and none_of_it,
                    None if call.inside is None else place.get(call.inside),
                )
            )
        return tuple(calls)

    def _build_gradients(self, graph: Graph) -> Iterator[Gradient]:
        given = None
        if self._optimizer is not None:
            given = {p for group in self._optimizer.param_groups for p in group["params"]}
        for tensor, names in self._names.items():
            name, leaf = names[0], graph.leaves.get(names[0])
            if not tensor.requires_grad:
                norm, why = None, "requires_grad is False"
            elif leaf is None:
                norm, why = None, _why_missing(graph.calls, name.rpartition(".")[0])
            elif leaf.norm_in is None:
                norm, why = None, "it is in the graph, but the backward pass did not come to it"
            else:
                norm = leaf.norm_in
                why = "" if norm else self._why_zero(graph, leaf)
            yield _gradient(name, tensor, norm, why, None if given is None else tensor in given)

    def _why_zero(self, graph: Graph, leaf: Node) -> str:
        """Look for the node that something came into, and only zero went out of, towards `leaf`."""
        seen, waiting = {leaf.index}, [leaf.index]
        while waiting:
            current = waiting.pop(0)
            for before in graph.before(current):
                node = graph.nodes[before]
                if node.norm_in:
                    zero = [n for n in self._zero if n.rpartition(".")[0] == node.module]
                    if zero:
                        layer, part = layer_and_part(zero[0])
                        own = layer == layer_and_part(leaf.parameters[0])[0]
                        name = part if own else clean_name(zero[0])
                        return f"{name} is all zeros, and {node.operation} multiplies by it"
                    return f"{node.operation} in {node.where or 'the loss'} made it zero"
                if before not in seen:
                    seen.add(before)
                    waiting.append(before)
        return "it was zero from the loss on"


def _why_missing(calls: tuple[Call, ...], module: str) -> str:
    own = [c for c in calls if not module or f"{c.module}.".startswith(f"{module}.")]
    name = clean_name(module) or "the model"
    if not own:
        return f"{name} was never called"
    if not any(call.recorded for call in own):
        return f"{name} ran under no_grad"
    itself = [call for call in own if call.module == module and call.recorded]
    if not itself:
        return "nothing in the graph was computed from it"
    call = itself[-1]
    if not call.needs_gradient:
        return f"what {name} returned needs no gradient: it was detached inside"
    if not call.lost:
        return "nothing in the graph was computed from it"
    while call.inside is not None and calls[call.inside].lost:
        call = calls[call.inside]
    return f"cut off: what {clean_name(call.module)} returned was detached, or is not used"


def _nodes_of(tensors: object) -> list[AutogradNode]:
    """The nodes at which `backward(tensors)` begins."""
    single = isinstance(tensors, torch.Tensor | GradientEdge)
    found = []
    for t in [tensors] if single else list(tensors):  # type: ignore[call-overload]
        if isinstance(t, torch.Tensor):
            if not t.requires_grad:
                continue  # PyTorch's own message will say so
            t = get_gradient_edge(t)
        found.append(t.node)
    return found


def _tensors_in(output: object) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors_in(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors_in(value)


def _norms(tensors: tuple[torch.Tensor | None, ...], exact: bool) -> _Norms:
    return tuple([None if t is None else _norm(t, exact) for t in tensors])


def _shapes(tensors: tuple[torch.Tensor | None, ...]) -> _Shapes:
    return tuple([None if t is None else tuple(t.shape) for t in tensors])


def _read_norms(visits: list[_Visit]) -> dict[int, Visit]:
    """The visits with numbers for tensors, by `id`; fetched from each device all at once."""
    waiting: dict[tuple, list[torch.Tensor]] = {}
    for visit in visits:
        for norm in (*visit.incoming, *(visit.outgoing or ())):
            if norm is not None:
                waiting.setdefault((norm.device, norm.dtype), []).append(norm)
    value: dict[int, float] = {}
    for norms in waiting.values():
        for norm, number in zip(norms, torch.stack(norms).tolist(), strict=True):
            value[id(norm)] = number

    def numbers(norms: _Norms) -> tuple[float | None, ...]:
        return tuple(None if norm is None else value[id(norm)] for norm in norms)

    return {
        id(v): Visit(
            v.order,
            numbers(v.incoming),
            None if v.outgoing is None else numbers(v.outgoing),
            v.incoming_shapes,
            v.outgoing_shapes,
        )
        for v in visits
    }
