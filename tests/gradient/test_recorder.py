"""The recorder, against what PyTorch itself says: gradients, hooks, names, saved bytes, no leak."""

from __future__ import annotations

import copy
import gc
import math
import operator
import pickle
import re
import threading
import warnings
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from conftest import fresh
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.autograd.graph import GradientEdge, saved_tensors_hooks
from torch.nn.modules import module as hooks_of_all_modules
from torch.utils.checkpoint import checkpoint

import mclip_helpers as mh
from mclip_helpers.gradient import Graph, Node, Verdict, backward, build, kept

LEAF = "AccumulateGrad"


def leaf(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=dtype, generator=generator).requires_grad_()


def norm(tensor: torch.Tensor) -> float:
    """The definition, in numbers as wide as there are."""
    return math.hypot(*tensor.detach().double().flatten().tolist())


def about(number: float, dtype: torch.dtype = torch.float64):
    return pytest.approx(number, rel=1e-5 if dtype == torch.float32 else 1e-11, abs=0)


def nodes_behind(*roots) -> list:
    """Every node of PyTorch's graph that can be reached from `roots`."""
    found, waiting = {}, list(roots)
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found[node] = None
            waiting += [behind for behind, _ in node.next_functions]
    return list(found)


def pairs(graph: Graph, *roots) -> dict:
    """PyTorch's nodes and the recorded ones that stand for them, walking along both from roots."""
    found, waiting = {}, list(zip(roots, graph.roots, strict=True))
    while waiting:
        node, index = waiting.pop()
        if node in found:
            assert found[node].index == index
            continue
        found[node] = graph.nodes[index]
        behind = [following for following, _ in node.next_functions]
        for following, place in zip(behind, graph.nodes[index].next, strict=False):
            assert (following is None) == (place is None)
            if following is not None:
                waiting.append((following, place))
    assert len({node.index for node in found.values()}) == len(found)
    return found


def by_operation(graph: Graph, name: str) -> Node:
    [node] = [n for n in graph.nodes if n.operation.startswith(name)]
    return node


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
    plain = copy.deepcopy(model)
    step(plain, *inputs)
    with mh.trace(model) as tape:
        step(model, *inputs)
    assert_same_bits(gradients_of(plain), gradients_of(model))
    assert_same_bits(dict(plain.named_buffers()), dict(model.named_buffers()))
    return tape.graph


# -------------------------------------------------------------------------- random small graphs

SHAPE = (3, 3)
UNARY = {
    "sin": torch.sin,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": lambda a: a.softmax(1),
    "transposed": lambda a: a.T,
    "from zero": lambda a: a * 0,
    "row": lambda a: a[1].expand(SHAPE),
    "one of several results": lambda a: a.unbind(0)[2].repeat(3, 1),
    "in place": lambda a: a.clone().mul_(2),
    "copied into": lambda a: _copied_into(a),
    "detached": lambda a: a.detach(),
    "normal": lambda a: F.layer_norm(a, (3,)),
    "again": lambda a: checkpoint(_twice, a, use_reentrant=False),
}
BINARY = {
    "plus": operator.add,
    "times": lambda a, b: (a * b).tanh(),
    "matmul": lambda a, b: (a @ b).tanh(),
    "cut": lambda a, b: torch.cat([a, b])[2:5],
    "half": lambda a, b: torch.cat([a, b]).chunk(2)[1],
    "chosen": lambda a, b: torch.where(a.detach() > 0, a, b),
}


def _copied_into(a: torch.Tensor) -> torch.Tensor:
    result = a.clone()
    result[0] = a[1].sin()
    return result


def _twice(a: torch.Tensor) -> torch.Tensor:
    return (a * a).sin() + a.cos()


def programs(without: tuple[str, ...] = ()):
    """Lists of (operation, one earlier value, another); a program's first values are its leaves."""
    names = st.sampled_from([n for n in (*UNARY, *BINARY) if n not in without])
    line = st.tuples(names, st.integers(0, 30), st.integers(0, 30))
    return st.lists(line, min_size=1, max_size=9)


def run(program, leaves: list[torch.Tensor]) -> torch.Tensor:
    values = list(leaves)
    for name, i, j in program:
        a, b = values[-1 - i % len(values)], values[-1 - j % len(values)]
        if name.startswith("again") and not a.requires_grad:
            values.append(_twice(a))  # else PyTorch warns that nothing there needs a gradient
        else:
            values.append(UNARY[name](a) if name in UNARY else BINARY[name](a, b))
    return (values[-1] + 0.1 * values[0] + values[len(values) // 2]).sin().sum()


def some_leaves(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    return {name: leaf(*SHAPE, dtype=dtype, seed=i) for i, name in enumerate("abc")}


@settings(deadline=None)
@given(program=programs())
def test_of_a_random_graph_no_gradient_changes_by_a_bit(program):
    plain, traced = some_leaves(torch.float32), some_leaves(torch.float32)
    run(program, [*plain.values()]).backward()
    with mh.trace(traced):
        run(program, [*traced.values()]).backward()
    assert_same_bits({n: t.grad for n, t in plain.items()}, {n: t.grad for n, t in traced.items()})


@settings(deadline=None)
@given(program=programs(without=("again, reentrant",)))
def test_of_a_random_graph_every_node_has_the_gradient_that_autograd_grad_gives(program):
    leaves = some_leaves()
    with mh.trace(leaves) as tape:
        loss = run(program, [*leaves.values()])
        loss.backward(retain_graph=True)
    of = pairs(tape.graph, loss.grad_fn)
    assert len(of) == len(tape.graph.nodes)
    places = {(b, i) for node in of for b, i in node.next_functions if b is not None}
    for node, result in places:
        edge = GradientEdge(node, result)
        [wanted] = torch.autograd.grad(loss, [edge], retain_graph=True, allow_unused=True)
        arrived = of[node].visits[0].incoming if of[node].visits else [None] * (result + 1)
        if wanted is None:
            assert arrived[result] is None
        else:
            assert arrived[result] == about(norm(wanted))
            assert of[node].visits[0].incoming_shapes[result] == tuple(wanted.shape)
    for node, recorded in of.items():
        # Where nothing else flows in, what goes out of one node is what comes into the next.
        for at, place in enumerate(node.next_functions):
            feeders = sum(place in other.next_functions for other in of)
            twice = node.next_functions.count(place)
            if place[0] is not None and feeders == twice == 1 and recorded.visits:
                there = of[place[0]].visits[0].incoming[place[1]]
                assert recorded.visits[0].outgoing[at] == (None if there is None else about(there))


@settings(deadline=None)
@given(program=programs())
def test_of_a_random_graph_the_leaves_have_the_norms_of_their_gradients(program):
    leaves = some_leaves()
    with mh.trace(leaves) as tape:
        run(program, [*leaves.values()]).backward()
    for name, tensor in leaves.items():
        [found] = [g for g in tape.graph.gradients if g.name == name]
        if tensor.grad is None:
            assert (found.verdict, name in tape.graph.leaves) == (Verdict.NOT_REACHED, False)
        elif len(tape.graph.leaf(name).visits) == 1:
            assert found.norm == about(norm(tensor.grad))
            assert found.verdict == (Verdict.REACHED if tensor.grad.any() else Verdict.ZERO)


@settings(deadline=None, max_examples=30)
@given(program=programs(without=("chosen", "detached", "from zero")))
def test_of_a_random_graph_the_norms_are_those_of_finite_differences(program):
    leaves = some_leaves()
    with mh.trace(leaves) as tape:
        run(program, [*leaves.values()]).backward()
    h = 1e-5
    for name, tensor in leaves.items():
        if name not in tape.graph.leaves or len(tape.graph.leaf(name).visits) > 1:
            continue
        slope = torch.zeros_like(tensor)
        for place in torch.cartesian_prod(torch.arange(3), torch.arange(3)).tolist():
            ends = []
            for sign in (1, -1):
                moved = {n: t.detach().clone() for n, t in leaves.items()}
                moved[name][tuple(place)] += sign * h
                ends.append(run(program, [*moved.values()]).item())
            slope[tuple(place)] = (ends[0] - ends[1]) / (2 * h)
        assert tape.graph.leaf(name).norm_in == pytest.approx(norm(slope), rel=1e-4, abs=1e-7)


@settings(deadline=None)
@given(program=programs())
def test_of_a_random_graph_the_order_is_that_of_the_tests_own_hooks(program):
    leaves = some_leaves()
    order, went_out = [], {}
    with mh.trace(leaves) as tape:
        loss = run(program, [*leaves.values()])
        for node in nodes_behind(loss.grad_fn):
            node.register_prehook(lambda _, node=node: order.append(node))
            node.register_hook(lambda out, _, node=node: went_out.setdefault(node, out) and None)
        loss.backward()
    of = pairs(tape.graph, loss.grad_fn)
    mine = sorted((n for n in of.values() if n.visits), key=lambda n: n.order)
    assert [of[node].index for node in order] == [n.index for n in mine]
    # A checkpoint's nodes, which are not behind the loss, ran in between.
    assert [n.order for n in tape.graph.order] == list(range(1, len(tape.graph.order) + 1))
    for a, b in tape.graph.edges:
        first, second = tape.graph.nodes[a], tape.graph.nodes[b]
        if first.visits and second.visits:
            assert first.order < second.order
    for node, out in went_out.items():
        wanted = [None if t is None else about(norm(t)) for t in out]
        assert list(of[node].visits[0].outgoing) == wanted
        shapes = tuple(None if t is None else tuple(t.shape) for t in out)
        assert of[node].visits[0].outgoing_shapes == shapes


# ------------------------------------------------------------------------- what flows in and out


def test_a_tensor_that_is_used_three_times_receives_the_sum_and_each_use_sends_its_own():
    x = leaf(4)
    with mh.trace({"x": x}) as tape:
        h = x * 1
        h.retain_grad()
        (h * 2 + h * 3 - h.sum() * torch.ones(4)).sum().backward()
    first = tape.graph.nodes[0]
    assert first.norm_in == about(norm(h.grad)) == about(norm(torch.full((4,), 2 + 3 - 4.0)))
    sent = [n.visits[0].outgoing[0] for n in tape.graph.nodes if first.index in n.next]
    assert sorted(sent) == [about(2 * 2), about(3 * 2), about(4 * 2)]


def test_of_several_results_an_unused_one_has_no_gradient():
    x = leaf(3, 2)
    with mh.trace({"x": x}) as tape:
        first, _, third = x.unbind(0)
        (first * 2 + third * 3).sum().backward()
    node = by_operation(tape.graph, "Unbind")
    root = math.sqrt(2)
    assert node.visits[0].incoming == (about(2 * root), None, about(3 * root))
    assert node.visits[0].incoming_shapes == ((2,), None, (2,))
    assert node.norm_in == about(math.hypot(2 * root, 3 * root))
    assert node.shape == (2,)


def test_an_input_that_needs_no_gradient_sends_none_on():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        (x * torch.ones(3)).sum().backward()
    node = by_operation(tape.graph, "Mul")
    assert node.next[1] is None
    assert node.visits[0].outgoing == (about(math.sqrt(3)), None)


def test_a_root_that_another_root_uses_too_receives_both():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        y = x * 2
        z = y * 3
        torch.autograd.backward([y, z], [torch.ones(3), torch.ones(3)])
    of = pairs(tape.graph, y.grad_fn, z.grad_fn)
    root = math.sqrt(3)
    assert of[z.grad_fn].visits[0].outgoing[0] == about(3 * root)
    assert of[y.grad_fn].norm_in == about(4 * root)
    assert tape.graph.leaf("x").norm_in == about(8 * root) == about(norm(x.grad))
    assert tape.graph.ways(of[y.grad_fn].index) == 2


def other_gradient(gradient: torch.Tensor) -> torch.Tensor:
    return gradient * 100


def changed_gradient(gradient: torch.Tensor) -> None:
    gradient.mul_(100)


@pytest.mark.parametrize("hook", [other_gradient, changed_gradient])
def test_a_tensors_own_hook_stands_between_what_goes_out_and_what_comes_in(hook):
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        y = x * 2
        y.register_hook(hook)
        (y * 1).sum().backward()
    root = math.sqrt(3)
    by_order = [n for n in tape.graph.order if n.operation == "MulBackward0"]
    assert [n.norm_out for n in by_order] == [about(root), about(200 * root)]
    assert [n.norm_in for n in by_order] == [about(root), about(100 * root)]
    assert tape.graph.leaf("x").norm_in == about(200 * root) == about(norm(x.grad))


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (torch.float32, 1e-30),
        (torch.float32, 1e-44),
        (torch.float64, 1e-200),
        (torch.bfloat16, 1e-30),
        (torch.float32, 1e25),
        (torch.float64, 1e200),
    ],
)
def test_neither_tiny_nor_huge_gradients_are_lost_though_their_squares_are(dtype, size):
    x = leaf(3, dtype=dtype)
    with mh.trace({"x": x}) as tape:
        ((x * 1) * size).sum().backward()
    assert x.grad.any()
    expected = pytest.approx(norm(x.grad), rel=1e-6, abs=0)
    assert tape.graph.leaf("x").norm_in == expected
    assert all(n.norm_in == expected for n in tape.graph.nodes[:1])
    assert tape.graph.gradients[0].verdict is Verdict.REACHED
    assert mh.gradients(nn.ParameterDict({"x": x}))[0].norm is None, "a copy without a gradient"


def test_what_lies_in_grad_is_measured_as_exactly():
    holder = nn.Module()
    holder.x = nn.Parameter(torch.ones(2))
    holder.x.grad = torch.tensor([3e-30, 4e-30])
    assert mh.gradients(holder)[0].norm == pytest.approx(5e-30, rel=1e-6, abs=0)
    assert mh.gradients(holder)[0].verdict is Verdict.REACHED


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_has_no_finite_norm(bad):
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        (x * torch.tensor([1.0, bad, 1.0])).sum().backward()
    found = tape.graph.leaf("x").norm_in
    assert math.isnan(found) if math.isnan(bad) else found == math.inf
    assert tape.graph.gradients[0].verdict is Verdict.REACHED


def test_a_complex_gradient_is_refused():
    x = torch.tensor([1 + 2j, 3 - 1j], requires_grad=True)
    with mh.trace({"x": x}), pytest.raises(NotImplementedError, match=r"shape \(2,\) is complex"):
        (x * (3 + 4j)).abs().square().sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_each_precision_gets_the_same_bits_and_its_norms(dtype):
    model = nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.LayerNorm(4), nn.Linear(4, 2)).to(dtype)
    graph = equal_with_and_without_trace(model, torch.randn(3, 5, dtype=dtype))
    for name, p in model.named_parameters():
        assert graph.leaf(name).norm_in == pytest.approx(norm(p.grad), rel=1e-5)


def test_a_sparse_gradient_is_refused_with_what_to_do():
    table = nn.Embedding(7, 3, sparse=True)
    with mh.trace(table), pytest.raises(NotImplementedError, match="sparse=False"):
        table(torch.tensor([1, 1, 5])).square().sum().backward()
    table(torch.tensor([1, 1, 5])).square().sum().backward()
    with pytest.raises(NotImplementedError, match=r"shape \(7, 3\) is sparse"):
        mh.gradients(table)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_sparse_tensor_that_autograd_saves_is_refused():
    w = leaf(3, 3)
    matrix = (torch.eye(3, dtype=torch.float64) * 2).to_sparse()
    with mh.trace({"w": w}), pytest.raises(NotImplementedError, match="saves a sparse tensor"):
        torch.sparse.mm(matrix, w)


# ------------------------------------------------------------------------------ kinds of backward


def test_a_leaf_may_be_the_loss():
    x = leaf()
    with mh.trace({"x": x}) as tape:
        x.backward()
    [node] = tape.graph.nodes
    assert (node.operation, node.parameters, node.norm_in, node.shape) == (LEAF, ("x",), 1.0, ())
    assert tape.graph.roots == (0,)
    assert tape.graph.path("x").ways == 1


def test_several_losses_at_once_are_roots_and_the_same_one_twice_is_one():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        a, b = (x * 2).chunk(2)
        torch.autograd.backward([a.sum(), b.sum(), a, a], [None, None, torch.ones(2), a.detach()])
    assert len(tape.graph.roots) == 3
    assert tape.graph.backward_calls == 1
    assert tape.graph.leaf("x").norm_in == about(norm(x.grad))


def test_losses_may_come_from_a_generator():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        torch.autograd.backward(part.sum() for part in (x * 2, x * 3))
    assert torch.equal(x.grad, torch.full((3,), 5.0, dtype=torch.float64))
    assert len(tape.graph.roots) == 2


def test_a_gradient_edge_may_be_the_root():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        y = (x * 2).sum()
        edge = torch.autograd.graph.get_gradient_edge(y)
        torch.autograd.backward(edge, torch.tensor(3.0, dtype=torch.float64))
    assert tape.graph.nodes[tape.graph.roots[0]].operation == "SumBackward0"
    assert tape.graph.leaf("x").norm_in == about(norm(x.grad)) == about(6 * math.sqrt(3))


def test_backward_of_no_scalar_takes_its_gradient_as_it_is():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        (x * 2).backward(gradient=torch.tensor([3.0, 0.0, 4.0]))
    assert tape.graph.nodes[tape.graph.roots[0]].norm_in == about(5)


def test_inputs_limits_which_nodes_run():
    a, b = leaf(3), leaf(3, seed=1)
    with mh.trace({"a": a, "b": b}) as tape:
        (a.sin() * b.cos()).sum().backward(inputs=[a])
    assert b.grad is None
    ran = {n.operation for n in tape.graph.order}
    assert "SinBackward0" in ran and "CosBackward0" not in ran
    assert tape.graph.leaf("a").norm_in == about(norm(a.grad))
    assert tape.graph.leaf("b").visits == ()
    assert by_operation(tape.graph, "Mul").visits[0].outgoing == (about(norm(b.cos())), None)
    [_, of_b] = tape.graph.gradients
    assert (of_b.verdict, of_b.why) == (
        Verdict.NOT_REACHED,
        "it is in the graph, but the backward pass did not come to it",
    )


def test_create_graph_gives_second_derivatives_to_the_bit():
    def penalty(x: torch.Tensor, w: torch.Tensor) -> None:
        loss = (x.sigmoid() * w).exp().sum()
        loss.backward(create_graph=True)
        (x.grad.square().sum() + w.grad.sin().sum()).backward()

    plain, traced = [leaf(3), leaf(3, seed=1)], [leaf(3), leaf(3, seed=1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # create_graph makes a cycle, PyTorch says
        penalty(*plain)
        with mh.trace({"x": traced[0], "w": traced[1]}) as tape:
            penalty(*traced)
    for a, b in zip(plain, traced, strict=True):
        assert torch.equal(a.grad, b.grad)
        a.grad = b.grad = None
    assert tape.graph.backward_calls == 2
    assert len(tape.graph.leaf("x").visits) == 2


def test_with_retain_graph_a_second_backward_is_a_second_visit():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        loss = (x * x).sum()
        loss.backward(retain_graph=True)
        loss.backward(torch.tensor(10.0, dtype=torch.float64))
    graph = tape.graph
    assert graph.backward_calls == 2
    assert len(graph.roots) == 1
    for node in graph.nodes:
        first, second = node.visits
        assert second.order == first.order + len(graph.nodes)
        assert second.incoming[0] == about(10 * first.incoming[0])
    assert graph.leaf("x").norm_in == about(norm(2 * x))
    assert [n.order for n in graph.order] == list(range(1, len(graph.nodes) + 1))


def test_two_steps_in_a_block_are_both_recorded():
    layer = nn.Linear(2, 1)
    with mh.trace(layer) as tape:
        for _ in range(2):
            layer(torch.ones(1, 2)).sum().backward()
    assert tape.graph.backward_calls == 2
    assert {n.call for n in tape.graph.nodes if n.module == ""} == {1, 2}
    assert len(tape.graph.leaf("weight").visits) == 2
    assert [call.call for call in tape.graph.calls] == [1, 2]


def test_of_two_passes_a_zero_in_the_first_does_not_hide_the_second():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        (x * 0).sum().backward()
        (x * 2).sum().backward()
    assert tape.graph.gradients[0].verdict is Verdict.REACHED
    assert tape.graph.gradients[0].norm == about(norm(x.grad))


def test_what_autograd_grad_does_is_not_recorded():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        loss = (x * 2).sum()
        torch.autograd.grad(loss, x, retain_graph=True)
        loss.backward(retain_graph=True)
        torch.autograd.grad(loss, x)
    assert all(len(node.visits) == 1 for node in tape.graph.nodes)
    assert tape.graph.backward_calls == 1


def test_a_custom_function_is_a_node_like_any_other_also_when_its_graph_is_gone():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, factor, unused):
            ctx.save_for_backward(x)
            ctx.factor = factor
            return x * factor

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * ctx.factor + 0 * x, None, None

    x, unused = leaf(3), leaf(2, seed=1)
    with mh.trace({"x": x, "unused": unused}) as tape:
        loss = Doubled.apply(Doubled.apply(x, 2.0, unused), 3.0, unused).sum()
        loss.backward()
        del loss
    names = [n.operation for n in tape.graph.nodes if not n.is_leaf]
    assert names == ["DoubledBackward", "DoubledBackward", "SumBackward0"]
    root = math.sqrt(3)
    assert [n.norm_in for n in tape.graph.nodes[:2]] == [about(3 * root), about(root)]
    assert tape.graph.leaf("x").norm_in == about(6 * root)
    assert tape.graph.gradients[1].why == ("the backward pass came to it, but brought no gradient")
    assert tape.graph.gradients[1].verdict == Verdict.NOT_REACHED and unused.grad is None


# --------------------------------------------------------------------------- which module made it


class Known(nn.Module):
    """Its operations can be written down by reading it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2)])
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        x = self.stem(x).exp()
        for block in self.blocks:
            x = x + block(x)
        return x * self.scale


def made(graph: Graph) -> list[tuple[str | None, str]]:
    return [(n.module, n.operation) for n in graph.nodes if not n.is_leaf]


def linear(name: str) -> list[tuple[str, str]]:
    return [(name, "TBackward0"), (name, "AddmmBackward0")]


def test_each_node_of_a_known_model_has_the_innermost_module_that_made_it():
    model = Known()
    with mh.trace(model) as tape:
        model(torch.randn(2, 4)).sum().backward()
    assert made(tape.graph) == [
        *linear("stem"),
        ("", "ExpBackward0"),
        *linear("blocks.0.0"),
        ("blocks.0.1", "ReluBackward0"),
        ("", "AddBackward0"),
        *linear("blocks.1.0"),
        ("blocks.1.1", "ReluBackward0"),
        ("", "AddBackward0"),
        ("", "MulBackward0"),
        (None, "SumBackward0"),
    ]
    leaves = {n.parameters for n in tape.graph.nodes if n.is_leaf}
    assert leaves == {(name,) for name, _ in model.named_parameters()}
    assert all(n.module is None for n in tape.graph.nodes if n.is_leaf)


def test_the_names_go_through_an_adapter():
    model = get_peft_model(Known(), LoraConfig(r=2, target_modules=["stem", "blocks.1.0"]))
    with mh.trace(model) as tape:
        model(torch.randn(2, 4)).sum().backward()
    stem, inner = "base_model.model.stem", "base_model.model.blocks.1.0"

    def adapter(name: str) -> list[tuple[str, str]]:
        return [
            (f"{name}.lora_A.default", "TBackward0"),
            (f"{name}.lora_A.default", "MmBackward0"),
            (f"{name}.lora_B.default", "TBackward0"),
            (f"{name}.lora_B.default", "MmBackward0"),
            (name, "MulBackward0"),
            (name, "AddBackward0"),
        ]

    frozen = [("base_model.model.blocks.0.0", "AddmmBackward0")]
    assert made(tape.graph) == [
        # The frozen stem's own result needs no gradient: it is the first, its input a constant.
        *adapter(stem),
        ("base_model.model", "ExpBackward0"),
        *frozen,
        ("base_model.model.blocks.0.1", "ReluBackward0"),
        ("base_model.model", "AddBackward0"),
        (f"{inner}.base_layer", "AddmmBackward0"),
        *adapter(inner),
        ("base_model.model.blocks.1.1", "ReluBackward0"),
        ("base_model.model", "AddBackward0"),
        ("base_model.model", "MulBackward0"),
        (None, "SumBackward0"),
    ]
    assert tape.graph.leaf("stem.lora_B").parameters == (f"{stem}.lora_B.default.weight",)


@contextmanager
def made_by(model: nn.Module):
    """Another way to know it: what stands between the results and the inputs of a module.

    Only for modules without children; gives PyTorch's nodes, each with the module's name.
    """
    names = {m: n for n, m in model.named_modules() if not any(True for _ in m.children())}
    found = {}

    def note(module, inputs, output):
        if isinstance(output, torch.Tensor) and output.grad_fn is not None:
            ends = {t.grad_fn for t in inputs if isinstance(t, torch.Tensor)}
            waiting = [output.grad_fn]
            while waiting:
                node = waiting.pop()
                if node is None or node in ends or node.name().endswith(LEAF):
                    continue
                found[node] = names[module]
                waiting += [behind for behind, _ in node.next_functions]

    handles = [module.register_forward_hook(note) for module in names]
    yield found
    for handle in handles:
        handle.remove()


def clip_step(clip: mh.Clip, seed: int = 0, size: int = 64) -> torch.Tensor:
    torch.manual_seed(seed)
    images = torch.rand(2, 3, size, size)
    tokens = clip.tokenizer(["a red car", "two cats"])
    image, text = clip.model.encode_image(images), clip.model.encode_text(tokens)
    return mh.contrastive_loss(image, text, clip.model.logit_scale.exp())


# (name, with adapters, as in training)
WAYS = [("nano", True, False), ("nano", False, True), ("MobileCLIP2-S0", True, False)]


@pytest.mark.parametrize(("name", "adapters", "training"), WAYS)
def test_a_whole_model_keeps_its_bits_and_its_nodes_have_their_names(name, adapters, training):
    clip = fresh(name)
    model = mh.inject_lora(clip.model, rank=2) if adapters else clip.model
    if training:
        model.train()
    size = 64 if name == "nano" else 256
    start = copy.deepcopy(model.state_dict())
    clip_step(clip, size=size).backward()
    wanted, buffers = gradients_of(model), copy.deepcopy(dict(model.named_buffers()))
    model.load_state_dict(start)
    model.zero_grad()
    order = []
    with mh.trace(model) as tape, made_by(model) as known:
        loss = clip_step(clip, size=size)
        for node in nodes_behind(loss.grad_fn):
            node.register_prehook(lambda _, node=node: order.append(node))
        loss.backward()
    assert_same_bits(gradients_of(model), wanted)
    assert_same_bits(dict(model.named_buffers()), buffers)

    graph = tape.graph
    of = pairs(graph, loss.grad_fn)
    assert len(of) == len(graph.nodes) == len(order)
    assert [of[node].order for node in order] == list(range(1, len(order) + 1))
    checked = Counter()
    for node, module in known.items():
        if node in of:
            assert of[node].module == module
            checked[module] += 1
    assert len(checked) > (50 if adapters else 100)
    parameters = dict(model.named_parameters())
    for g, (full, p) in zip(graph.gradients, parameters.items(), strict=True):
        assert g.shape == tuple(p.shape)
        if p.grad is not None:
            assert graph.leaves[full].norm_in == pytest.approx(norm(p.grad), rel=1e-4, abs=1e-30)
            assert g.norm == graph.leaves[full].norm_in
        else:
            assert full not in graph.leaves
    if adapters:
        assert graph.gradients.count(Verdict.ZERO, "A") == len(list(mh.lora_layers(model)))
        assert graph.gradients.count("reached", "B") == len(list(mh.lora_layers(model)))


def test_a_module_that_is_called_twice_has_nodes_of_two_calls():
    layer = nn.Linear(3, 3)
    model = nn.ModuleDict({"layer": layer})
    with mh.trace(model) as tape:
        first = layer(torch.randn(2, 3))
        second = layer(first)
        second.sum().backward()
    found = [(n.operation, n.module, n.call) for n in tape.graph.nodes if n.module]
    assert found == [
        ("TBackward0", "layer", 1),
        ("AddmmBackward0", "layer", 1),
        ("TBackward0", "layer", 2),
        ("AddmmBackward0", "layer", 2),
    ]
    assert [(c.call, len(c.nodes)) for c in tape.graph.calls] == [(1, 2), (2, 2)]
    assert tape.graph.leaf("weight").norm_in == pytest.approx(norm(layer.weight.grad))


def test_a_module_under_two_names_goes_by_the_first():
    shared = nn.Linear(3, 3)
    model = nn.ModuleDict({"one": shared, "two": shared})
    with mh.trace(model) as tape:
        model["two"](model["one"](torch.randn(2, 3))).sum().backward()
    assert {n.module for n in tape.graph.nodes if not n.is_leaf} == {"one", None}
    assert tape.graph.leaf("two.weight").parameters == ("one.weight", "two.weight")
    assert tape.graph.leaf("one.weight") is tape.graph.leaf("two.weight")
    assert len(tape.graph.gradients) == 2


def test_a_shared_parameter_has_both_names_and_one_leaf():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    with mh.trace(model) as tape:
        model(torch.tensor([1, 2])).square().sum().backward()
    [shared] = [n for n in tape.graph.nodes if n.is_leaf]
    assert shared.parameters == ("0.weight", "1.weight")
    assert shared.norm_in == pytest.approx(norm(model[0].weight.grad))
    for name in ("0.weight", "1.weight", "weight"):
        assert tape.graph.leaf(name) is shared
    assert tape.graph.path("1.weight").ways == tape.graph.ways(shared.index) == 2
    assert [g.name for g in tape.graph.gradients] == ["0.weight"]


def test_parameters_of_others_have_no_name_and_break_nothing():
    layer, other = nn.Linear(3, 3), leaf(3, dtype=torch.float32)
    with mh.trace(layer) as tape:
        (layer(torch.randn(2, 3)) * other).sum().backward()
    unnamed = [n for n in tape.graph.nodes if n.is_leaf and not n.parameters]
    assert len(unnamed) == 1 and unnamed[0].norm_in == about(norm(other.grad), torch.float32)
    assert len(tape.graph.leaves) == 2


def test_a_module_that_raises_in_the_middle_does_not_keep_the_nodes_that_follow():
    class Broken(nn.Module):
        def forward(self, x):
            x.exp()
            raise ValueError("no")

    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.broken, self.last = nn.Linear(2, 2), Broken(), nn.Linear(2, 2)

        def forward(self, x):
            x = self.first(x)
            try:
                x = self.broken(x)
            except ValueError:
                x = x.sin()
            return self.last(x)

    model = Careful()
    with mh.trace(model) as tape:
        model(torch.randn(1, 2)).sum().backward()
    assert made(tape.graph) == [
        *linear("first"),
        ("", "SinBackward0"),
        *linear("last"),
        (None, "SumBackward0"),
    ]
    assert [c.lost for c in tape.graph.calls if c.module == "broken"] == [True]


def test_an_interrupt_that_is_caught_leaves_the_names_right():
    """PyTorch does not call a module's hooks when it is left by a KeyboardInterrupt."""

    class Interrupted(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.last = nn.Sequential(Interrupted()), nn.Linear(2, 2)

        def forward(self, x):
            try:
                self.inner(x)
            except KeyboardInterrupt:
                return self.last(x)

    model = nn.Sequential(Outer())
    with mh.trace(model) as tape:
        model(torch.randn(1, 2)).exp().sum().backward()
    assert made(tape.graph) == [
        *linear("0.last"),
        (None, "ExpBackward0"),
        (None, "SumBackward0"),
    ]


def test_a_hook_of_the_users_own_that_runs_in_a_module_changes_nothing():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].register_forward_hook(lambda module, inputs, output: output * 3)
    seen = []
    model[1].register_full_backward_hook(lambda *_: seen.append(1))
    graph = equal_with_and_without_trace(model, torch.randn(3, 2))
    assert seen == [1, 1], "once without and once with the recording"
    assert [n.module for n in graph.nodes if n.operation == "AddmmBackward0"] == ["0", "1"]


def test_a_label_is_on_the_node_that_made_the_tensor_and_on_no_other():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        h = x.sin()
        loss = h.sum()
        tape.label(hidden=h, loss=loss)
        with pytest.raises(ValueError, match="x has no grad_fn"):
            tape.label(x=x)
        loss.backward()
    assert {n.operation: n.label for n in tape.graph.nodes} == {
        "SinBackward0": "hidden",
        "SumBackward0": "loss",
        LEAF: None,
    }
    for outside in (tape, mh.trace({"x": x})):
        with pytest.raises(RuntimeError, match="inside the `with` block"):
            outside.label(h=h)


def test_under_no_grad_a_module_leaves_nothing_and_the_rest_is_right():
    model = nn.ModuleDict({"image": nn.Linear(3, 2), "text": nn.Linear(3, 2)})
    with mh.trace(model) as tape:
        with torch.no_grad():
            fixed = model["image"](torch.randn(4, 3))
        (fixed * model["text"](torch.randn(4, 3))).sum().backward()
    assert {n.module for n in tape.graph.nodes if not n.is_leaf} == {"text", None}
    assert [(c.module, c.recorded, len(c.nodes)) for c in tape.graph.calls] == [
        ("image", False, 0),
        ("text", True, 2),
    ]


# --------------------------------------------------------------------------------- checkpointing


class Checkpointed(nn.Module):
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


def test_under_checkpointing_nodes_calls_and_gradients_are_those_of_the_plain_model():
    torch.manual_seed(0)
    model = Checkpointed(True)
    plain = Checkpointed(False)
    plain.load_state_dict(model.state_dict())
    x = torch.randn(5, 4)
    graph = equal_with_and_without_trace(model, x)
    wanted = equal_with_and_without_trace(plain, x)

    def places(g: Graph) -> Counter:
        modules = [n for n in g.nodes if n.module is not None]
        return Counter((n.module, n.call, n.operation, n.shape) for n in modules)

    assert places(graph) == places(wanted)
    for a, b in zip(graph.gradients, wanted.gradients, strict=True):
        assert (a.name, a.verdict) == (b.name, b.verdict)
        assert a.norm == pytest.approx(b.norm, rel=1e-5)
    shown = [
        [(c.module, c.call, c.recorded, c.needs_gradient, c.lost) for c in g.calls]
        for g in (graph, wanted)
    ]
    assert shown[0] == shown[1]
    inside = [
        [None if c.inside is None else g.calls[c.inside].module for c in g.calls]
        for g in (graph, wanted)
    ]
    assert inside[0] == inside[1]


def test_a_path_leads_into_a_checkpoint():
    model = Checkpointed(True)
    with mh.trace(model) as tape:
        step(model, torch.randn(5, 4))
    path = tape.graph.path("blocks.0.0.weight")
    assert path.nodes[-1].parameters == ("blocks.0.0.weight",)
    assert path.nodes[0].index in tape.graph.roots
    assert all(b.index in a.next for a, b in pairwise(path.nodes))


def test_the_order_across_a_checkpoint_is_that_of_hooks_on_tensors():
    """A tensor's hook runs right before the node that made the tensor."""
    seen, model = [], nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2), nn.Sigmoid())

    def watched(name: str):
        def forward_hook(module, inputs, output):
            if output.requires_grad:
                output.register_hook(lambda gradient: seen.append((name, norm(gradient))))

        return forward_hook

    for name, module in model.named_children():
        module.register_forward_hook(watched(name))
    with mh.trace(model) as tape:
        x = model[1](model[0](torch.randn(3, 2)))
        x = checkpoint(lambda h: model[3](model[2](h)), x, use_reentrant=False)
        x.sum().backward()
    mine = [n for n in tape.graph.order if n.operation.startswith(("Addmm", "Tanh", "Sigmoid"))]
    seen = [s for i, s in enumerate(seen) if s not in seen[:i]]
    assert [n.module for n in mine] == [name for name, _ in seen] == ["3", "2", "1", "0"]
    assert [n.norm_in for n in mine] == [pytest.approx(size, rel=1e-5) for _, size in seen]


def test_a_reentrant_checkpoint_is_refused_with_what_to_do():
    layer = nn.Linear(3, 3)
    with mh.trace(nn.ModuleDict({"layer": layer})):
        x = checkpoint(layer, leaf(2, 3, dtype=torch.float32), use_reentrant=True)
        with pytest.raises(RuntimeError, match="Use use_reentrant=False"):
            x.sum().backward()
    x = checkpoint(layer, leaf(2, 3, dtype=torch.float32), use_reentrant=True)
    x.sum().backward()  # without a recorder it goes on working
    assert layer.weight.grad is not None


def test_a_checkpoint_keeps_its_input_and_not_what_it_computes():
    x = leaf(100, dtype=torch.float32)
    with mh.trace({"x": x}) as tape:
        h = x * 1
        y = checkpoint(lambda h: h.exp().exp().exp().exp(), h, use_reentrant=False)
        y.sum().backward()
    assert tape.graph.saved.total == 400
    with mh.trace({"x": x}) as tape:
        (x * 1).exp().exp().exp().exp().sum().backward()
    assert tape.graph.saved.total == 4 * 400


# ---------------------------------------------------------------------------------------- failures


def test_a_hook_that_raises_leaves_the_error_and_half_a_graph():
    x = leaf(3)
    tape = mh.trace({"x": x})
    with pytest.raises(ZeroDivisionError, match="enough"), tape:
        middle = x.sin()
        loss = middle.exp().sum()
        middle.grad_fn.register_hook(lambda *_: _raise("enough"))
        loss.backward()
    graph = tape.graph
    assert graph.error == "ZeroDivisionError: enough"
    assert [n.operation for n in graph.order] == ["SumBackward0", "ExpBackward0", "SinBackward0"]
    assert [n.visits[0].outgoing is None for n in graph.order] == [False, False, True]
    assert graph.leaf("x").visits == ()
    assert graph.gradients[0].verdict == Verdict.NOT_REACHED
    assert "broke off: ZeroDivisionError: enough" in repr(graph)


def _raise(what: str):
    raise ZeroDivisionError(what)


def test_an_error_of_backward_that_the_block_catches_is_seen_in_the_node_where_it_broke_off():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        middle = x.sin()
        middle.register_hook(lambda gradient: _raise("enough"))
        with pytest.raises(ZeroDivisionError):
            middle.exp().sum().backward()
        (x * 2).sum().backward()
    assert tape.graph.error is None
    assert tape.graph.backward_calls == 2
    assert by_operation(tape.graph, "Exp").norm_out is not None, "the hook came after it"
    assert by_operation(tape.graph, "Sin").visits == ()
    assert tape.graph.leaf("x").norm_in == about(2 * math.sqrt(3))


def test_an_error_after_the_backward_pass_takes_nothing_from_the_graph():
    x = leaf(3)
    tape = mh.trace({"x": x})
    with pytest.raises(KeyError), tape:
        x.sin().sum().backward()
        raise KeyError("later")
    assert tape.graph.error == "KeyError: 'later'"
    assert all(n.visits and n.visits[0].outgoing is not None for n in tape.graph.nodes)


def same_error(act) -> RuntimeError:
    """What `act` raises, which must be the same with and without a recording."""
    with pytest.raises(RuntimeError) as plain:
        act(leaf(3))
    x = leaf(3)
    tape = mh.trace({"x": x})
    with pytest.raises(RuntimeError) as traced, tape:
        act(x)
    assert str(traced.value) == str(plain.value)
    assert type(traced.value) is type(plain.value)
    assert tape.graph.error == f"RuntimeError: {plain.value}"
    return plain.value


def test_a_second_backward_without_retain_graph_fails_as_it_does_without_a_recording():
    def act(x):
        middle = x.exp()
        (middle * 2).sum().backward()
        (middle * 3).sum().backward()

    assert "backward through the graph a second time" in str(same_error(act))


def test_a_second_backward_that_fails_halfway_keeps_the_first():
    x = leaf(3)
    tape = mh.trace({"x": x})
    with pytest.raises(RuntimeError), tape:
        middle = x.exp()
        (middle * 2).sum().backward()
        (middle * 3).sum().backward()
    exp = by_operation(tape.graph, "Exp")
    first, second = exp.visits
    assert first.outgoing[0] == about(norm(x.grad))
    assert second.incoming[0] == about(3 * math.sqrt(3)) and second.outgoing is None
    assert len(tape.graph.leaf("x").visits) == 1
    assert tape.graph.gradients[0].norm == about(norm(x.grad))


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda x: x.detach().sum().backward(), id="needs no gradient"),
        pytest.param(lambda x: (x * 2).backward(), id="no scalar"),
        pytest.param(lambda x: (x * 2).backward(torch.ones(4)), id="gradient of another shape"),
        pytest.param(
            lambda x: torch.autograd.backward([x.sum(), x.detach().sum()]), id="one of two"
        ),
        pytest.param(lambda x: x.sum().backward(inputs=[]), id="no inputs"),
    ],
)
def test_pytorchs_own_errors_come_through_unchanged(act):
    same_error(act)


def test_without_any_node_the_graph_still_says_why_nothing_arrived():
    layer = nn.Linear(2, 1)
    tape = mh.trace(layer)
    with pytest.raises(RuntimeError, match="does not require grad"), tape:
        layer(torch.ones(1, 2)).detach().sum().backward()
    assert tape.graph.nodes == ()
    assert tape.graph.gradients.count(Verdict.NOT_REACHED) == 2
    assert "detached, or is not used" in tape.graph.gradients[0].why


CHANGED = "one of the variables needed for gradient computation has been modified by an inplace"


@pytest.mark.parametrize("operation", ["exp", "sigmoid", "tanh", "sqrt", "softmax", "reciprocal"])
def test_a_saved_result_that_is_changed_in_place_is_still_refused(operation):
    def act(x):
        h = x.detach().abs().requires_grad_()
        y = h.softmax(0) if operation == "softmax" else getattr(h, operation)()
        z = y.sum()
        with torch.no_grad():
            y.add_(1)
        z.backward()

    refused_with_and_without(act)


@pytest.mark.parametrize("which", ["an input", "a leaf", "a view of an input", "by an optimizer"])
def test_a_saved_input_that_is_changed_in_place_is_still_refused(which):
    def act(x):
        h = x * 1
        z = (x if which in ("a leaf", "by an optimizer") else h).sin().sum()
        with torch.no_grad():
            if which == "by an optimizer":
                x.grad = torch.ones_like(x)
                torch.optim.SGD([x], lr=0.1).step()
            else:
                {"an input": h, "a leaf": x, "a view of an input": h[:1]}[which].mul_(2)
        z.backward()

    refused_with_and_without(act)


def refused_with_and_without(act) -> None:
    for recording in (nullcontext(), mh.trace({"x": (x := leaf(3))})):
        with pytest.raises(RuntimeError, match=CHANGED), recording:
            act(x)


def test_the_refusal_says_which_module_needs_the_tensor():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
    said = re.escape("a tensor of shape (1, 2) that 1 needs")
    with pytest.raises(RuntimeError, match=said), mh.trace(model):
        y = model(torch.ones(1, 2))
        y.data.add_(0)  # this, PyTorch doesn't see
        y.detach().add_(1)
        y.sum().backward()


def test_what_is_changed_in_place_and_not_needed_is_no_error():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        y = (x * 3).add_(1)
        y.mul_(2).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 6.0, dtype=torch.float64))
    assert [n.operation for n in tape.graph.nodes if not n.is_leaf] == [
        "MulBackward0",
        "AddBackward0",
        "MulBackward0",
        "SumBackward0",
    ]


def test_the_blocks_own_hooks_for_saved_tensors_are_used():
    packed, unpacked = [], []

    def pack(tensor):
        packed.append(tensor.shape)
        return tensor.detach() * 2

    def unpack(tensor):
        unpacked.append(tensor.shape)
        return tensor / 2

    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        with saved_tensors_hooks(pack, unpack):
            y = x.sin()
        (y * y).sum().backward()
    assert packed == unpacked == [(3,)]
    torch.testing.assert_close(x.grad, (2 * x.sin() * x.cos()).detach())
    assert tape.graph.saved.total == 24, "y alone: what the block keeps itself is its own affair"


# ------------------------------------------------------------------------------- what is refused


def test_before_the_block_ends_there_is_no_graph():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        x.sum().backward()
        with pytest.raises(RuntimeError, match="after the `with` block"):
            _ = tape.graph
    assert tape.graph.nodes
    with pytest.raises(RuntimeError, match="after the `with` block"):
        _ = mh.trace({"x": x}).graph


def test_a_forward_pass_before_the_block_is_refused():
    layer = nn.Linear(2, 1)
    loss = layer(torch.ones(1, 2)).sum()
    with mh.trace(layer) as tape:
        loss.backward()
    with pytest.raises(RuntimeError, match="forward pass of this loss ran before the `with` block"):
        _ = tape.graph
    assert layer.weight.grad is not None


def test_a_part_of_the_forward_pass_before_the_block_has_no_module():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    early = model[0](torch.ones(1, 2))
    with mh.trace(model) as tape:
        model[1](early).sum().backward()
    assert made(tape.graph)[:4] == [
        (None, "TBackward0"),
        (None, "AddmmBackward0"),
        *linear("1"),
    ]


def test_no_backward_pass_is_an_error_that_says_so():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        torch.autograd.grad(x.sum(), x)
    with pytest.raises(RuntimeError, match=r"call loss\.backward\(\) in it"):
        _ = tape.graph
    with pytest.raises(ZeroDivisionError), mh.trace({"x": x}) as tape:
        _raise("early")
    with pytest.raises(RuntimeError, match=r"broke off before .* ZeroDivisionError: early"):
        _ = tape.graph


def test_a_forward_pass_in_another_thread_is_refused_and_not_misnamed():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with mh.trace(model) as tape, ThreadPoolExecutor(1) as pool:
        result = pool.submit(model, torch.ones(1, 2))
        with pytest.raises(RuntimeError, match="was called in another thread"):
            result.result()
        model(torch.ones(1, 2)).sum().backward()
    assert made(tape.graph) == [*linear("0"), *linear("1"), (None, "SumBackward0")]


def test_a_whole_step_in_another_thread_is_recorded():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model(torch.ones(1, 2))  # so that the threads' numbers differ
    graphs = []

    def work():
        with mh.trace(model) as tape:
            model(torch.ones(1, 2)).sum().backward()
        graphs.append(tape.graph)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert made(graphs[0]) == [*linear("0"), *linear("1"), (None, "SumBackward0")]


def test_one_recording_at_a_time_whoever_asks_and_then_the_next():
    x = leaf(3)
    said = []

    def other() -> None:
        try:
            with mh.trace({"x": x}):
                said.append("it began")
        except RuntimeError as error:
            said.append(str(error))

    with mh.trace({"x": x}) as outer:
        x.sin().sum().backward()
        with pytest.raises(RuntimeError, match="one at a time"), mh.trace({"x": x}):
            pass
        with pytest.raises(RuntimeError, match="one at a time"), outer:
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        x.cos().sum().backward()
    assert "one at a time" in said[0]
    assert outer.graph.backward_calls == 2
    with mh.trace({"x": x}) as following:
        x.sin().sum().backward()
    assert len(following.graph.nodes) == 3


def test_a_recording_that_has_ended_is_not_begun_again():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        x.sum().backward()
    with pytest.raises(RuntimeError, match="this recording has ended"), tape:
        pass
    assert tape.graph.nodes
    with mh.trace({"x": x}):
        pass


@pytest.mark.parametrize("model", [None, 3, [torch.ones(1)], torch.ones(1)])
def test_what_is_neither_a_model_nor_a_dict_is_refused(model):
    with pytest.raises(TypeError, match=f"got {type(model).__name__}"):
        mh.trace(model)


def test_a_dict_of_other_things_is_refused_with_the_name():
    with pytest.raises(TypeError, match="'rate' is a float"):
        mh.trace({"w": leaf(2), "rate": 0.1})


# ------------------------------------------------------------------------------------ saved bytes


class Count:
    """The test's own count of what autograd keeps, by memory, model's own memory apart."""

    def __init__(self, model: nn.Module):
        self.own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
        self.kept: list[torch.Tensor] = []

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        self.kept.append(tensor.detach())
        return tensor

    def bytes(self) -> tuple[int, int]:
        memory = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self.kept}
        ours = sum(size for at, size in memory.items() if at not in self.own)
        return ours, sum(memory.values()) - ours


@pytest.mark.parametrize(("name", "adapters", "training"), WAYS[:2])
def test_the_saved_bytes_of_a_model_are_those_of_an_independent_count(name, adapters, training):
    clip = fresh(name)
    model = mh.inject_lora(clip.model, rank=2) if adapters else clip.model
    if training:
        model.train()
    mine = Count(model)
    with saved_tensors_hooks(mine.pack, lambda tensor: tensor):
        loss = clip_step(clip)
    with mh.trace(model) as tape:
        clip_step(clip).backward()
    del loss
    saved = tape.graph.saved
    assert (saved.total, saved.of_the_model) == mine.bytes()
    assert saved.total > 100_000
    for level in ("towers", "blocks", "modules"):
        assert sum(saved.by(level).values()) == saved.total


def test_two_views_of_one_memory_count_once_and_a_parameter_apart():
    model = nn.Linear(10, 10, bias=False)
    x = torch.ones(10, 10)
    with mh.trace(model) as tape:
        h = model(x)  # keeps x
        (h[:5] * h[5:]).sum().backward()  # keeps two halves of h, and not the weight
    assert tape.graph.saved.modules == {"": 2 * 400}
    assert tape.graph.saved.of_the_model == 0
    with mh.trace(model) as tape:
        model(model(x)).sum().backward()
    assert tape.graph.saved.of_the_model == 400


def test_the_bytes_belong_to_the_module_that_kept_them_first():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Tanh())
    with mh.trace(model) as tape:
        (model(torch.ones(2, 4)).square()).sum().backward()
    # The first layer keeps its input, the others their results; the last one's is squared, too.
    assert tape.graph.saved.modules == {"0": 32, "1": 32, "2": 32}


def test_a_branch_that_was_dropped_before_the_backward_pass_is_not_counted():
    x = leaf(100, dtype=torch.float32)
    with mh.trace({"x": x}) as tape:
        dropped = (x * 1).exp().exp()
        kept = x.exp()
        del dropped
        kept.sum().backward()
    assert tape.graph.saved.total == 400
    with mh.trace({"x": x}) as tape:
        not_dropped = (x * 1).exp().exp()
        x.exp().sum().backward()
    assert tape.graph.saved.total == 3 * 400
    del not_dropped


# ---------------------------------------------------------------------------------------- no leak


def traces_of_hooks(model: nn.Module) -> tuple:
    own = [
        len(hooks)
        for m in model.modules()
        for name, hooks in vars(m).items()
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called"))
    ]
    of_all = [
        len(hooks)
        for name, hooks in vars(hooks_of_all_modules).items()
        if name.startswith("_global_") and isinstance(hooks, dict)
    ]
    assert len(of_all) >= 5 and len(own) >= 5
    return sum(own), sum(of_all), torch.autograd.backward


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def once(model: nn.Module, how: str) -> None:
    x = torch.ones(2, 4)
    if how == "fails in forward":
        with pytest.raises(RuntimeError), mh.trace(model):
            model(torch.ones(2, 5)).sum().backward()
    elif how == "fails in backward":
        with pytest.raises(ZeroDivisionError), mh.trace(model):
            y = model(x)
            y.register_hook(lambda gradient: _raise("no"))
            (y * 2).sum().backward()
    elif how == "no backward":
        with mh.trace(model):
            model(x)
    else:
        with mh.trace(model) as tape:
            loss = model(x).square().sum()
            loss.backward(retain_graph=how == "graph retained")
        assert len(tape.graph.nodes) > 5
        tape.graph.collapse("modules")
    model.zero_grad()


ENDS = ["as it should", "graph retained", "no backward", "fails in forward", "fails in backward"]


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_hundred_recordings_however_they_end_leave_nothing_behind(checkpoints):
    model = Checkpointed(checkpoints)
    original = torch.autograd.backward
    for how in ENDS:
        once(model, how)
    hooks, tensors = traces_of_hooks(model), live_tensors()
    for how in ENDS:
        for _ in range(20):
            once(model, how)
            assert torch.autograd.backward is original
    assert live_tensors() == tensors
    assert traces_of_hooks(model) == hooks == (0, 0, original)


@pytest.mark.parametrize("fails", [False, True])
def test_after_the_block_tensors_go_without_waiting_for_the_garbage_collector(fails):
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2))
    gc.collect()
    gc.disable()
    try:
        tape = mh.trace(model)
        try:
            with tape:
                h = model[1](model[0](torch.ones(2, 4)))
                loss = model[2](h).sum()
                if fails:
                    loss.register_hook(lambda gradient: _raise("no"))
                loss.backward(retain_graph=True)
        except ZeroDivisionError:
            pass
        ends = [weakref.ref(h), weakref.ref(loss)]
        del h, loss
        assert [end() for end in ends] == [None] * 2
        assert tape.graph.nodes
    finally:
        gc.enable()


def test_a_graph_holds_no_tensor_no_module_and_no_function_and_can_be_written_down():
    model = Checkpointed(True)
    optimizer = torch.optim.SGD(model.parameters())
    with mh.trace(model, optimizer) as tape:
        step(model, torch.ones(2, 4))
    graph = tape.graph
    graph.path("stem.weight"), graph.collapse(), graph.norms(), graph.order
    seen, waiting = set(), [graph, tape]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        assert not isinstance(thing, torch.Tensor | nn.Module | torch.optim.Optimizer), thing
        assert not isinstance(thing, torch.autograd.graph.Node)
        if not callable(thing) or thing is graph or thing is tape:
            waiting += gc.get_referents(thing)
    again = pickle.loads(pickle.dumps(graph))
    assert again.nodes == graph.nodes and again.gradients == graph.gradients
    assert repr(again.collapse("modules")) == repr(graph.collapse("modules"))


def test_a_retained_graph_goes_on_without_us(monkeypatch):
    called = []

    class Noted(kept.SavedTensor):
        def __init__(self, *args):
            called.append("kept")
            super().__init__(*args)

    norm_of = backward.norm
    monkeypatch.setattr(backward, "norm", lambda t: called.append("node") or norm_of(t))
    monkeypatch.setattr(kept, "SavedTensor", Noted)
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        loss = x.exp().sin().sum()
        loss.backward(retain_graph=True)
    wanted, x.grad = x.grad, None
    assert {*called} == {"node", "kept"}
    called.clear()
    nodes = tape.graph.nodes
    loss.backward(retain_graph=True)
    assert torch.equal(x.grad, wanted)
    assert torch.equal(torch.autograd.grad(loss, x)[0], wanted)
    x.exp().sin().sum().backward()
    assert called == []
    assert tape.graph.nodes == nodes


def test_after_the_block_a_tensor_changed_in_place_is_still_refused():
    x = leaf(3)
    with mh.trace({"x": x}):
        y = x.exp()
        y.sum().backward(retain_graph=True)
    y.detach().add_(1)
    with pytest.raises(RuntimeError, match=CHANGED):
        y.sum().backward()


def test_who_keeps_our_backward_for_longer_than_the_block_gets_pytorchs(monkeypatch):
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        ours = torch.autograd.backward
        x.sin().sum().backward()
    x.grad = None
    monkeypatch.setattr(backward, "norm", None)  # a hook of ours would fail
    ours((x * 2).sum())
    assert torch.equal(x.grad, torch.full((3,), 2.0, dtype=torch.float64))
    assert tape.graph.backward_calls == 1


def test_the_blocks_error_is_not_hidden_by_one_of_the_recording(monkeypatch):
    def broken(visits):
        raise RuntimeError("the device is lost")

    monkeypatch.setattr(build, "fetch", broken)
    x = leaf(3)
    original = torch.autograd.backward
    with pytest.raises(ZeroDivisionError), mh.trace({"x": x}) as tape:
        x.sum().backward()
        _raise("first")
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError: first.*the device is lost"):
        _ = tape.graph
    with pytest.raises(RuntimeError, match="the device is lost"), mh.trace({"x": x}):
        x.sum().backward()
    assert torch.autograd.backward is original
    monkeypatch.undo()
    with mh.trace({"x": x}) as tape:
        x.sum().backward()
    assert tape.graph.nodes


def test_a_recording_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        once(Checkpointed(False), "as it should")
        once(Checkpointed(True), "as it should")


# ------------------------------------------------------------------------ why a gradient is missing


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(2, 2)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.cut = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        self.silent = nn.Linear(2, 2)
        self.inside = Detaches()
        self.ignored = nn.Parameter(torch.ones(2))

    def forward(self, x):
        with torch.no_grad():
            x = x + self.silent(x)
        x = x + self.cut(x).detach() + self.inside(x)
        return self.used(self.frozen(x))


class Detaches(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return (x * self.weight).detach()


def test_every_reason_for_a_missing_gradient_is_told_from_the_others():
    model = Both()
    with mh.trace(model) as tape:
        model(torch.ones(1, 2)).sum().backward()
    found = {g.name: (g.verdict, g.why) for g in tape.graph.gradients}
    assert found["used.weight"] == (Verdict.REACHED, "")
    assert found["unused.weight"] == (Verdict.NOT_REACHED, "its module was never called")
    assert found["frozen.weight"] == ("frozen", "requires_grad is False")
    cut = "cut off: what cut returned was detached, or is not used"
    assert found["cut.0.weight"] == (Verdict.NOT_REACHED, cut)
    assert found["silent.bias"] == (Verdict.NOT_REACHED, "silent ran under no_grad")
    detached = "what inside returned needs no gradient: it was detached inside"
    assert found["inside.weight"] == (Verdict.NOT_REACHED, detached)
    assert found["ignored"] == (Verdict.NOT_REACHED, "nothing in the graph was computed from it")
    for name, (verdict, why) in found.items():
        if verdict != "reached":
            with pytest.raises(ValueError, match=re.escape(why)):
                tape.graph.leaf(name)


def test_exactly_zero_has_its_reason_too():
    layer = nn.Linear(3, 3)
    model = get_peft_model(nn.Sequential(layer), LoraConfig(r=2, target_modules=["0"]))
    with mh.trace(model) as tape:
        model(torch.ones(1, 3)).sum().backward()
    a, b = tape.graph.gradients.adapters["0"].values()
    assert (a.verdict, a.why) == (
        Verdict.ZERO,
        "B is all zeros, and MmBackward0 multiplies by it",
    )
    assert (b.verdict, b.why) == (Verdict.REACHED, "")


def test_a_bias_of_zeros_is_not_to_blame():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU())
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    with mh.trace(model) as tape:
        (model(torch.ones(1, 3)) + 1).sum().backward()
    [weight] = [g for g in tape.graph.gradients if g.name == "0.weight"]
    assert weight.why == "ReluBackward0 in 2 made it zero"
    nn.init.ones_(model[1].bias)
    with mh.trace(model) as tape:
        (model(torch.ones(1, 3)) + 1).sum().backward()
    [weight] = [g for g in tape.graph.gradients if g.name == "0.weight"]
    assert weight.why == "1.weight is all zeros, and AddmmBackward0 multiplies by it"


def test_a_bias_of_zeros_beside_what_made_it_zero_is_not_named():
    class Stops(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return x * 0 + self.bias

    model = nn.Sequential(nn.Linear(3, 3), Stops())
    with mh.trace(model) as tape:
        model(torch.ones(1, 3)).sum().backward()
    assert tape.graph.gradients[0].why == "MulBackward0 in 1 made it zero"


def test_an_operation_that_made_it_zero_is_named():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    nn.init.constant_(model[0].bias, -100)
    with mh.trace(model) as tape:
        model(torch.ones(1, 3)).sum().backward()
    assert {g.why for g in tape.graph.gradients} == {"ReluBackward0 in 1 made it zero"}
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        (x * 1).backward(torch.zeros(3))
    assert tape.graph.gradients[0].why == "it was zero from the loss on"


def test_tensors_of_a_dict_are_not_said_to_be_modules():
    used, unused = leaf(2), leaf(2, seed=1)
    with mh.trace({"layer.A": used, "B": unused}) as tape:
        used.sum().backward()
    a, b = tape.graph.gradients
    assert (a.name, a.layer, a.part, a.verdict) == ("layer.A", "layer", "A", Verdict.REACHED)
    assert (b.name, b.why) == ("B", "nothing in the graph was computed from it")
    assert tape.graph.leaf("A").parameters == ("layer.A",)
    assert tape.graph.gradients.adapters == {}, "an A and a B make no adapter"


def test_what_the_optimizer_was_not_given_is_forgotten():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].bias.requires_grad_(False)
    optimizer = torch.optim.SGD(
        [{"params": [model[0].weight]}, {"params": [model[1].bias], "lr": 1.0}], lr=0.1
    )
    with mh.trace(model, optimizer) as tape:
        model(torch.ones(1, 2)).sum().backward()
    assert tape.graph.gradients.forgotten == ("1.weight",)
    assert [g.in_optimizer for g in tape.graph.gradients] == [True, False, False, True]
    assert "the optimizer was not given it" in repr(tape.graph.gradients)
    with mh.trace(model) as tape:
        model(torch.ones(1, 2)).sum().backward()
    assert tape.graph.gradients.forgotten == ()
    assert {g.in_optimizer for g in tape.graph.gradients} == {None}
