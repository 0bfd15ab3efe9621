"""Two results side by side: in which form they come does not matter, what they say does."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch

from .findings import Difference, Kind

# Sums in another order differ by about 1e-6; a wrong formula differs by more than this.
RELATIVE, ABSOLUTE = 1e-4, 1e-5
MOST_SHOWN = 16  # numbers of a tensor that are written out


class Said(str):
    """A word of a check itself, which is shown without quotes."""


def plain(value: object) -> object:
    """`value` in the one form in which results are compared.

    Numbers, arrays, and lists of numbers become tensors on the CPU; lists of anything else become
    tuples, and any set a frozenset. A tuple of tensors stays one: these are several results. What
    is none of these stays as it is.
    """
    if isinstance(value, torch.Tensor):
        dense = value if value.layout is torch.strided else value.to_dense()
        return dense.detach().cpu().clone()
    if isinstance(value, bool | int | float | Fraction | Decimal | np.ndarray | np.generic):
        try:
            value = float(value) if isinstance(value, Fraction | Decimal) else value
            return torch.as_tensor(value).clone()
        except (TypeError, ValueError, RuntimeError, OverflowError):  # of objects, or too large
            return value
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, Set):
        return frozenset(value)
    if isinstance(value, list | tuple | range):
        parts = [plain(part) for part in value]
        several = isinstance(value, tuple) and any(_has_axes(part) for part in parts)
        return tuple(parts) if several else _stacked(parts)
    return value


def _has_axes(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0


def _stacked(parts: Sequence[object]) -> object:
    """One tensor of tensors of the same shape; of anything else, a tuple."""
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    if parts and len(tensors) == len(parts) and len({t.shape for t in tensors}) == 1:
        dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors))
        return torch.stack([t.to(dtype) for t in tensors])
    return tuple(parts)


def difference(mine: object, expected: object, part: str = "") -> Difference | None:
    """The first difference between two `plain` results; None if they say the same."""
    mine = _in_the_form_of(expected, mine)
    pairs: Iterable[tuple[str, object, object]] = ()
    whole = False  # whether the parts are all there is to compare
    if isinstance(expected, dict) and isinstance(mine, dict) and mine.keys() <= expected.keys():
        pairs = [(str(key), mine[key], expected[key]) for key in expected if key in mine]
        whole = len(mine) == len(expected)
    elif isinstance(expected, tuple) and isinstance(mine, tuple) and len(mine) == len(expected):
        pairs = [(f"[{i}]", mine[i], value) for i, value in enumerate(expected)]
        whole = True
    found = (difference(a, b, f"{part} {name}".strip()) for name, a, b in pairs)
    first = next((there for there in found if there is not None), None)
    return first if first or whole else _of_whole(mine, expected, part)


def _in_the_form_of(expected: object, mine: object) -> object:
    """`mine` as a tuple, a tensor or a set, if that is expected and it can be one."""
    match expected:
        case tuple() if _has_axes(mine) and len(mine) == len(expected):  # type: ignore[arg-type]
            return tuple(mine)  # type: ignore[arg-type]
        case torch.Tensor() if isinstance(mine, tuple):
            stacked = _stacked(mine)
            fits = isinstance(stacked, torch.Tensor) and stacked.shape == expected.shape
            return stacked if fits else mine
        case frozenset() if isinstance(mine, tuple | torch.Tensor):
            return _as_set(mine)
    return mine


def _of_whole(mine: object, expected: object, part: str) -> Difference | None:
    kind = _kind(mine, expected)
    if kind is None:
        return None
    found = Difference(kind, part, shown(mine), shown(expected))
    if kind is Kind.LENGTH:
        return replace(found, counts=(_count(mine), _count(expected)))
    if not (isinstance(mine, torch.Tensor) and isinstance(expected, torch.Tensor)):
        return found
    if mine.shape != expected.shape or mine.numel() <= MOST_SHOWN:
        return found
    place = _first_apart(mine, expected)
    if not place:  # complex numbers without an imaginary part
        return found
    yours, theirs = shown(mine[place]), shown(expected[place])
    return replace(found, yours=yours, expected=theirs, place=place)


def _count(value: object) -> int:
    """How many results these are; a tensor with several axes is one."""
    one = isinstance(value, torch.Tensor) and value.dim() != 1
    return 1 if one else len(value)  # type: ignore[arg-type]


def _first_apart(mine: torch.Tensor, expected: torch.Tensor) -> tuple[int, ...]:
    """The indices of the first number that differs, or that is not finite; () if none does."""
    rtol, atol = _tolerance(mine, expected)
    apart = ~torch.isclose(*_comparable(mine, expected), rtol=rtol, atol=atol)
    return tuple(apart.nonzero()[:1].flatten().tolist())


def _kind(mine: object, expected: object) -> Kind | None:
    """In what way two results differ that have no parts in common; None if they don't."""
    if mine is None and expected is not None:
        return Kind.NOTHING
    match expected:
        case torch.Tensor():
            if isinstance(mine, torch.Tensor):
                return _kind_of_tensors(mine, expected)
            if not isinstance(mine, tuple):
                return Kind.TYPE
            ragged = mine and not isinstance(_stacked(mine), torch.Tensor)
            return Kind.SHAPE if ragged else _kind_of_counts(mine, expected)
        case tuple():
            several = isinstance(mine, tuple) or _has_axes(mine)
            return Kind.LENGTH if several else Kind.TYPE
        case str():
            if not isinstance(mine, str):
                return Kind.TYPE
            same = mine.strip().casefold() == expected.strip().casefold()
        case _:
            if type(mine) is not type(expected):
                return Kind.TYPE
            try:
                same = bool(mine == expected)
            except Exception:  # of a class of the learner's, or of a library's
                same = False
    return None if same else Kind.DIFFERS


def _kind_of_counts(mine: tuple, expected: torch.Tensor) -> Kind:
    """Of several results where one tensor is expected, or none."""
    shape_says_more = expected.dim() > 1 and not mine
    return Kind.SHAPE if shape_says_more or len(mine) == _count(expected) else Kind.LENGTH


def _kind_of_tensors(mine: torch.Tensor, expected: torch.Tensor) -> Kind | None:
    if mine.shape != expected.shape and not mine.numel() == expected.numel() == 1:
        flat = mine.dim() <= 1 and expected.dim() <= 1
        return Kind.LENGTH if flat else Kind.SHAPE
    if mine.is_complex() and not expected.is_complex():
        return Kind.DTYPE
    a, b = _comparable(mine, expected)
    if b.isfinite().all() and not a.isfinite().all():
        return Kind.NOT_FINITE
    rtol, atol = _tolerance(mine, expected)
    if torch.allclose(a, b, rtol=rtol, atol=atol):
        return None
    whole = not mine.is_floating_point()
    digits_lost = whole and expected.is_floating_point() and (a - b).abs().max() < 1
    return Kind.DTYPE if digits_lost else Kind.DIFFERS


def _comparable(mine: torch.Tensor, expected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    wide = torch.complex128 if mine.is_complex() or expected.is_complex() else torch.float64
    return mine.reshape(expected.shape).to(wide), expected.to(wide)


def _tolerance(mine: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """How far apart two numbers may be, relative and absolute."""
    if not expected.is_floating_point():  # a count, or a position: nothing to round
        return 0.0, ABSOLUTE
    # A result in half precision is as good as half precision is.
    rounding = 4 * torch.finfo(mine.dtype).eps if mine.is_floating_point() else 0.0
    return max(RELATIVE, rounding), max(ABSOLUTE, rounding / 10)


def _as_set(several: tuple | torch.Tensor) -> object:
    """Its items without order; as it is, if they can't be in a set."""
    try:
        return frozenset(several.tolist() if isinstance(several, torch.Tensor) else several)
    except TypeError:
        return several


def shown(value: object) -> str:
    """A result in a few letters: numbers to four digits, and of many the shape."""
    if isinstance(value, torch.Tensor):
        if value.numel() > MOST_SHOWN:
            return f"a tensor of shape {tuple(value.shape)}"
        return _numbers(value.detach().cpu().tolist())
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    if isinstance(value, torch.autograd.graph.Node):
        return value.name().rpartition("::")[2]
    if isinstance(value, Mapping):
        inside = ", ".join(f"{shown(key)}: {shown(part)}" for key, part in value.items())
        return _cut(f"{{{inside}}}")
    if isinstance(value, Set):
        return _cut("{" + ", ".join(sorted(map(shown, value))) + "}" if value else "nothing")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _cut("[" + ", ".join(map(shown, value)) + "]")
    if isinstance(value, float):
        return _numbers(value)
    if isinstance(value, str):
        return _cut(value) if isinstance(value, Said) else f'"{_cut(value)}"'
    return _cut(str(value) if isinstance(value, int | None) else _repr(value))


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # of a class of the learner's
        return f"a {type(value).__name__}"


def _numbers(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_numbers, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cut(text: str, longest: int = 160) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
