"""The words for what was recorded: verdicts, reasons, kinds. No code reads one back.

Each table has them by the value of an enumeration in `reasons` or `kinds`. What an operation does
with its gradient has words of its own, in `derivatives`.
"""

from __future__ import annotations

VERDICTS = {
    "reached": "reached",
    "zero": "exactly zero",
    "not_reached": "not reached",
    "frozen": "frozen",
}

CAUSES = {
    "frozen": "requires_grad is False",
    "not_called": "its module was never called",
    "no_grad": "{module} ran under no_grad",
    "detached": "what {module} returned needs no gradient: it was detached inside",
    "cut_off": "cut off: what {module} returned was detached, or is not used",
    "unused": "nothing in the graph was computed from it",
    "not_visited": "it is in the graph, but the backward pass did not come to it",
    "nothing_arrived": "the backward pass came to it, but brought no gradient",
    "zero_factor": "{parameter} is all zeros, and {operation} multiplies by it",
    "zero_made": "{operation} {where} made it zero",
    "zero_loss": "it was zero from the loss on",
    "not_in_optimizer": "the optimizer was not given it",
}
THE_MODEL, OUTSIDE = "the model", "outside of every module"  # where a module has no name

KINDS = {
    "loss": "loss",
    "image": "image tower",
    "text": "text tower",
    "model": "model",
    "adapter": "adapter",
    "weights": "trained weights",
    "input": "input",
    "dark": "no gradient is computed here",
}

DARKNESS = {
    "no_grad": "ran under no_grad",
    "lost": "leads nowhere: detached, or not used",
    "frozen": "{weights:,} frozen weights",
}
NOTHING_WITHIN = DARKNESS | {"frozen": "nothing in it needs a gradient"}

LEAVES = {  # what the leaves in one box are called
    "adapter": "{count} matrices A, B",
    "weights": "{count} weights",
    "input": "{count} input{plural}",
}
REST, WHOLE = "the rest of the {tower} tower", "the whole {tower} tower"
CALL = "{name} (call {call})"

SCENES = {
    "loss": "the loss, where it begins",
    "arrived": "{name}: arrived",
    "zero": "{name}: exactly zero",
    "parting": "the paths to the towers part",
    "tower": "into the {name} tower",
    "block": "into its block, {name}",
    "layer": "into its layer, {name}",
    "between": "{name}",
}


def short_shape(shape: tuple[int, ...] | None) -> str:
    """ "16 × 256"; "one number" for a scalar, "?" if it is not known."""
    if shape is None:
        return "?"
    return " × ".join(map(str, shape)) if shape else "one number"


def short_number(norm: float | None) -> str:
    """Two digits of it; a dash for none."""
    return "–" if norm is None else "0" if norm == 0 else f"{norm:.2g}"
