"""Exercises whose answer is a number, a name, a set of names, or a choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from .findings import Difference, Finding, Kind
from .forms import Exercise
from .values import difference, plain, shown


@dataclass(frozen=True)
class Wrong:
    """A wrong answer to a question, or to one `part` of it."""

    name: str
    says: str
    value: object
    part: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class Question(Exercise):
    """An exercise whose answer is a number, a name, a set of names, a choice, or several of them.

    `right` is the answer; a dictionary has one for each part.
    """

    right: object
    mistakes: Sequence[Wrong]
    name: str = "answer"

    @property
    def solution_source(self) -> str:
        return f"{self.name} = {self.right!r}"

    @property
    def mistake_names(self) -> list[str]:
        return [wrong.name for wrong in self.mistakes]

    @property
    def parts(self) -> dict[str, object]:
        """The right answer of each part; of a question without parts, under ""."""
        return dict(self.right) if isinstance(self.right, dict) else {"": self.right}

    def _found(self, answer: object) -> Finding:
        parts = self.parts
        if not isinstance(self.right, dict):
            given: Mapping = {"": answer}
        elif answer is None or answer is Ellipsis:
            return Finding(Kind.NOT_YET)
        elif not isinstance(answer, Mapping) or not parts.keys() <= answer.keys():
            return Finding(Kind.PARTS, names=tuple(parts))
        else:
            given = answer
        open_parts = [part for part in parts if _is_open(given[part])]
        if len(open_parts) == len(parts):
            return Finding(Kind.NOT_YET)
        findings = [self._of_part(part, given[part]) for part in parts if part not in open_parts]
        right = sum(found is None for found in findings)
        counts = (right, len(parts)) if len(parts) > 1 else None
        wrong = next((found for found in findings if found is not None), None)
        if wrong is not None:
            return replace(wrong, parts_right=counts)
        if open_parts:
            return Finding(Kind.NOT_YET, names=tuple(open_parts), parts_right=counts)
        return Finding(Kind.RIGHT)

    def _of_part(self, part: str, value: object) -> Finding | None:
        mine, right = plain(value), plain(self.parts[part])
        found = difference(mine, right)
        if found is None:
            return None
        for wrong in self.mistakes:
            if wrong.part == part and difference(mine, plain(wrong.value)) is None:
                return Finding(Kind.MISTAKE, wrong.name, wrong.says, names=(part,))
        if self.choices:
            words = {word.casefold() for word in self.choices}
            chosen = mine if isinstance(mine, tuple | frozenset) else (mine,)
            if not all(isinstance(c, str) and c.strip().casefold() in words for c in chosen):
                return Finding(Kind.NO_CHOICE, names=(part, shown(mine), *self.choices))
        # The right answer must not be in the finding: it would be shown.
        way = ASKED[type(right)]
        if found.kind is Kind.DIFFERS and isinstance(right, torch.Tensor):
            assert isinstance(mine, torch.Tensor)
            way = "too large" if mine.double() > right.double() else "too small"
        return Finding(found.kind, difference=Difference(found.kind, part, shown(mine), way))


# What is asked for, by the type of the right answer.
ASKED: dict[type, str] = {
    torch.Tensor: "a number",
    str: "one of the words to choose from",
    tuple: "a pair of words",
    frozenset: "a set of names",
}


def _is_open(value: object) -> bool:
    """Whether a part of an answer is as the stub has it."""
    if isinstance(value, tuple | list | set | frozenset):
        return not value or all(_is_open(part) for part in value)
    return value is None or value is Ellipsis or (isinstance(value, str) and value in ("", "?"))
