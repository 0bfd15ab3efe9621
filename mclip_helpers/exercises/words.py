"""What a finding says, in words."""

from __future__ import annotations

from collections.abc import Sequence

from ..display import readable
from .findings import Difference, Finding, Kind

TITLES = {
    Kind.RIGHT: "Right",
    Kind.NOT_YET: "Not yet",
    Kind.MISTAKE: "Not right yet, and we know this one",
    Kind.DIFFERS: "Not right yet",
    Kind.GRADIENT: "The value is right, its gradient is not",
    Kind.DETACHED: "The value is right, but no gradient flows",
    Kind.CHANGED: "Changed in place",
    Kind.RANDOM: "Each call gives another result",
    Kind.SHAPE: "The shape is not right yet",
    Kind.LENGTH: "Too many, or too few",
    Kind.TYPE: "Another type is expected",
    Kind.DTYPE: "Another dtype is expected",
    Kind.ROUNDED: "Nearly",
    Kind.NOT_FINITE: "NaN or infinity",
    Kind.NOTHING: "It gives back None",
    Kind.RAISED: "It stopped with an error",
    Kind.TOO_LONG: "It does not come back",
    Kind.PARAMETERS: "Other parameters are expected",
    Kind.NOT_A_FUNCTION: "A function is expected",
    Kind.NOT_A_CLASS: "A class is expected",
    Kind.NOT_ALLOWED: "Not by these means",
    Kind.PARTS: "Some parts are missing",
    Kind.NO_CHOICE: "None of the choices",
}


# Of these, two results side by side say nothing that helps.
NOT_SHOWN = {Kind.RANDOM, Kind.GRADIENT, Kind.NOTHING}


def title(finding: Finding) -> str:
    """A few words for a finding."""
    return TITLES[finding.kind]


def sentences(finding: Finding) -> list[str]:
    """What a finding says, a line for each thought."""
    lines = [_main(finding)]
    if finding.parts_right and finding.kind is not Kind.RIGHT:
        lines.append("Right so far: {} of {} parts.".format(*finding.parts_right))
    if finding.difference and finding.inputs and finding.kind not in NOT_SHOWN:
        lines += _side_by_side(finding.difference)
    lines += _besides(finding)
    if finding.inputs:
        inputs = ", ".join(f"{name} = {value}" for name, value in finding.inputs)
        lines.append(f"The smallest input that shows it: {inputs}")
    return [readable(line) for line in lines if line]


def _main(finding: Finding) -> str:
    kind, names = finding.kind, finding.names
    if kind is Kind.MISTAKE:
        where = f"{names[0]}: " if names and names[0] else ""
        return where + finding.says
    if kind is Kind.RAISED:
        return _of_error(finding)
    if kind is Kind.NOT_YET and names:
        return f"Still open: {_quoted(names)}."
    if kind is Kind.PARAMETERS:
        return (
            f"`{names[0]}` is called with {len(names) - 1} arguments: {', '.join(names[1:])}. "
            f"Keep the first line of the stub as it is."
        )
    if kind is Kind.NOT_A_FUNCTION:
        return (
            f"What came is {names[1]}. Hand over `{names[0]}` itself, without brackets behind "
            f"it: the check calls it."
        )
    if kind is Kind.NOT_A_CLASS:
        return (
            f"What came is {names[1]}. Asked is the class `{names[0]}` itself: the check makes the "
            f"objects."
        )
    if kind is Kind.NOT_ALLOWED:
        return f"It uses {', '.join(f'`{name}`' for name in names)}. Here you do without."
    if kind is Kind.TOO_LONG:
        return (
            f"After {finding.seconds:g} seconds it was stopped. Does every loop come to an end, "
            f"and does none do the same work again and again?"
        )
    if kind is Kind.CHANGED:
        return _of_change(finding)
    if kind is Kind.LENGTH and finding.difference and finding.inputs:
        return _of_length(finding.difference)
    if kind is Kind.NOTHING and finding.difference and finding.difference.part:
        return (
            f"{finding.difference.part}: it ends without a result. Is there a `return` on every "
            f"way through?"
        )
    if kind is Kind.PARTS:
        return _of_parts(finding)
    if kind is Kind.NO_CHOICE:
        part = f"{names[0]}: " if names[0] else ""
        return f"{part}{names[1]} is not among the choices: {_quoted(names[2:])}."
    if finding.difference and not finding.inputs:
        return _of_question(finding.difference)
    return SAYS[kind]


SAYS = {
    Kind.RIGHT: "",
    Kind.NOT_YET: "Nothing has changed here yet. Write your lines, run the cell, and check again.",
    Kind.DIFFERS: "It runs, and gives something else than the solution.",
    Kind.GRADIENT: (
        "All numbers are right, but `backward()` would take another way: some step on the way to "
        "the result is cut off from autograd (.detach(), .data, .item(), no_grad)."
    ),
    Kind.DETACHED: (
        "Autograd can't go back from the result to the inputs. What cuts the graph: .item(), "
        "float(), .detach(), .data, .numpy(), torch.tensor(…), torch.no_grad()."
    ),
    Kind.RANDOM: "Called twice with the same arguments, it does not agree with itself.",
    Kind.SHAPE: "The result has another shape than it should have.",
    Kind.TYPE: "The result is of another type than the solution's.",
    Kind.DTYPE: "The numbers are of a dtype that can't hold the result: digits are lost.",
    Kind.NOT_FINITE: (
        "The result holds NaN or infinity. Which step divides by zero, takes the logarithm of "
        "zero, or exponentiates a large number?"
    ),
    Kind.NOTHING: "The function ends without a result. Is there a `return` on every way through?",
}


def _of_error(finding: Finding) -> str:
    error = finding.error
    assert error is not None
    said = f"{error.type}: {error.message}" if error.message else error.type
    said = readable(said, 300)
    if error.line is None:
        return f"{said} (raised where the check uses what you wrote)"
    code = f": `{error.code}`" if error.code else ""
    return f"In line {error.line}{code}, {said}"


def _of_change(finding: Finding) -> str:
    look = "Look for an operation in place (+=, [...] =, or a name that ends with _)."
    if finding.error is not None:
        code = f"`{finding.error.code}`" if finding.error.code else "something"
        where = f"In line {finding.error.line}, {code} " if finding.error.line else "Something "
        return f"{where}changes an input in place, and whoever passed it still needs it. {look}"
    return (
        f"The result is right, but the call changes {_listed(finding.changed)}, and whoever passed "
        f"{_as_before(finding.changed)}. {look}"
    )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _of_parts(finding: Finding) -> str:
    if not finding.missing:
        return f"The answer is a dictionary with these keys: {', '.join(finding.names)}."
    unknown = f" Unknown: {', '.join(finding.unknown)}." if finding.unknown else ""
    return f"Missing: {', '.join(finding.missing)}.{unknown}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _as_before(names: Sequence[str]) -> str:
    if len(names) > 1:
        return "them still needs them as they were"
    return "it still needs it as it was"


def _of_length(difference: Difference) -> str:
    assert difference.counts is not None
    came, expected = difference.counts
    are = "result is" if expected == 1 else "results are"
    said = f"{_counted(expected)} {are} expected, {_counted(came)} came."
    return _begun(difference.part, said)


def _counted(count: int) -> str:
    words = "none one two three four five six seven eight nine ten".split()  # noqa: SIM905
    return words[count] if count < len(words) else str(count)


def _besides(finding: Finding) -> list[str]:
    """What a wrong result may also come from."""
    lines = []
    if finding.changed and finding.kind is not Kind.CHANGED:
        lines.append(f"The call also changes {_listed(finding.changed)} in place.")
    if finding.reads:
        reads = _listed(finding.reads)
        lines.append(f"Your code reads {reads} from the notebook, not from its arguments.")
    if finding.kept:
        kept = _listed(finding.kept)
        lines.append(f"The default value of {kept} is made once, and kept from call to call.")
    return lines


def _of_question(difference: Difference) -> str:
    if difference.kind is Kind.ROUNDED:
        return _begun(difference.part, "you rounded; keep what comes after the point.")
    if difference.kind is not Kind.DIFFERS:
        rest = f"; what is asked is {difference.expected}."
    elif difference.expected:
        rest = f", which is {difference.expected}."
    else:
        rest = ". This is not it."
    return _begun(difference.part, f"your answer is {difference.yours}{rest}")


def _begun(part: str, text: str) -> str:
    return f"{part}: {text}" if part else text[:1].upper() + text[1:]


def _side_by_side(difference: Difference) -> list[str]:
    if difference.place:
        at = f"at [{', '.join(map(str, difference.place))}]"
        where = f"{difference.part}, {at}" if difference.part else at.capitalize()
        return [f"{where}: yours {difference.yours}, expected {difference.expected}"]
    of = f" ({difference.part})" if difference.part else ""
    return [f"Yours{of}: {difference.yours}", f"Expected{of}: {difference.expected}"]
