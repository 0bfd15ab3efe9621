"""The `with` block: it changes nothing, leaves nothing behind, and passes errors on."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import warnings
import weakref
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest
import torch
from conftest import fresh
from hypothesis import given, settings
from programs import programs, run, some_leaves
from recorded_steps import clip_loss
from recording import (
    LEAF,
    Checkpointed,
    assert_same_bits,
    equal_with_and_without_trace,
    fail,
    gradients_of,
    leaf,
    match_nodes,
    nodes_behind,
    norm,
    step,
)
from torch import nn
from torch.nn.modules import module as hooks_of_all_modules
from torch.utils.checkpoint import checkpoint

import mclip_helpers as mh
from mclip_helpers.gradient import Verdict, backward, build, kept

RECORDER = Path(kept.__file__).parent


@settings(deadline=None)
@given(program=programs())
def test_no_gradient_of_a_random_program_changes_by_a_bit(program):
    plain, traced = some_leaves(torch.float32), some_leaves(torch.float32)
    run(program, [*plain.values()]).backward()
    with mh.trace(traced):
        run(program, [*traced.values()]).backward()
    assert_same_bits({n: t.grad for n, t in plain.items()}, {n: t.grad for n, t in traced.items()})


@contextmanager
def made_by(model: nn.Module):
    """PyTorch's nodes, each with the name of its module, for modules without children.

    Known without counting: they stand between the results and the inputs of the module.
    """
    names = {m: n for n, m in model.named_modules() if not any(True for _ in m.children())}
    names_of = {}

    def note(module, inputs, output):
        if isinstance(output, torch.Tensor) and output.grad_fn is not None:
            ends = {t.grad_fn for t in inputs if isinstance(t, torch.Tensor)}
            waiting = [output.grad_fn]
            while waiting:
                node = waiting.pop()
                if node is None or node in ends or node.name().endswith(LEAF):
                    continue
                names_of[node] = names[module]
                waiting += [behind for behind, _ in node.next_functions]

    handles = [module.register_forward_hook(note) for module in names]
    yield names_of
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    ("name", "adapters", "training"),
    [("nano", True, False), ("nano", False, True), ("MobileCLIP2-S0", True, False)],
)
def test_a_whole_model_keeps_its_bits_and_its_nodes_have_their_names(name, adapters, training):
    clip = fresh(name)
    model = mh.inject_lora(clip.model, rank=2) if adapters else clip.model
    if training:
        model.train()
    start = copy.deepcopy(model.state_dict())
    clip_loss(clip).backward()
    wanted, buffers = gradients_of(model), copy.deepcopy(dict(model.named_buffers()))
    model.load_state_dict(start)
    model.zero_grad()
    order = []
    with mh.trace(model) as tape, made_by(model) as known:
        loss = clip_loss(clip)
        for node in nodes_behind(loss.grad_fn):
            node.register_prehook(lambda _, node=node: order.append(node))
        loss.backward()
    assert_same_bits(gradients_of(model), wanted)
    assert_same_bits(dict(model.named_buffers()), buffers)

    graph = tape.graph
    of = match_nodes(graph, loss.grad_fn)
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


def test_beside_hooks_of_the_users_own_nothing_changes():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].register_forward_hook(lambda module, inputs, output: output * 3)
    seen = []
    model[1].register_full_backward_hook(lambda *_: seen.append(1))
    graph = equal_with_and_without_trace(model, torch.randn(3, 2))
    assert seen == [1, 1], "once without and once with the recording"
    assert [n.module for n in graph.nodes if n.operation == "AddmmBackward0"] == ["0", "1"]


def test_a_recording_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        once(Checkpointed(False), "as it should")
        once(Checkpointed(True), "as it should")


# ------------------------------------------------------------------------------------------- labels


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


# ------------------------------------------------------------------------------ errors in the block


def test_a_hook_that_raises_leaves_the_error_and_half_a_graph():
    x = leaf(3)
    tape = mh.trace({"x": x})
    with pytest.raises(ZeroDivisionError, match="enough"), tape:
        middle = x.sin()
        loss = middle.exp().sum()
        middle.grad_fn.register_hook(lambda *_: fail("enough"))
        loss.backward()
    graph = tape.graph
    assert graph.error == "ZeroDivisionError: enough"
    assert [n.operation for n in graph.order] == ["SumBackward0", "ExpBackward0", "SinBackward0"]
    assert [n.visits[0].outgoing is None for n in graph.order] == [False, False, True]
    assert graph.leaf("x").visits == ()
    assert graph.gradients[0].verdict == Verdict.NOT_REACHED
    assert "broke off: ZeroDivisionError: enough" in repr(graph)


def test_an_error_after_the_backward_pass_leaves_the_whole_graph():
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


def test_an_error_of_the_recording_does_not_hide_the_blocks_own(monkeypatch):
    def broken(visits):
        raise RuntimeError("the device is lost")

    monkeypatch.setattr(build, "fetch", broken)
    x = leaf(3)
    original = torch.autograd.backward
    with pytest.raises(ZeroDivisionError), mh.trace({"x": x}) as tape:
        x.sum().backward()
        fail("first")
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError: first.*the device is lost"):
        _ = tape.graph
    with pytest.raises(RuntimeError, match="the device is lost"), mh.trace({"x": x}):
        x.sum().backward()
    assert torch.autograd.backward is original
    monkeypatch.undo()
    with mh.trace({"x": x}) as tape:
        x.sum().backward()
    assert tape.graph.nodes


# ---------------------------------------------------------------------------------- what is refused


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


def test_no_backward_pass_is_an_error_that_says_so():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        torch.autograd.grad(x.sum(), x)
    with pytest.raises(RuntimeError, match=r"call loss\.backward\(\) in it"):
        _ = tape.graph
    with pytest.raises(ZeroDivisionError), mh.trace({"x": x}) as tape:
        fail("early")
    with pytest.raises(RuntimeError, match=r"broke off before .* ZeroDivisionError: early"):
        _ = tape.graph


def test_a_reentrant_checkpoint_is_refused_with_what_to_do():
    layer = nn.Linear(3, 3)
    with mh.trace(nn.ModuleDict({"layer": layer})):
        x = checkpoint(layer, leaf(2, 3, dtype=torch.float32), use_reentrant=True)
        with pytest.raises(RuntimeError, match="Use use_reentrant=False"):
            x.sum().backward()
    x = checkpoint(layer, leaf(2, 3, dtype=torch.float32), use_reentrant=True)
    x.sum().backward()  # without a recorder it goes on working
    assert layer.weight.grad is not None


def test_only_one_recording_runs_at_a_time():
    x = leaf(3)
    messages = []

    def other() -> None:
        try:
            with mh.trace({"x": x}):
                messages.append("it began")
        except RuntimeError as error:
            messages.append(str(error))

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
    assert "one at a time" in messages[0]
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


def test_a_dict_of_something_else_is_refused_with_the_name():
    with pytest.raises(TypeError, match="'rate' is a float"):
        mh.trace({"w": leaf(2), "rate": 0.1})


# ---------------------------------------------------------------------------------- interrupted


class Lines:
    """Watches the recorder's lines as they run, and raises KeyboardInterrupt at one of them."""

    def __init__(self, stop: tuple[str, int] | None = None, after: int = 0):
        self.seen: Counter[tuple[str, int]] = Counter()
        self.stop, self.after = stop, after

    def __enter__(self) -> Lines:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _enter(self, frame: FrameType, *_: object):
        code = frame.f_code
        ours = Path(code.co_filename).parent == RECORDER and code.co_name != "<module>"
        # In front of the only line of `__exit__`, nothing can be done yet.
        return self._line if ours and code is not mh.trace.__exit__.__code__ else None

    def _line(self, frame: FrameType, event: str, _: object):
        place = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line":
            self.seen[place] += 1
            if place == self.stop and self.seen[place] > self.after:
                self.stop = None
                raise KeyboardInterrupt
        return self._line


def test_ctrl_c_at_any_line_of_the_recorder_leaves_nothing_behind():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2))
    inputs = torch.ones(2, 4)

    def record() -> None:
        with mh.trace(model):
            model(inputs).square().sum().backward()

    record()
    with Lines() as lines:
        record()
    assert len(lines.seen) > 200
    before = hooks_left(model), live_tensors()
    for place, times in lines.seen.items():
        for after in {0, times - 1}:
            with suppress(KeyboardInterrupt), Lines(place, after) as interrupted:
                record()
            assert interrupted.stop is None, "nothing was interrupted"
            assert hooks_left(model) == before[0], place
            assert not mh.trace._running, place
            assert nn.Linear(1, 1)(torch.ones(1, 1)).grad_fn._saved_mat1 is not None
    model.zero_grad()
    record()
    assert live_tensors() == before[1]


# ------------------------------------------------------------------------------------------ no leak


def hooks_left(model: nn.Module) -> tuple:
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
            y.register_hook(lambda gradient: fail("no"))
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
    hooks, tensors = hooks_left(model), live_tensors()
    for how in ENDS:
        for _ in range(20):
            once(model, how)
            assert torch.autograd.backward is original
    assert live_tensors() == tensors
    assert hooks_left(model) == hooks == (0, 0, original)


@pytest.mark.parametrize("fails", [False, True])
def test_after_the_block_tensors_are_freed_without_the_garbage_collector(fails):
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
                    loss.register_hook(lambda gradient: fail("no"))
                loss.backward(retain_graph=True)
        except ZeroDivisionError:
            pass
        ends = [weakref.ref(h), weakref.ref(loss)]
        del h, loss
        assert [end() for end in ends] == [None] * 2
        assert tape.graph.nodes
    finally:
        gc.enable()


def test_a_graph_holds_no_tensor_no_module_and_no_function_and_can_be_pickled():
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


def test_our_backward_kept_for_longer_than_the_block_is_pytorchs(monkeypatch):
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        ours = torch.autograd.backward
        x.sin().sum().backward()
    x.grad = None
    monkeypatch.setattr(backward, "norm", None)  # a hook of ours would fail
    ours((x * 2).sum())
    assert torch.equal(x.grad, torch.full((3,), 2.0, dtype=torch.float64))
    assert tape.graph.backward_calls == 1
