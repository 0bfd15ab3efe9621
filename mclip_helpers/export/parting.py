"""The first layer at which two stages of a model part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from .graph import FEATURES, INPUTS, module_of
from .needed import ship_package
from .stages import OnnxClip, Stage, expose, run, session

SHARE = 0.1  # of the features' own difference: layers below it pass on what others have lost
NOISE = 1e-4  # what rounding alone may do to a layer, relative


def first_parted(before: Stage, after: Stage, tower: str, items: Sequence) -> str:
    """The first module that returns something else in `after` than in `before`, by its name.

    "pixels" or "tokens" if the inputs differ already: the transform or the tokenizer is to blame.
    Only modules that are in both are compared, and only by what has the same shape in both.
    """
    given = {stage: stage.inputs(tower, items) for stage in (before, after)}
    if not _same_inputs(given[before], given[after]):
        return INPUTS[tower]
    old, new = (stage.activations(tower, given[stage]) for stage in (before, after))
    shared = [name for name in old if name in new and new[name].shape == old[name].shape]
    differences = {name: _difference(old[name], new[name]) for name in shared}
    least = max(NOISE, SHARE * differences.get(FEATURES, 1.0))
    for name, difference in differences.items():
        # What differs inside a module that returns the same is none: a folded convolution has
        # taken over its batch norm's share.
        excused = any(differences.get(module, 1.0) <= NOISE for module in _around(name))
        if not (difference <= least or excused):  # NaN is no small difference
            return name
    return FEATURES


def first_refused(stage: Stage, tower: str, items: Sequence) -> str:
    """The first module that does not compute a batch of `items`, of a stage that fails on it."""
    inputs = stage.inputs(tower, items)
    if not isinstance(stage, OnnxClip):
        return INPUTS[tower]
    whole = stage.graph(tower)
    nodes = list(whole.graph.node)

    def refuses(count: int) -> bool:
        """Whether the graph fails that ends with its first `count` nodes."""
        part = ship_package("onnx").ModelProto()
        part.CopyFrom(whole)
        del part.graph.node[count:], part.graph.output[:]
        expose(part, nodes[count - 1].output[:1])
        try:
            run(session(part.SerializeToString(), optimised=False), tower, inputs)
        except Exception:  # of ONNX Runtime, which has a class for each reason
            return True
        return False

    low, high = 1, len(nodes)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if refuses(middle) else (middle + 1, high)
    named = (module_of(node) for node in reversed(nodes[:low]))
    return INPUTS[tower] if low == 1 else next(filter(None, named), INPUTS[tower])


def _around(name: str) -> Iterator[str]:
    """The modules that the module `name` lies in, the innermost first."""
    while name := name.rpartition(".")[0]:
        yield name


def _same_inputs(old: torch.Tensor, new: torch.Tensor) -> bool:
    return old.shape == new.shape and torch.allclose(old.float(), new.float(), atol=1e-5)


def _difference(old: torch.Tensor, new: torch.Tensor) -> float:
    """Relative to the old one, by length."""
    old, new = old.double(), new.double()
    return ((old - new).norm() / old.norm().clamp_min(1e-12)).item()
