"""A learner's code is run, whatever it does: it may raise, wait for ever, or change its inputs.

Each call runs in a thread of its own, and is told to stop (by an exception that Python raises in
the thread) when its time is over. That works in a notebook, on Windows, and inside other threads,
where a signal does not. What no exception can stop, such as one endless call into C, is left behind
in its thread, which ends with the process; the check answers all the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import dis
import inspect
import io
import linecache
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType

import numpy as np
import torch

from .findings import Error
from .values import difference, plain

NUMBERS = (int, float, complex, np.ndarray, np.number, torch.Tensor)

GRACE = 0.5  # seconds in which a thread that was told to stop may do so


class TimeIsOver(BaseException):
    """Told to a thread whose time is over. No `except Exception` stops it."""


@dataclass(frozen=True)
class Outcome:
    """What a call led to: a result, or why there is none.

    `value` is `plain`. `gradients` has one for each input that wants a gradient (None if none
    arrived), and is None itself if nothing in the result leads anywhere. `changed` are the
    positions of the inputs that were changed in place.
    """

    value: object = None
    gradients: tuple[torch.Tensor | None, ...] | None = None
    changed: tuple[int, ...] = ()
    error: Error | None = None
    seconds_over: float = 0.0  # the time limit, if the call did not end before it


def run(
    answer: object, use: Callable, inputs: Sequence[object], *, limit: float, seed: int
) -> Outcome:
    """What `use(answer, *inputs)` leads to within `limit` seconds.

    `inputs` may be changed by it. PyTorch's random numbers start from `seed`, and are put back.
    """
    before = [_content(value) for value in inputs]

    def call() -> Outcome:
        result = use(answer, *inputs)
        gradients = _gradients(result, inputs)
        after = [_content(value) for value in inputs]
        pairs = enumerate(zip(after, before, strict=True))
        changed = tuple(i for i, (now, was) in pairs if difference(now, was) is not None)
        return Outcome(plain(result), gradients, changed)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _within(limit, call, _files_of(answer))


def _within(limit: float, call: Callable[[], Outcome], files: set[str]) -> Outcome:
    """What `call()` returns, in a thread that is given `limit` seconds."""
    outcomes: list[Outcome] = []
    ended = threading.Event()

    def target() -> None:
        with contextlib.suppress(TimeIsOver):  # it may be told twice
            try:
                outcomes.append(call())
            except TimeIsOver:
                pass
            except BaseException as error:  # also SystemExit and what a learner makes up
                outcomes.append(Outcome(error=described(error, files)))
            finally:
                ended.set()

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    try:
        thread.join(limit)
    finally:  # with Ctrl-C, too, it must not run on
        if thread.is_alive():
            _stop(thread, ended)
    return outcomes[0] if outcomes else Outcome(seconds_over=limit)


def _stop(thread: threading.Thread, ended: threading.Event) -> None:
    assert thread.ident is not None
    until = time.monotonic() + GRACE
    while not ended.is_set() and time.monotonic() < until:  # again, if the code caught it
        exception = ctypes.py_object(TimeIsOver)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), exception)
        ended.wait(0.05)


def _content(value: object) -> object:
    """What of an input could be changed in place: its numbers."""
    if isinstance(value, torch.nn.Module):
        return {name: tensor.detach().clone() for name, tensor in value.state_dict().items()}
    return plain(value)


def _gradients(result: object, inputs: Sequence[object]) -> tuple[torch.Tensor | None, ...] | None:
    """The gradient of a weighted sum of all that is in the result, for each input that wants one.

    The weights differ from entry to entry, so that no two errors cancel.
    """
    leaves = [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad]
    ends = [t for t in _tensors_in(result) if t.requires_grad and t.is_floating_point()]
    if not leaves or not ends:
        return None
    weights = (torch.linspace(1, 2, max(1, t.numel())).reshape(t.shape).to(t) for t in ends)
    total = torch.stack([(t * w).sum().double() for t, w in zip(ends, weights, strict=True)]).sum()
    return torch.autograd.grad(total, leaves, allow_unused=True)


def _tensors_in(result: object) -> Iterator[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, dict):
        for part in result.values():
            yield from _tensors_in(part)
    elif isinstance(result, list | tuple):
        for part in result:
            yield from _tensors_in(part)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """A block in which nothing is printed: a check calls the code more often than its writer."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def functions_of(answer: object) -> list[FunctionType]:
    """A function, the one inside a partial or a method, or each method of a class."""
    if inspect.isclass(answer):
        return [f for f in vars(answer).values() if inspect.isfunction(f)]
    inside = inspect.unwrap(answer) if callable(answer) else answer
    inside = getattr(inside, "func", inside)
    inside = getattr(inside, "__func__", inside)
    return [inside] if inspect.isfunction(inside) else []


def same_code(one: object, other: object) -> bool:
    """Whether two functions or classes do literally the same, comments and docstrings aside."""

    def form(answer: object) -> list[list[tuple[str, str]]]:
        return [
            [(step.opname, step.argrepr) for step in dis.get_instructions(function)]
            for function in functions_of(answer)
        ]

    return bool(functions_of(one)) and form(one) == form(other)


def names_in(answer: object) -> set[str]:
    """The names of globals and attributes that the code of a function or class uses."""
    waiting = [function.__code__ for function in functions_of(answer)]
    found: set[str] = set()
    while waiting:
        code = waiting.pop()
        found.update(code.co_names)
        waiting += [part for part in code.co_consts if isinstance(part, CodeType)]
    return found


def globals_read(answer: object, but: Container[str] = ()) -> tuple[str, ...]:
    """The numbers and tensors of the notebook that the code of an answer reads, by name."""
    found: set[str] = set()
    waiting = [(f.__code__, f.__globals__) for f in functions_of(answer)]
    while waiting:
        code, around = waiting.pop()
        for step in dis.get_instructions(code):
            name = step.argval
            if step.opname == "LOAD_GLOBAL" and name not in but:
                value = around.get(name)
                if isinstance(value, NUMBERS) and not isinstance(value, bool):
                    found.add(name)
        waiting += [(part, around) for part in code.co_consts if isinstance(part, CodeType)]
    return tuple(sorted(found))


def defaults_of(answer: object) -> list[tuple[str, object, object]]:
    """Each default value that can be changed in place: its parameter, itself, and a copy."""
    return [
        (name, parameter.default, parameter.default.copy())
        for function in functions_of(answer)
        for name, parameter in inspect.signature(function).parameters.items()
        if isinstance(parameter.default, list | dict | set)
    ]


def _files_of(answer: object) -> set[str]:
    return {function.__code__.co_filename for function in functions_of(answer)}


def described(error: BaseException, files: Container[str] = ()) -> Error:
    """The exception, with the last line of the learner's code on the way to it."""
    line, file = None, ""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in files:
            line, file = trace.tb_lineno, trace.tb_frame.f_code.co_filename
        trace = trace.tb_next
    try:
        message = str(error)
    except Exception:  # of an exception of the learner's
        message = ""
    code = linecache.getline(file, line).strip() if line is not None else ""
    return Error(type(error).__name__, message, line, code)
