"""What can be said of a parameter after a backward pass, as values; `str()` puts it in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum, auto

from . import words


class Verdict(StrEnum):
    """What the backward pass did for one parameter. It equals its name: "reached", "zero", …"""

    REACHED = auto()  # a gradient arrived, and is not zero
    ZERO = auto()  # a gradient arrived, and every number in it is zero
    NOT_REACHED = auto()  # no gradient arrived
    FROZEN = auto()  # requires_grad is False

    def __str__(self) -> str:
        return words.VERDICTS[self]

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


class Cause(StrEnum):
    """Why a parameter has no gradient, or one of zeros, or will not be changed by it.

    The comment on each names the data that a `Reason` of this cause carries.
    """

    FROZEN = auto()
    NOT_CALLED = auto()  # the parameter's module never ran
    NO_GRAD = auto()  # module
    DETACHED = auto()  # module: what it returned needs no gradient
    CUT_OFF = auto()  # module: what it returned was detached afterwards, or not used
    UNUSED = auto()  # nothing in the graph was computed from the parameter
    NOT_VISITED = auto()  # in the graph, but the backward pass did not run its node
    NOTHING_ARRIVED = auto()  # its node ran, without a gradient
    ZERO_FACTOR = auto()  # part or parameter, all zeros; operation: what multiplies by it
    ZERO_MADE = auto()  # module, operation: the first whose result is zero
    ZERO_LOSS = auto()  # the gradient was zero from the loss on
    NOT_IN_OPTIMIZER = auto()


@dataclass(frozen=True, slots=True)
class Reason:
    """A cause and what belongs to it; names are those without PEFT.

    `part` names a parameter of the same layer ("A", "B", "weight"), `parameter` any other one.
    """

    cause: Cause
    module: str = ""
    parameter: str = ""
    part: str = ""
    operation: str = ""

    def __str__(self) -> str:
        return words.CAUSES[self.cause].format(
            module=self.module or words.THE_MODEL,
            where=f"in {self.module}" if self.module else words.OUTSIDE,
            parameter=self.part or self.parameter,
            operation=self.operation,
        )


def join_reasons(reasons: Iterable[Reason]) -> str:
    """Several reasons in one line; empty if there is none."""
    return "; ".join(map(str, reasons))
