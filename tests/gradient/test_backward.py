"""The backward pass: the order of the nodes, and the gradients that go in and out."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from programs import programs, run, some_leaves
from recording import LEAF, about, by_operation, fail, leaf, match_nodes, nodes_behind, norm
from torch import nn
from torch.autograd.graph import GradientEdge
from torch.utils.checkpoint import checkpoint

import mclip_helpers as mh
from mclip_helpers.gradient import Verdict

# ---------------------------------------------------------------------------------- random programs


@settings(deadline=None)
@given(program=programs())
def test_each_node_of_a_random_program_has_the_gradient_that_autograd_grad_gives(program):
    leaves = some_leaves()
    with mh.trace(leaves) as tape:
        loss = run(program, [*leaves.values()])
        loss.backward(retain_graph=True)
    of = match_nodes(tape.graph, loss.grad_fn)
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
def test_the_leaves_of_a_random_program_have_the_norms_of_their_gradients(program):
    leaves = some_leaves()
    with mh.trace(leaves) as tape:
        run(program, [*leaves.values()]).backward()
    for name, tensor in leaves.items():
        [gradient] = [g for g in tape.graph.gradients if g.name == name]
        if tensor.grad is None:
            assert (gradient.verdict, name in tape.graph.leaves) == (Verdict.NOT_REACHED, False)
        elif len(tape.graph.leaf(name).visits) == 1:
            assert gradient.norm == about(norm(tensor.grad))
            assert gradient.verdict == (Verdict.REACHED if tensor.grad.any() else Verdict.ZERO)


@settings(deadline=None, max_examples=30)
@given(program=programs(without=("chosen", "detached", "from zero")))
def test_the_norms_of_a_random_program_are_those_of_finite_differences(program):
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
def test_the_order_of_a_random_program_is_that_of_the_tests_own_hooks(program):
    leaves = some_leaves()
    order, outgoing = [], {}
    with mh.trace(leaves) as tape:
        loss = run(program, [*leaves.values()])
        for node in nodes_behind(loss.grad_fn):
            node.register_prehook(lambda _, node=node: order.append(node))
            node.register_hook(lambda out, _, node=node: outgoing.setdefault(node, out) and None)
        loss.backward()
    of = match_nodes(tape.graph, loss.grad_fn)
    mine = sorted((n for n in of.values() if n.visits), key=lambda n: n.order)
    assert [of[node].index for node in order] == [n.index for n in mine]
    # A checkpoint's nodes, which are not behind the loss, ran in between.
    assert [n.order for n in tape.graph.order] == list(range(1, len(tape.graph.order) + 1))
    for a, b in tape.graph.edges:
        first, second = tape.graph.nodes[a], tape.graph.nodes[b]
        if first.visits and second.visits:
            assert first.order < second.order
    for node, out in outgoing.items():
        wanted = [None if t is None else about(norm(t)) for t in out]
        assert list(of[node].visits[0].outgoing) == wanted
        shapes = tuple(None if t is None else tuple(t.shape) for t in out)
        assert of[node].visits[0].outgoing_shapes == shapes


# ----------------------------------------------------------------------------- what goes in and out


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


def test_an_unused_result_of_several_has_no_gradient():
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
    of = match_nodes(tape.graph, y.grad_fn, z.grad_fn)
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


def test_a_custom_function_is_a_node_like_any_other_even_after_its_graph_is_gone():
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


# ------------------------------------------------------------------------- norms that are passed on

SAME_NUMBERS = {
    "nothing": lambda h: h,
    "added to": lambda h: h + 1,
    "added": lambda h: h + torch.ones(2, 3) + h.detach(),
    "cloned": lambda h: h.clone(),
    "transposed": lambda h: h.T,
    "transposed and copied": lambda h: h.T.contiguous(),
    "permuted": lambda h: h[None].permute(2, 0, 1),
    "in another shape": lambda h: h.view(3, 2).reshape(6),
    "flattened": lambda h: h.T.flatten(),
    "with one more axis": lambda h: h.unsqueeze(1).squeeze(1)[None],
    "expanded to its own shape": lambda h: h.expand(2, 3),
    "summed over one": lambda h: h[:, None].sum(1),
}
OTHER_NUMBERS = {
    "a part": lambda h: h[:1],
    "a column": lambda h: h[:, 1],
    "taken apart and put together": lambda h: torch.cat(h.chunk(3, 1)[::-1]),
    "expanded": lambda h: h[None].expand(4, 2, 3),
    "repeated": lambda h: h.repeat(2, 1),
    "turned round": lambda h: h.flip(0),
    "negative": lambda h: -h,
    "in overlapping windows": lambda h: h.unfold(1, 2, 1),
    "strided": lambda h: h.as_strided((2, 3), (1, 1)),
    "added to twice": lambda h: h + h,
    "subtracted": lambda h: torch.ones(2, 3) - h,
}


@pytest.mark.parametrize("name", SAME_NUMBERS | OTHER_NUMBERS)
def test_the_norm_of_a_view_of_the_gradient_is_that_of_its_numbers(name: str):
    """Where a node hands on the numbers that came in, their norm is not measured again."""
    x, measured = leaf(2, 3), {}

    def measure(node, outgoing, incoming) -> None:
        measured[node] = [[t if t is None else norm(t) for t in ts] for ts in (incoming, outgoing)]

    with mh.trace({"x": x}) as tape:
        result = (SAME_NUMBERS | OTHER_NUMBERS)[name](x.sin())
        loss = (result * leaf(*result.shape, seed=1).detach()).sum()
        for node in nodes_behind(loss.grad_fn):
            node.register_hook(lambda *ts, node=node: measure(node, *ts))
        loss.backward()
    for node, recorded in match_nodes(tape.graph, loss.grad_fn).items():
        incoming, outgoing = measured[node]
        visit = recorded.visits[0]
        assert visit.incoming == tuple(n if n is None else about(n) for n in incoming)
        assert visit.outgoing == tuple(n if n is None else about(n) for n in outgoing)
    assert tape.graph.leaf("x").norm_in == about(norm(x.grad))


class TenTimesInPlace(torch.autograd.Function):
    """Its backward does what PyTorch advises against: it changes the gradient that came in."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.mul_(10)


class FirstColumn(torch.autograd.Function):
    """Its backward returns a view that begins where the gradient does, and has other numbers."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient[:, :1].expand_as(gradient)


@pytest.mark.parametrize("function", [TenTimesInPlace, FirstColumn])
def test_a_custom_function_that_reuses_the_memory_of_its_gradient_has_two_norms(function):
    x = leaf(2, 3)
    gradient = leaf(2, 3, seed=1).detach()
    given = norm(gradient)
    with mh.trace({"x": x}) as tape:
        function.apply(x * 1).backward(gradient)
    node = by_operation(tape.graph, function.__name__)
    assert node.norm_in == about(given)
    assert node.norm_out == by_operation(tape.graph, "Mul").norm_in == about(norm(x.grad))
    assert node.norm_out != about(given)


# -------------------------------------------------------------------------------------------- roots


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


# --------------------------------------------------------- options of backward, and several of them


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


def test_what_autograd_grad_does_is_not_recorded():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        loss = (x * 2).sum()
        torch.autograd.grad(loss, x, retain_graph=True)
        loss.backward(retain_graph=True)
        torch.autograd.grad(loss, x)
    assert all(len(node.visits) == 1 for node in tape.graph.nodes)
    assert tape.graph.backward_calls == 1


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


def test_an_error_of_backward_that_the_block_catches_shows_where_the_pass_broke_off():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        middle = x.sin()
        middle.register_hook(lambda gradient: fail("enough"))
        with pytest.raises(ZeroDivisionError):
            middle.exp().sum().backward()
        (x * 2).sum().backward()
    assert tape.graph.error is None
    assert tape.graph.backward_calls == 2
    assert by_operation(tape.graph, "Exp").norm_out is not None, "the hook came after it"
    assert by_operation(tape.graph, "Sin").visits == ()
    assert tape.graph.leaf("x").norm_in == about(2 * math.sqrt(3))
