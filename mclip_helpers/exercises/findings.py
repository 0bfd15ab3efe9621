"""What a check found, as data. `words` makes the sentence, `cards` the picture."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a check can find; the values are those in the file of the learner's progress."""

    RIGHT = "right"
    NOT_YET = "not yet"  # a stub left as it is, or a question without an answer
    MISTAKE = "known mistake"
    DIFFERS = "differs"
    GRADIENT = "another gradient"  # the value is right
    DETACHED = "detached"  # the value is right, and no gradient flows
    CHANGED = "input changed"  # the value is right, or autograd refused the change
    RANDOM = "random"  # called twice, it gives two results
    SHAPE = "shape"
    LENGTH = "another number of results"  # of a list or a tuple
    TYPE = "type"
    DTYPE = "dtype"
    ROUNDED = "rounded"  # a question asks for a number, and this is the whole one beside it
    NOT_FINITE = "not finite"
    NOTHING = "gives None"
    RAISED = "raised"
    TOO_LONG = "too long"
    PARAMETERS = "parameters"
    NOT_A_FUNCTION = "not a function"
    NOT_A_CLASS = "not a class"
    NOT_ALLOWED = "not allowed"  # it uses what it was to do without
    PARTS = "parts missing"  # a question has parts, and this answer is of another form
    NO_CHOICE = "no choice"  # a question has choices, and this is none of them


@dataclass(frozen=True)
class Difference:
    """Where two results differ: which part, and how each is shown.

    Of two tensors too large to show, it is the numbers at one `place`. Where there are too many
    results or too few, `counts` are how many came, and how many are expected.
    """

    kind: Kind
    part: str  # "" for the whole
    yours: str
    expected: str
    place: tuple[int, ...] = ()
    counts: tuple[int, int] | None = None


@dataclass(frozen=True)
class Error:
    """An exception that the learner's code raised, and the line of that code it came from."""

    type: str
    message: str
    line: int | None = None
    code: str = ""


@dataclass(frozen=True)
class Finding:
    """What a check found. Which fields are filled depends on the kind.

    `mistake` is the name of the known mistake, which teachers read, and `says` the sentence that
    learners read. `inputs` are the smallest ones on which it was found, as they are shown. What a
    wrong result may also come from: `changed` are inputs that were changed in place, `reads` are
    numbers and tensors of the notebook that the code uses, and `kept` are parameters whose default
    value was changed. Of a dictionary with some of the right keys, `missing` are those that it
    lacks, and `unknown` those that it should not have.
    """

    kind: Kind
    mistake: str = ""
    says: str = ""
    difference: Difference | None = None
    error: Error | None = None
    inputs: tuple[tuple[str, str], ...] = ()
    names: tuple[str, ...] = ()  # parameters that are expected; parts; choices
    changed: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    seconds: float = 0.0
    parts_right: tuple[int, int] | None = None  # of a question: so many, of so many

    @property
    def is_right(self) -> bool:
        return self.kind is Kind.RIGHT
