"""Exercises in which one writes a function or a class.

An answer is run on a row of inputs, the smallest first, beside the solution. If all results say the
same, it is right. If not, it is compared with every known mistake, and named if it does the same as
one on all inputs. Otherwise the first input on which it differs is shown, with both results.
Whatever the code does, the check ends with a finding and not with a traceback.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import linecache
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from ..loss import contrastive_loss
from .findings import Finding, Kind
from .forms import Exercise
from .running import (
    Outcome,
    defaults_of,
    globals_read,
    names_in,
    run,
    same_code,
    silence,
)
from .values import Said, difference, plain, shown

# What the sources of exercises may use of `mh`; the package itself is not there yet.
MH = SimpleNamespace(contrastive_loss=contrastive_loss)

INPUTS = 8  # on so many inputs a program is run
LIMIT = 5.0  # seconds for each of them
OURS = 60.0  # seconds for what is known to come back

# Where the random numbers of an answer start: not where those of its inputs do, or an answer that
# makes a new layer gets the weights of the one that it was passed. A second call has others.
FIRST, SECOND = 1_000, 2_000


class RefusedError(BaseException):
    """Raised by a program's `use` when an answer calls what it has to do without; its name."""


# Autograd's message where an input that needs a gradient, or a view of it, is changed in place.
LEAF = "leaf Variable that requires grad"


@dataclass(frozen=True)
class Mistake:
    """A wrong program that students write.

    `name` is for the teacher's table, `says` for the learner. `change` makes the wrong program: it
    replaces text of the solution (each text must be in it), or is a whole program of its own.
    """

    name: str
    says: str
    change: Mapping[str, str] | str


def call(answer: Callable, *inputs: object) -> object:
    """How most answers are used: as a function of the inputs."""
    return answer(*inputs)


@dataclass(frozen=True, kw_only=True, repr=False)
class Program(Exercise):
    """An exercise in which one writes a function or a class.

    `inputs(k)` draws the arguments of run k, small ones for k = 0; PyTorch's random numbers start
    anew for each. `use(answer, *arguments)` is what is compared: the result of a function, or what
    one does with a class. `without` are names that an answer has to do without; a `use` that
    watches what is called raises RefusedError instead.
    """

    solved: str
    inputs: Callable[[int], tuple]
    mistakes: Sequence[Mistake]
    use: Callable = call
    without: Sequence[str] = ()
    rounds: int = INPUTS
    limit: float = LIMIT

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "solved", self.solved.strip())

    @property
    def solution_source(self) -> str:
        return self.solved

    @property
    def mistake_names(self) -> list[str]:
        return [mistake.name for mistake in self.mistakes]

    @functools.cached_property
    def name(self) -> str:
        """The name of the function or class that the stub defines."""
        line = next(x for x in self.stub.splitlines() if x.startswith(("def ", "class ")))
        return line.split()[1].partition("(")[0].rstrip(":")

    def compiled(self, source: str) -> Callable:
        """The function or class that `source` defines."""
        place = f"<exercise {self.id}, {hash(source)}>"
        linecache.cache[place] = (len(source), None, source.splitlines(keepends=True), place)
        names = {"torch": torch, "F": F, "nn": nn, "math": math, "mh": MH, "__name__": "exercise"}
        exec(compile(source, place, "exec"), names)
        return names[self.name]  # type: ignore[return-value]

    def mistaken(self, mistake: Mistake) -> str:
        """The source of a wrong program. ValueError if what it changes is not in the solution."""
        if isinstance(mistake.change, str):
            return mistake.change.strip()
        source = self.solved
        for old, new in mistake.change.items():
            if old not in source:
                raise ValueError(f"{self.id}, {mistake.name}: {old!r} is not in the solution")
            source = source.replace(old, new)
        return source

    def drawn(self, k: int) -> tuple:
        """The arguments of run k, always the same ones."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(k)
            return self.inputs(k)

    def outcome(
        self, answer: object, k: int, *, seed: int = FIRST, limit: float | None = None
    ) -> Outcome:
        """What the answer makes of the arguments of run k."""
        limit = self.limit if limit is None else limit
        return run(answer, self.use, self.drawn(k), limit=limit, seed=seed)

    @functools.cached_property
    def expected(self) -> list[Outcome]:
        """What the solution makes of each run.

        It is run before any answer is: the first call of a part of PyTorch can take seconds.
        """
        answer = self.compiled(self.solved)
        outcomes = [self.outcome(answer, k, limit=OURS) for k in range(self.rounds)]
        assert not any(o.error or o.seconds_over for o in outcomes), (self.id, outcomes)
        return outcomes

    @functools.cached_property
    def mistaken_outcomes(self) -> list[list[Outcome]]:
        """What each known mistake makes of each run."""
        with silence():
            return [
                [self.outcome(answer, k, limit=OURS) for k in range(self.rounds)]
                for answer in (self.compiled(self.mistaken(m)) for m in self.mistakes)
            ]

    @property
    def asks_for_a_class(self) -> bool:
        return inspect.isclass(self.compiled(self.stub))

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.compiled(self.stub)).parameters)

    def _found(self, answer: object) -> Finding:
        if answer is None or answer is Ellipsis or same_code(answer, self.compiled(self.stub)):
            return Finding(Kind.NOT_YET)
        if self.asks_for_a_class and not inspect.isclass(answer):
            return Finding(Kind.NOT_A_CLASS, names=(self.name, kind_of(answer)))
        if not callable(answer):
            return Finding(Kind.NOT_A_FUNCTION, names=(self.name, shown(plain(answer))))
        if not _takes(answer, len(self.parameters)):
            return Finding(Kind.PARAMETERS, names=(self.name, *self.parameters))
        used = [name for name in self.without if name in names_in(answer)]
        if used:
            return Finding(Kind.NOT_ALLOWED, names=tuple(used))
        defaults = defaults_of(answer)
        outcomes, first, place = [], None, 0
        for k, expected in enumerate(self.expected):
            with silence() if k else contextlib.nullcontext():  # printed once, it is enough
                outcomes.append(self.outcome(answer, k))
            found = departure(outcomes[k], expected)
            if found is not None and first is None:
                if found.kind is Kind.NOT_ALLOWED:
                    return found
                place = k
                first = replace(
                    found,
                    inputs=self._shown_inputs(k),
                    changed=self._changed(outcomes[k], expected),
                )
                if found.kind is Kind.NOT_YET or found.kind is Kind.TOO_LONG:
                    return first
        if first is None:
            return self._random(answer, outcomes) or Finding(Kind.RIGHT)
        if first.kind is Kind.CHANGED:
            return self._named(first, outcomes) or first
        first = replace(
            first,
            reads=globals_read(answer, but=names_in(self.compiled(self.solved))),
            kept=tuple(n for n, now, was in defaults if difference(plain(now), plain(was))),
        )
        return self._named(first, outcomes) or self._by_chance(answer, place, first) or first

    def _named(self, first: Finding, outcomes: list[Outcome]) -> Finding | None:
        """The known mistake that does the same on all inputs.

        Where there is none, it is the one whose results are the same: it changed no input, and
        this answer does.
        """
        known = list(zip(self.mistakes, self.mistaken_outcomes, strict=True))
        for mistake, theirs in known:
            if all(map(alike, outcomes, theirs)):
                changed = () if theirs[0].changed else first.changed
                return _as(mistake, replace(first, changed=changed))
        if first.kind is not Kind.CHANGED and first.changed:
            unchanged = [replace(outcome, changed=()) for outcome in outcomes]
            for mistake, theirs in known:
                if all(map(alike, unchanged, theirs)):
                    return _as(mistake, first)
        return None

    def _by_chance(self, answer: object, k: int, first: Finding) -> Finding | None:
        """Whether what is wrong comes out otherwise when other random numbers are drawn."""
        if first.kind not in (Kind.DIFFERS, Kind.GRADIENT):
            return None
        with silence():
            again = self.outcome(answer, k, seed=SECOND)
        found = departure(again, self.expected[k])
        if again.error or (found is not None and found.difference == first.difference):
            return None
        return replace(first, kind=Kind.RANDOM)

    def _random(self, answer: object, outcomes: list[Outcome]) -> Finding | None:
        """Whether a second call of a right answer gives another result."""
        for k in range(min(3, self.rounds)):
            with silence():
                again = self.outcome(answer, k, seed=SECOND)
            if again.error:
                continue
            apart = difference(again.value, outcomes[k].value)
            if apart is not None:
                return Finding(Kind.RANDOM, difference=apart, inputs=self._shown_inputs(k))
        return None

    @functools.cached_property
    def _names_of_inputs(self) -> tuple[str, ...]:
        if self.use is call:
            return self.parameters
        return tuple(inspect.signature(self.use).parameters)[1:]

    def _shown_inputs(self, k: int) -> tuple[tuple[str, str], ...]:
        pairs = zip(self._names_of_inputs, self.drawn(k), strict=True)
        return tuple((name, shown(value)) for name, value in pairs)

    def _changed(self, mine: Outcome, expected: Outcome) -> tuple[str, ...]:
        """The names of the inputs that were changed in place, and should not have been."""
        more = sorted(set(mine.changed) - set(expected.changed))
        return tuple(self._names_of_inputs[i] for i in more)


def _as(mistake: Mistake, found: Finding) -> Finding:
    return replace(found, kind=Kind.MISTAKE, mistake=mistake.name, says=mistake.says)


def kind_of(answer: object) -> str:
    """What came in the place of a class, in a few words."""
    if inspect.isroutine(answer):
        return "a function"
    return f"an object of the class {type(answer).__name__}"


def departure(mine: Outcome, expected: Outcome) -> Finding | None:
    """How an outcome departs from the one that is expected; None if it does not."""
    if mine.seconds_over:
        return Finding(Kind.TOO_LONG, seconds=mine.seconds_over)
    if mine.error is not None:
        if mine.error.type == "NotImplementedError" and "raise " in mine.error.code:
            return Finding(Kind.NOT_YET)
        if mine.error.type == RefusedError.__name__:
            return Finding(Kind.NOT_ALLOWED, names=(mine.error.message,))
        refused = mine.error.type == "RuntimeError" and LEAF in mine.error.message
        return Finding(Kind.CHANGED if refused else Kind.RAISED, error=mine.error)
    found = difference(mine.value, expected.value)
    if found is not None:
        return Finding(found.kind, difference=found)
    if expected.gradients is not None:
        if mine.gradients is None:
            return Finding(Kind.DETACHED)
        apart = difference(plain_gradients(mine), plain_gradients(expected))
        if apart is not None:
            return Finding(Kind.GRADIENT, difference=replace(apart, part=""))
    return Finding(Kind.CHANGED) if set(mine.changed) - set(expected.changed) else None


def plain_gradients(outcome: Outcome) -> tuple[object, ...]:
    """Its gradients, with a word in the place of one that did not arrive."""
    return tuple(Said("no gradient") if g is None else plain(g) for g in outcome.gradients or ())


def alike(one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes are of the same mistake."""
    if one.error or other.error:
        return bool(one.error and other.error) and _said(one) == _said(other)
    return one.changed == other.changed and _close(one, other)


def _said(outcome: Outcome) -> tuple[str, str]:
    assert outcome.error is not None
    return outcome.error.type, outcome.error.message


def _close(one: Outcome, other: Outcome) -> bool:
    if difference(*_without_nan(one.value, other.value)) is not None:
        return False
    if (one.gradients is None) != (other.gradients is None):
        return False
    gradients = _without_nan(plain_gradients(one), plain_gradients(other))
    return difference(*gradients) is None


def _without_nan(one: object, other: object) -> tuple[object, object]:
    """Both, with NaN and infinity as numbers that equal themselves."""

    def clean(value: object) -> object:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.double().nan_to_num(nan=1e30, posinf=2e30, neginf=-2e30)
        if isinstance(value, tuple):
            return tuple(map(clean, value))
        if isinstance(value, dict):
            return {key: clean(part) for key, part in value.items()}
        return value

    return clean(one), clean(other)


def _takes(answer: Callable, count: int) -> bool:
    try:
        inspect.signature(answer).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a function of C without a signature
        return True
    return True
