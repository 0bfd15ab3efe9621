"""Graphs to ask questions of: made by hand, at random, and recorded from nano."""

from __future__ import annotations

import functools
import random

import pytest
import torch
from conftest import fresh
from hypothesis import strategies as st
from recorded_steps import clip_loss
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import LEAF, Call, Gradients, Graph, Node, Saved, Visit


def roughly(number: float):
    return pytest.approx(number, rel=1e-4, abs=1e-30)


# ------------------------------------------------------------------------------------- made by hand


def visit(order: int, incoming: float | None) -> tuple[Visit, ...]:
    """The visits of a node that ran once and received one gradient of this norm."""
    return (Visit(order, (incoming,), (None if incoming is None else (2, 3),)),)


def graph_of(*nodes: Node, calls: tuple[Call, ...] = ()) -> Graph:
    """A graph of these nodes, whose backward pass began at the first."""
    return Graph(
        nodes=nodes,
        roots=(0,),
        calls=calls,
        gradients=_gradients(nodes),
        saved=Saved({}),
        backward_calls=1,
    )


# ---------------------------------------------------------------------------------------- at random

PLACES = [
    None,
    "",
    "visual.trunk.stem.0",
    "visual.trunk.stages.0.blocks.0.mlp.fc1",
    "visual.trunk.stages.0.blocks.0.mlp",
    "visual.trunk.stages.0.blocks.1",
    "text.transformer.resblocks.0.attn.q",
    "text.transformer.resblocks.0.attn.q.lora_A.default",
    "text.transformer.resblocks.0",
]
NAMES = [
    "visual.trunk.stem.0.weight",
    "visual.trunk.stages.0.blocks.0.mlp.fc1.weight",
    "text.transformer.resblocks.0.attn.q.lora_A.default.weight",
    "text.transformer.resblocks.0.attn.q.lora_B.default.weight",
    "logit_scale",
]


@st.composite
def random_graphs(draw) -> Graph:
    """Operations that hand on to earlier ones and to leaves; some ran, some didn't."""
    size, ends = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    rng = random.Random(draw(st.integers(0, 2**32)))
    nodes, order = [], list(range(1, size + ends + 1))
    rng.shuffle(order)
    for i in range(size + ends):
        visits = ()
        if rng.random() < 0.8:
            incoming = tuple(
                rng.choice([None, 0.0, rng.random()]) for _ in range(rng.choice([1, 2]))
            )
            shapes = tuple(None if n is None else (2, 3) for n in incoming)
            visits = (Visit(order[i], incoming, shapes, (), ()),)
        if i >= size:
            names = () if i - size >= len(NAMES) else (NAMES[i - size],)
            nodes.append(Node(i, LEAF, None, 1, (), names, visits))
            continue
        behind = [None, *range(i), *range(size, size + ends)]
        following = tuple(rng.choice(behind) for _ in range(rng.choice([0, 1, 2, 3])))
        place = rng.choice(PLACES)
        nodes.append(Node(i, "XBackward0", place, rng.choice([1, 1, 2]), following, (), visits))
    return Graph(
        nodes=tuple(nodes),
        roots=tuple({size - 1, rng.randrange(size)}),
        calls=tuple(call_of(place) for place in PLACES if place),
        gradients=_gradients(nodes),
        saved=Saved({}),
        backward_calls=1,
    )


def call_of(module: str, **others) -> Call:
    """A call of a module that made no node itself, and whose result needs a gradient."""
    values = {
        "call": 1,
        "nodes": (),
        "weights": 5,
        "recorded": True,
        "needs_gradient": True,
        "lost": False,
        "inside": None,
    }
    return Call(module=module, **(values | others))


def _gradients(nodes) -> Gradients:
    model = nn.Module()
    for node in nodes:
        for name in node.parameters:
            module = model
            *path, last = name.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_parameter(last, nn.Parameter(torch.zeros(1)))
    return mh.gradients(model)


# ------------------------------------------------------------------------------ recorded from nano


class Recorded:
    """A step of nano, its graph, and the results of its modules, from hooks of the test's own."""

    def __init__(self, targets: str | None, no_text: bool = False):
        self.clip = fresh("nano")
        model = self.clip.model
        self.model = mh.inject_lora(model, rank=2, targets=targets) if targets else model
        self.results: dict[str, list[torch.Tensor]] = {}
        self.names = {m: n for n, m in self.model.named_modules()}
        handles = [m.register_forward_hook(self.note) for m in self.model.modules()]
        if no_text:
            plain = model.encode_text
            model.encode_text = torch.no_grad()(lambda *a, **k: plain(*a, **k))
        with mh.trace(self.model) as tape:
            self.loss = clip_loss(self.clip)
            self.loss.backward(retain_graph=True)
        for handle in handles:
            handle.remove()
        self.graph = tape.graph

    def note(self, module, inputs, output) -> None:
        if isinstance(output, torch.Tensor):
            if output.requires_grad and not output.is_leaf:
                output.retain_grad()
            self.results.setdefault(self.names[module], []).append(output)


@functools.cache
def recorded(how: str) -> Recorded:
    return {
        "adapters": lambda: Recorded("default"),
        "all layers": lambda: Recorded("all"),
        "everything": lambda: Recorded(None),
        "image only": lambda: Recorded("default", no_text=True),
    }[how]()


HOW = ("adapters", "all layers", "everything", "image only")
