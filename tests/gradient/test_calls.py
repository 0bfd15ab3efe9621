"""The forward pass: which call of a module made which node."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import torch
from peft import LoraConfig, get_peft_model
from recording import Checkpointed, equal_with_and_without_trace, linear, made, norm
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import mclip_helpers as mh
from mclip_helpers.gradient import Graph
from mclip_helpers.gradient.calls import CallLog


@contextmanager
def listening(model: nn.Module):
    """The log of a model's calls, alone."""
    log = CallLog({module: name for name, module in model.named_modules()})
    with ExitStack() as stack:
        log.listen(stack)
        yield log


def maker(log: CallLog, result: torch.Tensor) -> str | None:
    """The module in whose call the node of a result was made."""
    call = log.made_by(result.grad_fn._sequence_nr())
    return None if call is None else log.calls[call].module


def test_a_number_belongs_to_the_call_that_was_running_then():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    early = torch.ones(1, 2, requires_grad=True) * 2
    with listening(model) as log:
        first = model[0](early)
        between = first.exp()
        second = model[1](between)
        again = model[0](second)
    late = again.sum()
    assert [call.module for call in log.calls] == ["0", "1", "0"]
    results = [early, first, between, second, again, late]
    assert [maker(log, result) for result in results] == [None, "0", None, "1", "0", None]
    numbers = [result.grad_fn._sequence_nr() for result in (first, second, again)]
    assert [log.made_by(number) for number in numbers] == [0, 1, 2]
    for call, number in zip(log.calls, numbers, strict=True):
        assert call.first <= number < call.last


def test_a_call_inside_of_another_has_its_own_numbers():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            self.seen = [x.sin(), self.inner(x), x.cos()]
            return sum(self.seen)

    model = nn.Sequential(Around())
    with listening(model) as log:
        model(torch.ones(1, 2, requires_grad=True))
    assert [(c.module, c.inside) for c in log.calls] == [("", None), ("0", 0), ("0.inner", 1)]
    assert [maker(log, result) for result in model[0].seen] == ["0", "0.inner", "0"]


def test_a_call_knows_whether_gradients_were_on_and_its_result_needs_one():
    class Returns(nn.Module):
        def forward(self, result):
            return result

    model, x = Returns(), torch.ones(2, requires_grad=True)
    with listening(model) as log:
        for result in (x, {"a": [x.detach(), (x,)]}, [x.detach()], "no tensor"):
            model(result)
        with torch.no_grad():
            model(x * 1)
    shown = [(call.recorded, call.needs_gradient) for call in log.calls]
    assert shown == [(True, True), (True, True), (True, False), (True, False), (False, False)]


def test_the_running_module_is_the_innermost():
    model = nn.Sequential(nn.Sequential(nn.Identity()), nn.Identity())
    running = []
    with listening(model) as log:
        for module in model.modules():
            module.register_forward_pre_hook(lambda *_: running.append(log.running))
        assert log.running == ""
        model(torch.ones(1))
        assert log.running == ""
    assert running == ["", "0", "0.0", "1"]


def test_modules_of_others_and_calls_while_paused_are_left_out():
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    with listening(model) as log:
        other(torch.ones(1, 2))
        log.paused = True
        model(torch.ones(1, 2))
        log.paused = False
        assert log.calls == []
        model(torch.ones(1, 2))
    model(torch.ones(1, 2))
    assert len(log.calls) == 1


def test_an_exit_without_an_entry_is_no_call():
    """The log begins to listen while a module is running."""

    class Begins(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            self.log = stack.enter_context(listening(model))
            stack.callback(register_module_forward_hook(lambda m, *_: exits.append(m)).remove)
            return self.inner(x)

    model, exits = Begins(), []
    model.register_forward_hook(lambda *_: None)  # else PyTorch would run no hook when it ends
    with ExitStack() as stack:
        result = model(torch.ones(1, 2)).exp()
    assert exits == [model.inner, model]
    assert [(call.module, call.inside) for call in model.log.calls] == [("inner", None)]
    assert model.log.running == ""
    assert maker(model.log, result) is None


def test_the_calls_that_an_interrupt_left_end_with_the_call_around_them():
    """PyTorch does not call a module's hooks when it is left by a KeyboardInterrupt."""

    class Interrupted(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    class Catches(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(Interrupted())

        def forward(self, x):
            try:
                return self.inner(x)
            except KeyboardInterrupt:
                return x * 2

    model = Catches()
    with listening(model) as log:
        inside = model(torch.ones(1, requires_grad=True))
        outside = inside.exp()
    assert [call.module for call in log.calls] == ["", "inner", "inner.0"]
    assert log.running == ""
    assert maker(log, outside) is None
    assert all(call.last > call.first for call in log.calls)


# ------------------------------------------------------------------------------- in a recording


class Known(nn.Module):
    """A model whose operations can be written down by reading it."""

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


def test_a_module_that_is_called_twice_has_nodes_of_two_calls():
    layer = nn.Linear(3, 3)
    model = nn.ModuleDict({"layer": layer})
    with mh.trace(model) as tape:
        first = layer(torch.randn(2, 3))
        second = layer(first)
        second.sum().backward()
    assert [(n.operation, n.module, n.call) for n in tape.graph.nodes if n.module] == [
        ("TBackward0", "layer", 1),
        ("AddmmBackward0", "layer", 1),
        ("TBackward0", "layer", 2),
        ("AddmmBackward0", "layer", 2),
    ]
    assert [(c.call, len(c.nodes)) for c in tape.graph.calls] == [(1, 2), (2, 2)]
    assert tape.graph.leaf("weight").norm_in == pytest.approx(norm(layer.weight.grad))


def test_under_no_grad_a_module_makes_no_node_and_the_others_keep_theirs():
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


# ---------------------------------------------------------------------------- errors and interrupts


def test_a_module_that_raised_does_not_get_the_nodes_that_follow():
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


def test_after_an_interrupt_that_was_caught_the_names_are_right():
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


# ------------------------------------------------------------------------------------------ threads


def test_a_forward_pass_in_another_thread_is_refused():
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
