"""The recorder: what it refuses, and that it leaves nothing behind, however a recording ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from cases import Case
from conftest import fresh
from torch import nn
from torch.nn.modules import module as hooks_of_all_modules

import mclip_helpers as mh


class Scene:
    """A small model with its input, and what a recording could leave behind."""

    def __init__(self, folder: Path) -> None:
        self.model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2))
        self.input = torch.ones(2, 4)
        self.loss: torch.Tensor | None = None

    def compute(self) -> torch.Tensor:
        return self.model(self.input).square().sum()

    @property
    def left(self) -> tuple:
        """Hooks of the model, of all modules and for saved tensors; `backward`; can one record?"""
        hooks = [
            (name, len(found))
            for thing in (*self.model.modules(), hooks_of_all_modules)
            for name, found in vars(thing).items()
            if "_hooks" in name and isinstance(found, dict) and found
        ]
        saved_tensors_hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
        with mh.trace(self.model):
            pass
        return hooks, saved_tensors_hooks, torch.autograd.backward


def left(scene: Scene) -> tuple:
    return scene.left


# --------------------------------------------------------------------------- however it ends


class Stop(BaseException):
    """An end from outside, as Ctrl-C is."""


def interrupted(error: type[BaseException]) -> dict[str, Callable[[Scene], object]]:
    """The places at which a recording is broken off by this error."""

    def stop(*_: object) -> None:
        raise error("enough")

    def before_anything(scene: Scene) -> None:
        with mh.trace(scene.model):
            stop()

    def in_forward(scene: Scene) -> None:
        handle = scene.model[1].register_forward_hook(stop)
        try:
            with mh.trace(scene.model):
                scene.compute().backward()
        finally:
            handle.remove()

    def between(scene: Scene) -> None:
        with mh.trace(scene.model):
            scene.compute()
            stop()

    def in_backward(scene: Scene) -> None:
        with mh.trace(scene.model):
            middle = scene.model[0](scene.input)
            middle.register_hook(stop)
            scene.model[2](middle).sum().backward()

    def after_backward(scene: Scene) -> None:
        with mh.trace(scene.model):
            scene.compute().backward(retain_graph=True)
            stop()

    def in_a_second_one(scene: Scene) -> None:
        with mh.trace(scene.model):
            scene.compute().backward()
            with contextlib.suppress(RuntimeError), mh.trace(scene.model):
                pass
            stop()

    def under_saved_tensors_hooks(scene: Scene) -> None:
        keep = torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)
        with mh.trace(scene.model), keep:
            scene.compute()
            stop()

    def under_no_grad(scene: Scene) -> None:
        with torch.no_grad(), mh.trace(scene.model):
            scene.compute()
            stop()

    return {
        "before anything ran": before_anything,
        "in the forward pass": in_forward,
        "between the passes": between,
        "in the backward pass": in_backward,
        "after the backward pass": after_backward,
        "after a second recording was tried": in_a_second_one,
        "beside hooks for saved tensors": under_saved_tensors_hooks,
        "under no_grad": under_no_grad,
    }


ERRORS = (KeyboardInterrupt, ValueError, SystemExit, GeneratorExit, Stop, MemoryError)


def ended_by(error: type[BaseException], act: Callable[[Scene], object]) -> Callable:
    def does(scene: Scene) -> bool:
        try:
            act(scene)
        except error:
            return True
        return False

    return does


def closed_generator(scene: Scene) -> bool:
    def steps() -> Iterator[torch.Tensor]:
        with mh.trace(scene.model):
            yield scene.compute()

    generator = steps()
    next(generator).backward()
    generator.close()
    return True


def dropped_generator(scene: Scene) -> bool:
    def steps() -> Iterator[torch.Tensor]:
        with mh.trace(scene.model):
            yield scene.compute()

    next(steps())
    return True


def again_and_again(scene: Scene) -> bool:
    for _ in range(20):
        with mh.trace(scene.model) as tape:
            scene.compute().backward()
        assert tape.graph.nodes
    return True


def graph_kept(scene: Scene) -> bool:
    with mh.trace(scene.model):
        scene.loss = scene.compute()
        scene.loss.backward(retain_graph=True)
    scene.loss.backward()
    return True


HANDLED = {
    "a recording in a generator that is closed": closed_generator,
    "a recording in a generator that is dropped": dropped_generator,
    "twenty recordings, one after the other,": again_and_again,
    "a recording whose graph is kept and used again": graph_kept,
}


# --------------------------------------------------------------------------------- what is refused


class Unlike:
    """No optimizer, though it has parameters."""

    param_groups = ()


def used_twice(scene: Scene) -> None:
    tape = mh.trace(scene.model)
    for _ in range(2):
        with tape:
            scene.compute().backward()


def inside_of_itself(scene: Scene) -> None:
    with mh.trace(scene.model) as tape, tape:
        pass


def inside_of_another(scene: Scene) -> None:
    with mh.trace(scene.model), mh.trace(scene.model):
        pass


def too_early(scene: Scene) -> Any:
    with mh.trace(scene.model) as tape:
        scene.compute().backward()
        return tape.graph


def without_a_block(scene: Scene) -> Any:
    return mh.trace(scene.model).graph


def nothing_ran(scene: Scene) -> Any:
    with mh.trace(scene.model) as tape:
        scene.compute()
    return tape.graph


def by_grad(scene: Scene) -> Any:
    with mh.trace(scene.model) as tape:
        torch.autograd.grad(scene.compute(), list(scene.model.parameters()))
    return tape.graph


def forward_before(scene: Scene) -> Any:
    loss = scene.compute()
    with mh.trace(scene.model) as tape:
        loss.backward()
    return tape.graph


def labelled_outside(scene: Scene) -> None:
    mh.trace(scene.model).label(loss=scene.compute())


def labelled_leaf(scene: Scene) -> None:
    with mh.trace(scene.model) as tape:
        tape.label(weight=scene.model[0].weight)


def labelled_text(scene: Scene) -> None:
    with mh.trace(scene.model) as tape:
        tape.label(loss="loss")


def asked(question: Callable[[Any], object]) -> Callable[[Scene], object]:
    """A question to a graph that was recorded as it should be."""

    def does(scene: Scene) -> object:
        with mh.trace(scene.model) as tape:
            scene.compute().backward()
        return question(tape.graph)

    return does


WRONG_MODELS = {
    "a Clip": (fresh("nano"), "pass its model, as in trace(clip.model)"),
    "a string": ("model", "got str"),
    "None": (None, "got NoneType"),
    "a number": (3, "got int"),
    "a tensor": (torch.ones(1), "got Tensor"),
    "a list of modules": ([nn.Linear(1, 1)], "got list"),
    "a model's parameters": (nn.Linear(1, 1).parameters(), "got generator"),
    "a class": (nn.Linear, "got type"),
    "a dict of numbers": ({"rate": 0.1}, "'rate' is a float"),
    "a dict of modules": ({"layer": nn.Linear(1, 1)}, "'layer' is a Linear"),
    "a dict without names": ({1: torch.ones(1)}, "1 is no name"),
}
WRONG_OPTIMIZERS = {
    "a string": "AdamW",
    "a class": torch.optim.AdamW,
    "a learning rate": 0.1,
    "a list of parameters": [torch.ones(1)],
    "a thing with groups of parameters": Unlike(),
    "a scheduler's dict": {"lr": 0.1},
}
REFUSED: dict[str, tuple[Callable, type[Exception], str]] = {
    **{
        f"{name} for a model": (lambda _, v=value: mh.trace(v), TypeError, says)
        for name, (value, says) in WRONG_MODELS.items()
    },
    **{
        f"{name} for an optimizer": (
            lambda scene, v=value: mh.trace(scene.model, v),
            TypeError,
            "pass a torch.optim.Optimizer",
        )
        for name, value in WRONG_OPTIMIZERS.items()
    },
    "a recording that has ended": (used_twice, RuntimeError, "this recording has ended"),
    "a recording inside of itself": (inside_of_itself, RuntimeError, "one at a time"),
    "a recording inside of another": (inside_of_another, RuntimeError, "one at a time"),
    "a look at the graph inside of the block": (too_early, RuntimeError, "after the `with` block"),
    "a look at the graph of no block": (without_a_block, RuntimeError, "after the `with` block"),
    "a look at a graph that never ran": (nothing_ran, RuntimeError, "call loss.backward() in it"),
    "a gradient that fills no .grad": (by_grad, RuntimeError, "call loss.backward() in it"),
    "a forward pass before the block": (forward_before, RuntimeError, "forward pass inside"),
    "a label outside of the block": (labelled_outside, RuntimeError, "inside the `with` block"),
    "a label for a parameter": (labelled_leaf, ValueError, "weight has no grad_fn"),
    "a label for a text": (labelled_text, TypeError, "loss is a str; a label names a tensor"),
    "a path to no parameter": (
        asked(lambda graph: graph.path("nothing")),
        ValueError,
        "no parameter is called 'nothing'",
    ),
    "a path to several parameters": (
        asked(lambda graph: graph.path("weight")),
        ValueError,
        "give more of the name",
    ),
    "a path to a number": (asked(lambda graph: graph.path(3)), TypeError, "pass its name"),
    "an unknown level": (asked(lambda graph: graph.collapse("all")), ValueError, "must be one of"),
    "a level that is a number": (asked(lambda graph: graph.collapse(3)), ValueError, "must be one"),
    "an unknown module": (
        asked(lambda graph: graph.collapse("blocks", within="nowhere")),
        ValueError,
        "no module called 'nowhere' ran",
    ),
    "frames of no parameter": (
        asked(lambda graph: graph.frames("nothing")),
        ValueError,
        "no parameter is called",
    ),
    "an unknown verdict": (
        asked(lambda graph: graph.gradients.count("good")),
        ValueError,
        "no verdict is called 'good'",
    ),
    "an unknown level of bytes": (
        asked(lambda graph: graph.saved.by("all")),
        ValueError,
        "bytes are known by",
    ),
    "gradients of a Clip": (
        lambda _: mh.gradients(fresh("nano")),
        TypeError,
        "pass its model, as in gradients(clip.model)",
    ),
    "gradients of a number": (lambda _: mh.gradients(3), TypeError, "expected a module, got int"),
}

CASES = [
    *(
        Case(
            f"a recording that {error.__name__} ends {where} leaves nothing",
            prepare=Scene,
            does=ended_by(error, act),
            holds=lambda _, stopped: stopped,
            keeps=left,
        )
        for error in ERRORS
        for where, act in interrupted(error).items()
    ),
    *(
        Case(f"{name} leaves nothing", Scene, does, holds=lambda _, fine: fine, keeps=left)
        for name, does in HANDLED.items()
    ),
    *(
        Case(f"{name} is refused", Scene, does, refused=error, says=(says,), keeps=left)
        for name, (does, error, says) in REFUSED.items()
    ),
]
