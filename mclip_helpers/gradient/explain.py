"""Why a parameter has no gradient, or one of zeros: found by looking at what was recorded."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..names import clean_name, layer_and_part
from .nodes import BackwardGraph, Call, Node
from .reasons import Cause, Reason


def why_missing(calls: Sequence[Call], parameter: str) -> Reason:
    """Why the parameter of this full name is not in the graph."""
    module = parameter.rpartition(".")[0]
    own = [c for c in calls if not module or f"{c.module}.".startswith(f"{module}.")]
    if not own:
        return Reason(Cause.NOT_CALLED)
    if not any(call.recorded for call in own):
        return Reason(Cause.NO_GRAD, module=clean_name(module))
    itself = [call for call in own if call.module == module and call.recorded]
    if not itself:
        return Reason(Cause.UNUSED)
    call = itself[-1]
    if not call.needs_gradient:
        return Reason(Cause.DETACHED, module=clean_name(module))
    if not call.lost:
        return Reason(Cause.UNUSED)
    while call.inside is not None and calls[call.inside].lost:
        call = calls[call.inside]  # the outermost whose result was lost
    return Reason(Cause.CUT_OFF, module=clean_name(call.module))


def why_zero(graph: BackwardGraph, leaf: Node, zeros: Collection[str]) -> Reason:
    """Why `leaf` received only zeros.

    Searches back towards the loss for the nearest node that received anything else: its operation
    made the gradient zero. `zeros` are the full names of the parameters that were all zeros when
    the pass began.
    """
    seen, waiting = {leaf.index}, [leaf.index]
    while waiting:
        for before in graph.before(waiting.pop(0)):
            node = graph.nodes[before]
            if node.norm_in:
                return _why_made_zero(node, leaf, zeros)
            if before not in seen:
                seen.add(before)
                waiting.append(before)
    return Reason(Cause.ZERO_LOSS)


def _why_made_zero(node: Node, leaf: Node, zeros: Collection[str]) -> Reason:
    """Why this operation made a gradient zero: it multiplies by a parameter that is all zeros.

    If there is none, the zeros came about in the operation itself. (A bias is added, not
    multiplied: as zero it stops nothing.)
    """
    for name in zeros:
        module, _, last = name.rpartition(".")
        if module == node.module and last != "bias":
            layer, part = layer_and_part(name)
            if layer == layer_and_part(leaf.name)[0]:
                return Reason(Cause.ZERO_FACTOR, part=part, operation=node.operation)
            return Reason(Cause.ZERO_FACTOR, parameter=clean_name(name), operation=node.operation)
    return Reason(Cause.ZERO_MADE, module=node.where, operation=node.operation)
