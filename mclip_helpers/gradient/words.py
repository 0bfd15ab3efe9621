"""The words for what was recorded: verdicts, reasons, kinds. No code reads one back.

What an operation does with its gradient has words of its own, in `derivatives`.
"""

from __future__ import annotations

from collections.abc import Iterable

from .kinds import Darkness, Kind, Scene
from .reasons import Cause, Reason, Verdict

VERDICTS = {
    Verdict.REACHED: "reached",
    Verdict.ZERO: "exactly zero",
    Verdict.NOT_REACHED: "not reached",
    Verdict.FROZEN: "frozen",
}

CAUSES = {
    Cause.FROZEN: "requires_grad is False",
    Cause.NOT_CALLED: "its module was never called",
    Cause.NO_GRAD: "{module} ran under no_grad",
    Cause.DETACHED: "what {module} returned needs no gradient: it was detached inside",
    Cause.CUT_OFF: "cut off: what {module} returned was detached, or is not used",
    Cause.UNUSED: "nothing in the graph was computed from it",
    Cause.NOT_VISITED: "it is in the graph, but the backward pass did not come to it",
    Cause.NOTHING_ARRIVED: "the backward pass came to it, but brought no gradient",
    Cause.ZERO_FACTOR: "{parameter} is all zeros, and {operation} multiplies by it",
    Cause.ZERO_MADE: "{operation} in {module} made it zero",
    Cause.ZERO_LOSS: "it was zero from the loss on",
    Cause.NOT_IN_OPTIMIZER: "the optimizer was not given it",
}

KINDS = {
    Kind.LOSS: "loss",
    Kind.IMAGE: "image tower",
    Kind.TEXT: "text tower",
    Kind.MODEL: "model",
    Kind.ADAPTER: "adapter",
    Kind.WEIGHTS: "trained weights",
    Kind.INPUT: "input",
    Kind.DARK: "no gradient is computed here",
}

DARKNESS = {
    Darkness.NO_GRAD: "ran under no_grad",
    Darkness.LOST: "leads nowhere: detached, or not used",
    Darkness.FROZEN: "{weights:,} frozen weights",
}

NOTHING_WITHIN = DARKNESS | {Darkness.FROZEN: "nothing in it needs a gradient"}

LEAVES = {  # what several leaves in one box are called
    Kind.ADAPTER: "{count} matrices A, B",
    Kind.WEIGHTS: "{count} weights",
    Kind.INPUT: "{count} input{plural}",
}
REST, WHOLE = "the rest of the {tower} tower", "the whole {tower} tower"
CALL = "{name} (call {call})"

SCENES = {
    Scene.LOSS: "the loss, where it begins",
    Scene.ARRIVED: "{name}: arrived",
    Scene.ZERO: "{name}: exactly zero",
    Scene.PARTING: "the paths to the towers part",
    Scene.TOWER: "into the {name} tower",
    Scene.BLOCK: "into its block, {name}",
    Scene.LAYER: "into its layer, {name}",
    Scene.BETWEEN: "{name}",
}


def reason(given: Reason) -> str:
    """A reason as a sentence."""
    nowhere = "the loss" if given.cause is Cause.ZERO_MADE else "the model"
    return CAUSES[given.cause].format(
        module=given.module or nowhere,
        parameter=given.part or given.parameter,
        operation=given.operation,
    )


def why(reasons: Iterable[Reason]) -> str:
    """Several reasons in one line; empty if there is none."""
    return "; ".join(map(reason, reasons))


def short_shape(shape: tuple[int, ...] | None) -> str:
    """ "16 × 256"; "one number" for a scalar, "?" if it is not known."""
    if shape is None:
        return "?"
    return " × ".join(map(str, shape)) if shape else "one number"


def short_number(norm: float | None) -> str:
    """Two digits of it; a dash for none."""
    return "–" if norm is None else "0" if norm == 0 else f"{norm:.2g}"
