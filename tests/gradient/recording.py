"""For the tests of the recorder: small models, and what PyTorch itself knows of a graph."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import mclip_helpers as mh
from mclip_helpers.gradient import Graph, Node

LEAF = "AccumulateGrad"


def leaf(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=dtype, generator=generator).requires_grad_()


def norm(tensor: torch.Tensor) -> float:
    """The definition, in numbers as wide as there are."""
    return math.hypot(*tensor.detach().double().flatten().tolist())


def about(number: float, rel: float = 1e-11):
    return pytest.approx(number, rel=rel, abs=0)


def fail(message: str):
    raise ZeroDivisionError(message)


# ------------------------------------------------------------------------- PyTorch's graph and ours


def nodes_behind(*roots) -> list:
    """Every node of PyTorch's graph that can be reached from `roots`."""
    reached, waiting = {}, list(roots)
    while waiting:
        node = waiting.pop()
        if node is not None and node not in reached:
            reached[node] = None
            waiting += [behind for behind, _ in node.next_functions]
    return list(reached)


def match_nodes(graph: Graph, *roots) -> dict:
    """PyTorch's nodes and the recorded ones that stand for them, walking along both from roots."""
    matched, waiting = {}, list(zip(roots, graph.roots, strict=True))
    while waiting:
        node, index = waiting.pop()
        if node in matched:
            assert matched[node].index == index
            continue
        matched[node] = graph.nodes[index]
        behind = [following for following, _ in node.next_functions]
        for following, place in zip(behind, graph.nodes[index].next, strict=False):
            assert (following is None) == (place is None)
            if following is not None:
                waiting.append((following, place))
    assert len({node.index for node in matched.values()}) == len(matched)
    return matched


def by_operation(graph: Graph, name: str) -> Node:
    [node] = [n for n in graph.nodes if n.operation.startswith(name)]
    return node


def made(graph: Graph) -> list[tuple[str | None, str]]:
    """The module and the operation of each node, leaves apart."""
    return [(n.module, n.operation) for n in graph.nodes if not n.is_leaf]


def linear(name: str) -> list[tuple[str, str]]:
    """What `made` gives for an nn.Linear."""
    return [(name, "TBackward0"), (name, "AddmmBackward0")]


# ----------------------------------------------------------------------------- with and without


def step(model: nn.Module, *inputs: torch.Tensor, seed: int = 0) -> None:
    """One step with the same dropout each time."""
    torch.manual_seed(seed)
    model(*inputs).square().sum().backward()


def gradients_of(model: nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: p.grad for name, p in model.named_parameters()}


def assert_same_bits(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for name, a in left.items():
        b = right[name]
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype and a.stride() == b.stride(), name
            assert torch.equal(a, b), name


def equal_with_and_without_trace(model: nn.Module, *inputs: torch.Tensor) -> Graph:
    """The graph of a recorded step; gradients and buffers must be those of a plain one."""
    plain = copy.deepcopy(model)
    step(plain, *inputs)
    with mh.trace(model) as tape:
        step(model, *inputs)
    assert_same_bits(gradients_of(plain), gradients_of(model))
    assert_same_bits(dict(plain.named_buffers()), dict(model.named_buffers()))
    return tape.graph


class Checkpointed(nn.Module):
    """A model with dropout whose blocks run under checkpointing, or plainly."""

    def __init__(self, checkpoints: bool):
        super().__init__()
        self.checkpoints = checkpoints
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.3)) for _ in range(3)]
        )
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpoints else block(x)
        return self.head(x)
