"""The recorder: watch one training step, and keep what its backward pass did.

    with mh.trace(model) as tape:
        loss = contrastive_loss(...)
        loss.backward()
    tape.graph.path("head.fc.lora_B")

Three things are enough to see all of it. Nodes of the autograd graph are numbered as they are made,
so the counter's value at each entry to and exit from a module tells which module made which node.
Hooks on the nodes are called when the backward pass comes through. And each tensor that autograd
keeps is offered to a hook first.
"""

from __future__ import annotations

import math
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

from ..names import clean_name, layer_and_part, tower_of
from .graph import (
    LEAF,
    Call,
    Gradient,
    Gradients,
    Graph,
    Node,
    Saved,
    Visit,
)

HALF = (torch.float16, torch.bfloat16)
NO_NUMBER = 2**64 - 1  # the number of a node that ends in a tensor
NOT_COMPUTED = "nothing in the graph was computed from it"


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
    place = (clean_name(name), *layer_and_part(name), tower_of(name))
    return Gradient(*place, tuple(p.shape), p.requires_grad, norm, why, in_optimizer)


_Norm = torch.Tensor | float
_Norms = tuple[_Norm | None, ...]
_Shapes = tuple[tuple[int, ...] | None, ...]


def _norm(gradient: torch.Tensor) -> _Norm:
    """The Euclidean norm, zero only where every number is; on the CPU at once as a number.

    (The square of a small number is zero long before the number is: in double precision later.)
    """
    if gradient.requires_grad:  # only under `create_graph`
        gradient = gradient.detach()
    if gradient.layout is not torch.strided:
        sparse = gradient.layout is torch.sparse_coo
        gradient = (gradient.coalesce() if sparse else gradient).values()
    if gradient.device.type != "cpu":
        exact = gradient.device.type != "mps" and not gradient.is_complex()
        return torch.linalg.vector_norm(gradient, dtype=torch.float64 if exact else None)
    wider = torch.float32 if gradient.dtype in HALF else None
    norm = torch.linalg.vector_norm(gradient, dtype=wider).item()
    if 1e-15 < norm < 1e15 or (norm == 0 and not gradient.any()):
        return norm
    # Double precision takes a CPU many times as long: only where it matters.
    double = gradient.to(torch.complex128 if gradient.is_complex() else torch.float64)
    largest = double.abs().max()
    if 0 < largest < math.inf:
        return (torch.linalg.vector_norm(double / largest) * largest).item()
    return norm


# ------------------------------------------------------------------------------------- the record


@dataclass(slots=True)
class _Call:
    """A module's call while it is being recorded. Its nodes have numbers from `first` to `last`.

    `repeats` is the index of the call that this one makes once more, for checkpointing.
    """

    module: str
    thread: _Thread
    inside: int | None
    repeats: int | None
    recorded: bool
    in_backward: bool
    first: int
    last: int
    needs_gradient: bool = False


class _Thread:
    """What one thread has done. Autograd numbers the nodes of each thread for itself.

    From the number `since[i]` of a node on, the innermost running call is `innermost[i]`.
    """

    def __init__(self) -> None:
        self.running: list[int] = []
        self.since: list[int] = []
        self.innermost: list[int | None] = []

    def mark(self, number: int) -> None:
        self.since.append(number)
        self.innermost.append(self.running[-1] if self.running else None)

    def call_of(self, number: int) -> int | None:
        at = bisect_right(self.since, number) - 1
        return self.innermost[at] if at >= 0 else None


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


class _Handed:
    """A gradient on its way from one node to the next, and its norm."""

    __slots__ = ("norm", "tensor", "version")

    def __init__(self, tensor: torch.Tensor, norm: _Norm | None):
        # Weak: held by us, it could not be added to in place, nor become a `.grad` uncopied.
        self.tensor, self.version, self.norm = weakref.ref(tensor), tensor._version, norm

    def is_still(self, tensor: torch.Tensor) -> bool:
        """Whether this is what arrives: a hook on the way may have put another in its place."""
        return self.tensor() is tensor and self.version == tensor._version


@dataclass(slots=True)
class _Node:
    """A node while it is being recorded. `made_by`: the index of the call.

    `edges` are the nodes behind it, each with the number of its result that is meant.
    """

    number: int
    thread: _Thread
    made_by: int | None
    edges: tuple[tuple[AutogradNode | None, int], ...]
    handles: list = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    inner: list[AutogradNode] = field(default_factory=list)  # roots of a backward run inside it


class trace:
    """Record one training step: `with trace(model) as tape:` around a forward and `backward()`.

    Afterwards `tape.graph` is a `Graph`. `model` is any module, or, where there is none, a dict
    of named tensors. With an `optimizer`, the graph can also say what that was not given.

    It changes no gradient; when the block ends, in whatever way, no hook and no tensor of it is
    left. Raises RuntimeError if another recording is running, and on `tape.graph` if no backward
    pass ran in the block, or only one whose forward pass ran before it. It records what goes
    through `Tensor.backward` and `torch.autograd.backward`, not through `torch.autograd.grad`.
    Where the block's own code sets hooks for saved tensors (checkpointing does), theirs are used:
    what they keep is not counted. PyTorch refuses `torch.func`'s transforms beside such hooks, so
    they can't run in the block.
    """

    _running = threading.Lock()

    def __init__(
        self,
        model: nn.Module | Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer | None = None,
    ):
        if not isinstance(model, nn.Module | Mapping):
            raise TypeError(f"expected a module or a dict of tensors, got {type(model).__name__}")
        for name, value in model.items() if isinstance(model, Mapping) else ():
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"expected a dict of tensors; {name!r} is a {type(value).__name__}")
        self._model: nn.Module | Mapping[str, torch.Tensor] | None = model
        self._optimizer = optimizer
        self._graph: Graph | None = None
        self._labels: dict[AutogradNode, str] | None = None  # none outside of the block
        self._problem = "the recording has not ended: read `graph` after the `with` block"

    @property
    def graph(self) -> Graph:
        if self._graph is None:
            raise RuntimeError(self._problem)
        return self._graph

    def label(self, **results: torch.Tensor) -> None:
        """Name results of the block, as in `tape.label(loss=loss)`: their nodes carry the names.

        Raises ValueError for a tensor that no node of a graph made, RuntimeError outside the block.
        """
        if self._labels is None:
            raise RuntimeError("nothing is being recorded: use `label` inside the `with` block")
        for name, tensor in results.items():
            if tensor.grad_fn is None:
                raise ValueError(f"{name} has no grad_fn: no operation on the tape made it")
            self._labels[tensor.grad_fn] = name

    # ---- begin and end

    def __enter__(self) -> trace:
        if self._model is None:
            raise RuntimeError("this recording has ended: begin another one with `trace(model)`")
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
        self._first = torch.autograd._get_sequence_nr()
        self._threads: defaultdict[int, _Thread] = defaultdict(_Thread)
        self._calls: list[_Call] = []
        self._repeats: Counter[tuple[int, AutogradNode, str]] = Counter()
        self._nodes: dict[AutogradNode, _Node] = {}
        self._labels = {}
        self._handed_on: dict[tuple[AutogradNode | None, int], _Handed | None] = {}
        self._roots: list[AutogradNode] = []
        self._running_node: AutogradNode | None = None
        self._depth = self._backward_calls = self._passes = self._pass = 0
        self._count, self._count_kept = count(1), count()
        self._kept: weakref.WeakSet[_Kept] = weakref.WeakSet()
        self._saved = Saved({})
        self._zero: list[str] = []
        self._modules: dict[nn.Module, str] = {}
        self._weights: Counter[str] = Counter()
        self._memory: list[torch.Tensor] = []
        self._names: dict[torch.Tensor, tuple[str, ...]] = {}
        if isinstance(self._model, nn.Module):
            for name, module in _named_modules(self._model):
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
        except Exception as own:
            if error is None:
                raise
            # The block's own error goes on, and is the one to read.
            self._problem = f"the block broke off: {said}; what it had recorded is lost: {own}"
        finally:
            self._exit.close()

    def _forget(self) -> None:
        """Drop all that could keep a tensor alive."""
        for node in self._nodes.values():
            for handle in node.handles:
                handle.remove()
        self._nodes, self._roots, self._running_node = {}, [], None
        self._repeats.clear()
        self._handed_on.clear()
        self._labels = None
        self._kept.clear()
        del self._modules, self._names, self._memory
        self._model = self._optimizer = None

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
        inside = here.running[-1] if here.running else None
        repeats = self._repeated(name) if self._depth else None
        here.running.append(len(self._calls))
        here.mark(number)
        recorded, in_backward = torch.is_grad_enabled(), self._depth > 0
        self._calls.append(
            _Call(name, here, inside, repeats, recorded, in_backward, number, number)
        )

    def _repeated(self, name: str) -> int | None:
        """The call that is being made again, where a function runs its forward pass in backward.

        Checkpointing with `use_reentrant=True` does so: its first run is under `no_grad`, and
        follows the making of its node.
        """
        node = self._running_node
        if not isinstance(node, torch.autograd.function.BackwardCFunction):
            return None
        record, key = self._nodes[node], (self._pass, node, name)
        since = [
            i
            for i, call in enumerate(self._calls)
            if call.module == name and call.thread is record.thread and call.first > record.number
        ]
        before = self._repeats[key]
        self._repeats[key] += 1
        if before >= len(since) or self._calls[since[before]].recorded:
            return None
        first = self._calls[since[before]].repeats  # of a checkpoint inside a checkpoint
        return since[before] if first is None else first

    def _leave_module(self, module: nn.Module, _inputs: object, output: object) -> None:
        here, number = self._here(), torch.autograd._get_sequence_nr()
        name = self._modules.get(module)
        if not any(self._calls[i].module == name for i in reversed(here.running)):
            return
        call = None
        while call is None or call.module != name:  # an interrupt leaves some without this hook
            call = self._calls[here.running.pop()]
            call.last = number
        here.mark(number)
        call.needs_gradient = any(t.requires_grad for t in _tensors_in(output))

    def _keep(self, tensor: torch.Tensor) -> _Kept:
        running = self._here().running
        module = self._calls[running[-1]].module if running else ""
        kept = _Kept(tensor, module, next(self._count_kept))
        self._kept.add(kept)
        return kept

    # ---- the backward pass

    def _backward(self, original, tensors, *args, **kwargs) -> None:
        if self._model is None:  # somebody has kept this function for longer than the block
            return original(tensors, *args, **kwargs)
        if not isinstance(tensors, torch.Tensor | GradientEdge):
            tensors = tuple(tensors)  # it may be a generator
        roots = _nodes_of(tensors)
        if self._depth == 0:
            self._backward_calls += 1
            if self._backward_calls == 1:
                self._saved = self._count_saved()
                self._zero = [
                    name
                    for tensor, names in self._names.items()
                    for name in names
                    if tensor.requires_grad and not tensor.any()
                ]
            self._roots += [root for root in dict.fromkeys(roots) if root not in self._roots]
        elif self._running_node is not None:  # checkpointing runs a backward pass inside of one
            self._nodes[self._running_node].inner += roots
        self._watch(roots)
        outside = self._running_node, self._pass, self._handed_on
        self._handed_on = {}
        self._passes += 1
        self._pass = self._passes
        self._depth += 1
        try:
            original(tensors, *args, **kwargs)
        finally:
            self._depth -= 1
            self._running_node, self._pass, self._handed_on = outside

    def _watch(self, roots: list[AutogradNode]) -> None:
        """Put our hooks on every node behind `roots` that has none yet."""
        here = self._here()
        waiting = list(roots)
        while waiting:
            node = waiting.pop()
            if node in self._nodes:
                continue
            number = node._sequence_nr()
            made_by = None if number == NO_NUMBER else here.call_of(number)
            edges = node.next_functions
            record = self._nodes[node] = _Node(number, here, made_by, edges)
            record.handles.append(node.register_prehook(partial(self._arrive, node)))
            record.handles.append(node.register_hook(partial(self._depart, record)))
            waiting += [behind for behind, _ in edges if behind is not None]

    def _arrive(self, node: AutogradNode, incoming: tuple[torch.Tensor | None, ...]) -> None:
        if self._depth:  # else it is `torch.autograd.grad`
            norms = tuple([self._measured(node, i, t) for i, t in enumerate(incoming)])
            visit = Visit(next(self._count), norms, None, _shapes(incoming), ())
            self._nodes[node].visits.append(visit)
            self._running_node = node

    def _depart(self, record: _Node, outgoing: tuple[torch.Tensor | None, ...], _) -> None:
        if self._depth:
            visit = record.visits[-1]
            visit.outgoing, visit.outgoing_shapes = _norms(outgoing), _shapes(outgoing)
            for edge, tensor, norm in zip(record.edges, outgoing, visit.outgoing, strict=False):
                # Of two that flow into the same place the sum arrives, and neither of them.
                known = tensor is not None and edge not in self._handed_on
                self._handed_on[edge] = _Handed(tensor, norm) if known else None

    def _measured(
        self, node: AutogradNode, result: int, tensor: torch.Tensor | None
    ) -> _Norm | None:
        """Its norm. What arrives is, as a rule, what was measured when it went out."""
        if tensor is None:
            return None
        handed = self._handed_on.pop((node, result), None)
        return handed.norm if handed and handed.is_still(tensor) else _norm(tensor)

    # ---- what was kept

    def _count_saved(self) -> Saved:
        """The tensors that are still kept now, by the memory they lie in."""
        the_models = {memory.data_ptr() for t in self._memory for memory in _memory(t)}
        counted: set[int] = set()
        modules: dict[str, int] = {}
        of_the_model = 0
        for kept in sorted(self._kept, key=lambda kept: kept.number):
            for memory in _memory(kept.tensor):
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
        threads = {node.thread for node in operations}
        if any(
            call.recorded and not call.in_backward and call.last > call.first
            for call in self._calls
            if threads and call.thread not in threads
        ):
            self._problem = (
                "the forward pass ran in another thread than the backward pass, where PyTorch "
                "numbers the nodes anew, so it is not known what made them: run both in one thread"
            )
            return
        self._graph = self._build(error)

    def _build(self, error: str | None) -> Graph:
        ordered = sorted(self._nodes.items(), key=lambda item: item[1].number)
        index = {node: i for i, (node, _) in enumerate(ordered)}
        _fetch_norms([visit for _, record in ordered for visit in record.visits])
        made: defaultdict[int, list[int]] = defaultdict(list)
        for node, record in ordered:
            if record.made_by is not None:
                again = self._calls[record.made_by].repeats
                made[record.made_by if again is None else again].append(index[node])
        times = self._count_calls(made)
        nodes = tuple(self._node(node, record, index, times) for node, record in ordered)
        calls = self._build_calls(made, times)
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

    def _count_calls(self, made: Mapping[int, list[int]]) -> dict[int, int]:
        """Which time of its module each call is, without those for checkpointing alone."""
        of_module: Counter[str] = Counter()
        times: dict[int, int] = {}
        for i, call in enumerate(self._calls):
            if call.repeats is None and (i in made or not call.in_backward):
                of_module[call.module] += 1
                times[i] = of_module[call.module]
        return times

    def _node(
        self,
        node: AutogradNode,
        record: _Node,
        index: Mapping[AutogradNode, int],
        times: Mapping[int, int],
    ) -> Node:
        made_by = record.made_by
        if made_by is not None and self._calls[made_by].repeats is not None:
            made_by = self._calls[made_by].repeats
        behind = [*(following for following, _ in record.edges), *record.inner]
        operation = node.name().rpartition("::")[2]
        # A tensor that no parameter's name belongs to (an input that wants a gradient) has none.
        names = self._names.get(node.variable, ()) if operation == LEAF else ()
        return Node(
            index[node],
            operation,
            None if made_by is None else self._calls[made_by].module,
            1 if made_by is None else times[made_by],
            tuple(None if n is None else index[n] for n in behind),
            names,
            tuple(record.visits),
            (self._labels or {}).get(node),
        )

    def _build_calls(
        self, made: Mapping[int, list[int]], times: Mapping[int, int]
    ) -> tuple[Call, ...]:
        numbers: defaultdict[_Thread, list[int]] = defaultdict(list)
        for record in self._nodes.values():
            numbers[record.thread].append(record.number)
        for of_thread in numbers.values():
            of_thread.sort()
        again: defaultdict[int, list[_Call]] = defaultdict(list)
        for call in self._calls:
            if call.repeats is not None and call.recorded:
                again[call.repeats].append(call)

        def is_in_graph(call: _Call) -> bool:
            there = numbers[call.thread]
            return bisect_left(there, call.first) < bisect_left(there, call.last)

        calls, place = [], {}
        for i, time in times.items():
            call = self._calls[i]
            runs = [call, *again[i]]
            inside = call.inside
            while inside is not None and inside not in place:
                inside = self._calls[inside].inside
            place[i] = len(calls)
            calls.append(
                Call(
                    call.module,
                    time,
                    tuple(made.get(i, ())),
                    self._weights[call.module],
                    any(run.recorded for run in runs),
                    any(run.needs_gradient for run in runs),
                    any(run.recorded and run.last > run.first for run in runs)
                    and not any(map(is_in_graph, runs)),
                    None if inside is None else place[inside],
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
            elif leaf is None and isinstance(self._model, Mapping):
                norm, why = None, NOT_COMPUTED
            elif leaf is None:
                norm, why = None, _why_missing(graph.calls, name.rpartition(".")[0])
            elif leaf.norm_in is None:
                came = "came to it with no gradient" if leaf.visits else "did not come to it"
                norm, why = None, f"it is in the graph, but the backward pass {came}"
            else:
                # Of several passes, the first that brought something other than zero.
                norm = next((n for v in leaf.visits for n in v.incoming if n), leaf.norm_in)
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
                    # (A bias is added: as zero it stops nothing.)
                    places = [n.rpartition(".") for n in self._zero]
                    zero = [
                        f"{module}{dot}{last}"
                        for module, dot, last in places
                        if module == node.module and last != "bias"
                    ]
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
        return "its module was never called"
    if not any(call.recorded for call in own):
        return f"{name} ran under no_grad"
    itself = [call for call in own if call.module == module and call.recorded]
    if not itself:
        return NOT_COMPUTED
    call = itself[-1]
    if not call.needs_gradient:
        return f"what {name} returned needs no gradient: it was detached inside"
    if not call.lost:
        return NOT_COMPUTED
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


def _named_modules(module: nn.Module, name: str = "") -> list[tuple[str, nn.Module]]:
    """Like `named_modules(remove_duplicate=False)`, which takes long in a deep model."""
    found = [(name, module)]
    for last, child in module._modules.items():
        if child is not None:
            found += _named_modules(child, f"{name}.{last}" if name else last)
    return found


def _tensors_in(output: object) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [tensor for value in output for tensor in _tensors_in(value)]
    return []


def _memory(tensor: torch.Tensor) -> list[torch.UntypedStorage]:
    """Where its numbers lie. A sparse tensor is made of several others."""
    if tensor.layout is torch.strided:
        return [tensor.untyped_storage()]
    names = {
        torch.sparse_coo: ("_indices", "_values"),
        torch.sparse_csr: ("crow_indices", "col_indices", "values"),
        torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
        torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
        torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
    }.get(tensor.layout, ())
    return [getattr(tensor, name)().untyped_storage() for name in names]


def _norms(tensors: tuple[torch.Tensor | None, ...]) -> _Norms:
    return tuple([None if t is None else _norm(t) for t in tensors])


def _shapes(tensors: tuple[torch.Tensor | None, ...]) -> _Shapes:
    return tuple([None if t is None else tuple(t.shape) for t in tensors])


def _fetch_norms(visits: list[Visit]) -> None:
    """Put numbers in the place of norms that are still tensors, from each device all at once."""
    waiting: dict[tuple, list[torch.Tensor]] = {}
    for visit in visits:
        for norm in (*visit.incoming, *(visit.outgoing or ())):
            if isinstance(norm, torch.Tensor):
                waiting.setdefault((norm.device, norm.dtype), []).append(norm)
    if not waiting:
        return
    value: dict[int, float] = {}
    for norms in waiting.values():
        numbers = torch.stack(norms).tolist()
        value |= {id(norm): number for norm, number in zip(norms, numbers, strict=True)}

    def read(norms: _Norms) -> tuple[float | None, ...]:
        return tuple([value.get(id(norm), norm) for norm in norms])

    for visit in visits:
        visit.incoming = read(visit.incoming)
        visit.outgoing = None if visit.outgoing is None else read(visit.outgoing)
