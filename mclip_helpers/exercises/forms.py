"""What every exercise has: what is asked, a hint, a solution, and a check that ends in a finding.

There are two kinds: a `Program` asks for a function or a class, and a `Question` for a number, a
name, a set of names, or a choice. Both know mistakes: the wrong answers that real students give,
each with the sentence that helps without giving the answer away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from . import records
from .cards import Checked, Shown, hint_card, question_card, solution_card
from .findings import Finding, Kind
from .running import described


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """What the two kinds of exercise share. Show it to read what is asked.

    `check(answer)` says what is right or wrong with an answer, `hint()` helps, `solution()` tells.
    Difficulty is 1, 2 or 3; `stub` is the cell to begin with, and `name` the name that it defines.
    `remark` is what the solution teaches beyond itself. `choices` are the words to choose from,
    each with what it means, where there are any.
    """

    id: str
    title: str
    difficulty: int
    minutes: int
    asks: str
    stub: str
    hint_text: str
    remark: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stub", self.stub.strip())
        for name in ("asks", "hint_text", "remark"):
            object.__setattr__(self, name, flowed(getattr(self, name)))

    @property
    def notebook(self) -> str:
        """The number of its notebook: "03"."""
        return self.id.partition(".")[0]

    @property
    def stars(self) -> str:
        return "●" * self.difficulty + "○" * (3 - self.difficulty)

    def finding(self, answer: object) -> Finding:
        """What `check` shows, as data. Nothing is recorded."""
        try:
            return self._found(answer)
        except Exception as error:  # of an object that can't be looked at without one
            return Finding(Kind.RAISED, error=described(error))

    def _found(self, answer: object) -> Finding:
        raise NotImplementedError

    @property
    def solution_source(self) -> str:
        raise NotImplementedError

    @property
    def mistake_names(self) -> list[str]:
        raise NotImplementedError

    def check(self, answer: object = None) -> Checked:
        """Compare an answer with the solution and with the known mistakes, and note the outcome.

        Never raises because of the answer. `.finding` of the result has it as data. "Not yet" is
        no attempt, and not noted: a notebook that is run as a whole leaves no trace.
        """
        found = self.finding(answer)
        attempt = found.kind is not Kind.NOT_YET
        trouble = records.note(self.id, found.kind, found.mistake) if attempt else ""
        remark = self.remark if found.is_right else ""
        return Checked(self.id, self.title, found, remark, trouble)

    def hint(self) -> Shown:
        """A first step towards the solution."""
        return hint_card(self.id, self.title, self.hint_text)

    def solution(self) -> Shown:
        """The solution, and what it teaches."""
        return solution_card(self.id, self.title, self.solution_source, self.remark)

    def __repr__(self) -> str:
        return question_card(self).text

    def _repr_html_(self) -> str:
        return question_card(self).source


def flowed(text: str) -> str:
    """Paragraphs of one line each, of text in lines; an empty line is between paragraphs."""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))
