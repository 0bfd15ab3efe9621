"""Build the graph that is read afterwards from what was noted while the step ran."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.autograd.graph import Node as AutogradNode

from ..names import clean_name
from .backward import BackwardLog
from .calls import CallLog, RunningCall
from .explain import why_missing, why_zero
from .graph import Graph
from .inventory import Inventory
from .nodes import LEAF, Call, Node
from .norms import fetch
from .reasons import Cause, Reason
from .saved import Saved
from .verdicts import Gradient, Gradients

NO_NUMBER = 2**64 - 1  # the sequence number of every leaf
FROZEN = Reason(Cause.FROZEN)


@dataclass(frozen=True)
class Recording:
    """All that was noted in one `with` block.

    `zeros` are the names of the parameters that were zero at the first pass.
    """

    inventory: Inventory
    calls: CallLog
    backward: BackwardLog
    labels: Mapping[AutogradNode, str]
    saved: Saved
    zeros: Collection[str]
    optimizer: torch.optim.Optimizer | None
    error: str | None
    keep_gradients: bool


def is_of_another_forward_pass(recording: Recording) -> bool:
    """Whether every operation in the graph was made before the block began."""
    numbers = [n.number for n in recording.backward.nodes.values() if n.number != NO_NUMBER]
    return bool(numbers) and max(numbers) < recording.calls.begun


def build(recording: Recording) -> Graph:
    """The graph of a recorded step."""
    numbers = {node: running.number for node, running in recording.backward.nodes.items()}
    ordered = sorted(numbers, key=numbers.__getitem__)
    index = {node: i for i, node in enumerate(ordered)}
    calls = recording.calls
    made_by = {n: None if numbers[n] == NO_NUMBER else calls.made_by(numbers[n]) for n in ordered}
    times = _call_numbers(calls.calls)
    graph = Graph(
        nodes=tuple(_node(recording, node, index, made_by[node], times) for node in ordered),
        roots=tuple(index[root] for root in recording.backward.roots),
        calls=_calls(recording, index, numbers, made_by, times),
        gradients=Gradients(),
        saved=recording.saved,
        backward_calls=recording.backward.calls,
        error=recording.error,
        has_towers=any(clean_name(n) == "visual" for n in recording.inventory.modules.values()),
    )
    fetch([visit for node in graph.nodes for visit in node.visits])
    kept = _kept_gradients(recording) if recording.keep_gradients else None
    gradients = Gradients(_gradients(recording, graph))
    return replace(graph, gradients=gradients, kept_gradients=kept)


def _kept_gradients(recording: Recording) -> dict[str, torch.Tensor | None]:
    """What lies in `.grad` of each trainable parameter now, as a copy on the CPU."""
    trainable = {names[0]: t for t, names in recording.inventory.names.items() if t.requires_grad}
    return {
        name: None if tensor.grad is None else tensor.grad.detach().clone().cpu()
        for name, tensor in trainable.items()
    }


def _call_numbers(calls: list[RunningCall]) -> list[int]:
    """For each call its number among the calls of the same module, from 1."""
    count: Counter[str] = Counter()
    times = []
    for call in calls:
        count[call.module] += 1
        times.append(count[call.module])
    return times


def _node(
    recording: Recording,
    node: AutogradNode,
    index: Mapping[AutogradNode, int],
    made_by: int | None,
    times: list[int],
) -> Node:
    running = recording.backward.nodes[node]
    operation = running.name.rpartition("::")[2]
    # A tensor that no name belongs to (an input that wants a gradient) has none.
    tensor = getattr(node, "variable", None) if operation == LEAF else None
    names = () if tensor is None else recording.inventory.names.get(tensor, ())
    return Node(
        index=index[node],
        operation=operation,
        module=None if made_by is None else recording.calls.calls[made_by].module,
        call=1 if made_by is None else times[made_by],
        next=tuple([None if behind is None else index[behind] for behind, _ in running.edges]),
        parameters=names,
        visits=tuple(running.visits),
        label=recording.labels.get(node),
    )


def _calls(
    recording: Recording,
    index: Mapping[AutogradNode, int],
    numbers: Mapping[AutogradNode, int],
    made_by: Mapping[AutogradNode, int | None],
    times: list[int],
) -> tuple[Call, ...]:
    made: defaultdict[int, list[int]] = defaultdict(list)
    for node, call_index in made_by.items():
        if call_index is not None:
            made[call_index].append(index[node])
    in_graph = sorted(numbers.values())
    calls = []
    for i, call in enumerate(recording.calls.calls):
        calls.append(
            Call(
                module=call.module,
                call=times[i],
                nodes=tuple(made.get(i, ())),
                weights=recording.inventory.weights[call.module],
                recorded=call.recorded,
                needs_gradient=call.needs_gradient,
                lost=call.recorded and _made_nodes_elsewhere(call, in_graph),
                inside=call.inside,
            )
        )
    return tuple(calls)


def _made_nodes_elsewhere(call: RunningCall, in_graph: Sequence[int]) -> bool:
    """Whether a call made nodes, by calling others too, of which none is in the graph."""
    if call.last == call.first:
        return False
    return bisect_left(in_graph, call.first) == bisect_left(in_graph, call.last)


def _gradients(recording: Recording, graph: Graph) -> Iterator[Gradient]:
    given: set[torch.Tensor] | None = None
    if recording.optimizer is not None:
        given = {p for group in recording.optimizer.param_groups for p in group["params"]}
    for tensor, names in recording.inventory.names.items():
        norm, reason = _arrival(recording, graph, tensor, names[0])
        in_optimizer = None if given is None else tensor in given
        yield Gradient.of(names[0], tensor, norm, reason, in_optimizer)


def _arrival(
    recording: Recording, graph: Graph, tensor: torch.Tensor, name: str
) -> tuple[float | None, Reason | None]:
    """The norm of a parameter's gradient, and the reason if it has none, or only zeros."""
    leaf = graph.leaves.get(name)
    if not tensor.requires_grad:
        return None, FROZEN
    if leaf is None:
        if not recording.inventory.is_model:
            return None, Reason(Cause.UNUSED)
        return None, why_missing(graph.calls, name)
    if leaf.norm_in is None:
        return None, Reason(Cause.NOTHING_ARRIVED if leaf.visits else Cause.NOT_VISITED)
    # Of several passes, the first that brought something other than zero.
    norm = next((n for visit in leaf.visits for n in visit.incoming if n), leaf.norm_in)
    return norm, None if norm else why_zero(graph, leaf, recording.zeros)
