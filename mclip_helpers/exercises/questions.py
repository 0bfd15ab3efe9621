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
            return _not_all_parts(answer, parts)
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
        mine, right = plain(self._chosen(value)), plain(self.parts[part])
        found = difference(mine, right)
        if found is None:
            return None
        for wrong in self.mistakes:
            if wrong.part == part and difference(mine, plain(wrong.value)) is None:
                return Finding(Kind.MISTAKE, wrong.name, wrong.says, names=(part,))
        if self.choices:
            chosen = mine if isinstance(mine, tuple | frozenset) else (mine,)
            if not all(isinstance(c, str) and c in self.choices for c in chosen):
                return Finding(Kind.NO_CHOICE, names=(part, shown(mine), *self.choices))
        # The right answer must not be in the finding: it would be shown.
        kind, way = found.kind, ASKED[type(right)]
        if isinstance(mine, torch.Tensor) and isinstance(right, torch.Tensor):
            if kind is Kind.DTYPE and not mine.is_complex():
                kind = Kind.ROUNDED if right.abs() >= 1 else Kind.DIFFERS
            if kind is Kind.DIFFERS:
                way = "too large" if mine.double() > right.double() else "too small"
        elif kind is Kind.DIFFERS:
            way = ""
        if kind in (Kind.SHAPE, Kind.LENGTH):  # several answers, where one is asked
            kind = Kind.TYPE
        return Finding(kind, difference=Difference(kind, part, shown(mine), way))

    def _chosen(self, value: object) -> object:
        """The choice that is meant, where a text names one; otherwise `value` as it is.

        Capitals, blanks, a hyphen and a full stop don't matter, nor does the explanation that
        stands behind the word when a whole line is copied.
        """
        if isinstance(value, list | tuple):
            return type(value)(map(self._chosen, value)) if self.choices else value
        if isinstance(value, str):
            for text in (value, value.partition(":")[0]):
                for choice in self.choices:
                    if _bare(text) == _bare(choice):
                        return choice
        return value


# What is asked for, by the type of the right answer.
ASKED: dict[type, str] = {
    torch.Tensor: "a number",
    str: "one of the words to choose from",
    tuple: "a pair of words",
    frozenset: "a set of names",
}


def _not_all_parts(answer: object, parts: Mapping) -> Finding:
    """Of an answer that lacks some parts, or all; keys are given as they are shown."""
    names = tuple(map(shown, parts))
    keys = answer.keys() if isinstance(answer, Mapping) else ()
    if not parts.keys() & keys:
        return Finding(Kind.PARTS, names=names)
    missing = tuple(shown(part) for part in parts if part not in keys)
    unknown = tuple(shown(key) for key in keys if key not in parts)
    return Finding(Kind.PARTS, names=names, missing=missing, unknown=unknown)


def _bare(text: str) -> str:
    return " ".join(text.replace("-", " ").split()).rstrip(". ").casefold()


def _is_open(value: object) -> bool:
    """Whether a part of an answer is as the stub has it."""
    if isinstance(value, tuple | list | set | frozenset):
        return not value or all(_is_open(part) for part in value)
    return value is None or value is Ellipsis or (isinstance(value, str) and value in ("", "?"))
