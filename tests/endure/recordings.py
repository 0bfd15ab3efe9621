"""Recordings that end in every way, and what they leave behind."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn
from torch.nn.modules import module as hooks_of_all_modules

import mclip_helpers as mh


def as_it_should(model: nn.Module, loss: Callable[[], torch.Tensor]) -> None:
    with mh.trace(model) as tape:
        loss().backward()
    assert tape.graph.nodes
    tape.graph.collapse("modules")


def graph_retained(model: nn.Module, loss: Callable[[], torch.Tensor]) -> None:
    with mh.trace(model) as tape:
        loss().backward(retain_graph=True)
    assert tape.graph.nodes


def no_backward(model: nn.Module, loss: Callable[[], torch.Tensor]) -> None:
    with mh.trace(model):
        loss()


def without_gradients(model: nn.Module, loss: Callable[[], torch.Tensor]) -> None:
    with mh.trace(model), torch.no_grad():
        loss()


def interrupted_in_forward(model: nn.Module, loss: Callable[[], torch.Tensor]) -> None:
    deepest = [module for module in model.modules() if not any(module.children())][-1]
    with _raised_by(deepest.register_forward_hook), mh.trace(model):
        loss().backward()


def interrupted_in_backward(model: nn.Module, loss: Callable[[], torch.Tensor]) -> None:
    with mh.trace(model):
        value = loss()
        node = value.grad_fn.next_functions[0][0] or value.grad_fn
        with _raised_by(node.register_hook):
            value.backward()


def interrupted_between(model: nn.Module, loss: Callable[[], torch.Tensor]) -> None:
    with contextlib.suppress(KeyboardInterrupt), mh.trace(model):
        loss()
        raise KeyboardInterrupt


def a_second_one_inside(model: nn.Module, loss: Callable[[], torch.Tensor]) -> None:
    with mh.trace(model):
        with contextlib.suppress(RuntimeError), mh.trace(model):
            raise AssertionError("two recordings at once")
        loss().backward()


def in_a_generator_that_is_closed(model: nn.Module, loss: Callable[[], torch.Tensor]) -> None:
    def steps() -> Iterator[torch.Tensor]:
        with mh.trace(model):
            yield loss()

    generator = steps()
    next(generator).backward()
    generator.close()


def never_begun(model: nn.Module, loss: Callable[[], torch.Tensor]) -> None:
    mh.trace(model)
    loss().backward()


ENDS = (
    as_it_should,
    graph_retained,
    no_backward,
    without_gradients,
    interrupted_in_forward,
    interrupted_in_backward,
    interrupted_between,
    a_second_one_inside,
    in_a_generator_that_is_closed,
    never_begun,
)


@contextlib.contextmanager
def _raised_by(register: Callable) -> Iterator[None]:
    """Raise KeyboardInterrupt in a hook, and catch it outside of the block."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = register(interrupt)
    try:
        yield
        raise AssertionError("nothing was interrupted")
    except KeyboardInterrupt:
        pass
    finally:
        handle.remove()


@dataclass(frozen=True)
class Left:
    """What is there now. Two of them are equal if nothing came and nothing went between them."""

    tensors: int
    hooks: int  # of the model's modules, and of all modules
    threads: int
    files: int
    backward: Callable  # torch.autograd.backward

    @classmethod
    def now(cls, model: nn.Module) -> Left:
        gc.collect()
        things = gc.get_objects()
        return cls(
            tensors=sum(issubclass(type(thing), torch.Tensor) for thing in things),
            hooks=sum(map(_hooks, (*model.modules(), hooks_of_all_modules))),
            threads=threading.active_count() + psutil.Process().num_threads(),
            files=_open_files(),
            backward=torch.autograd.backward,
        )

    def __str__(self) -> str:
        counts = f"{self.tensors} tensors, {self.hooks} hooks, {self.threads} threads"
        return f"{counts}, {self.files} open files"


def _hooks(module: object) -> int:
    return sum(
        len(found)
        for name, found in vars(module).items()
        if "_hooks" in name and isinstance(found, dict)
    )


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else psutil.Process().num_fds()
