"""Checks of arguments that many functions share. Each raises one sentence with what would do."""

from __future__ import annotations

import math
import numbers


def whole_number(
    name: str, value: object, *, least: int | None = None, most: int | None = None
) -> int:
    """`value` as an int. ValueError if it is no whole number (True is none), or out of bounds."""
    wanted = f"a whole number{_bounds(least, most)}"
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise ValueError(f"{name} is {_shown(value)}; it must be {wanted}")
    if not _within(int(value), least, most):
        raise ValueError(f"{name} is {value}; it must be {wanted}")
    return int(value)


def true_or_false(name: str, value: object) -> bool:
    """`value`, if it is True or False; else ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r:.60}; it must be True or False")
    return value


def seed_number(value: object, name: str = "seed") -> int:
    """`value` as an int. ValueError unless it is from 0 to 2³² − 1, which NumPy takes, too."""
    return whole_number(name, value, least=0, most=2**32 - 1)


def finite_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> float:
    """`value` as a float. ValueError if it is no number, NaN, infinite, or out of bounds.

    `above` and `below` exclude the bound, `least` and `most` include it.
    """
    limits = [("above", above), ("below", below)]
    words = [f"{word} {bound:g}" for word, bound in limits if bound is not None]
    wanted = "a finite number" + (", " if words else "") + " and ".join(words)
    wanted += _bounds(least, most)
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"{name} is {_shown(value)}; it must be {wanted}")
    number = float(value)
    inside = (
        math.isfinite(number)
        and (above is None or number > above)
        and (below is None or number < below)
        and _within(number, least, most)
    )
    if not inside:
        raise ValueError(f"{name} is {value}; it must be {wanted}")
    return number


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _bounds(least: float | None, most: float | None) -> str:
    limits = [("at least", least), ("at most", most)]
    words = [f"{word} {bound:g}" for word, bound in limits if bound is not None]
    return (", " if words else "") + " and ".join(words)


def _shown(value: object) -> str:
    """`'8' (a str)`: what came, and why it is not the number it looks like."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '…'} (a {type(value).__name__})"
