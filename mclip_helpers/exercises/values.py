"""Two results side by side: in which form they come does not matter, what they say does."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
import torch

from .findings import Difference, Kind

# Sums in another order differ by about 1e-6; a wrong formula differs by more than this.
RELATIVE, ABSOLUTE = 1e-4, 1e-5
MOST_SHOWN = 16  # numbers of a tensor that are written out


def plain(value: object) -> object:
    """`value` in the one form in which results are compared.

    Numbers, arrays, and lists of numbers become tensors on the CPU; lists of anything else become
    tuples, and any set a frozenset. What is none of these stays as it is.
    """
    if isinstance(value, torch.Tensor):
        dense = value if value.layout is torch.strided else value.to_dense()
        return dense.detach().cpu().clone()
    if isinstance(value, bool | int | float | np.ndarray | np.generic):
        try:
            return torch.as_tensor(value).clone()
        except (TypeError, ValueError, RuntimeError):  # an array of objects, a number too large
            return value
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, Set):
        return frozenset(value)
    if isinstance(value, list | tuple | range):
        parts = [plain(part) for part in value]
        tensors = [part for part in parts if isinstance(part, torch.Tensor)]
        if parts and len(tensors) == len(parts) and len({t.shape for t in tensors}) == 1:
            dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors))
            return torch.stack([t.to(dtype) for t in tensors])
        return tuple(parts)
    return value


def difference(mine: object, expected: object, part: str = "") -> Difference | None:
    """The first difference between two `plain` results; None if they say the same."""
    if isinstance(expected, tuple) and isinstance(mine, torch.Tensor) and mine.dim():
        mine = tuple(mine)
    if isinstance(expected, frozenset) and isinstance(mine, tuple | torch.Tensor):
        mine = _as_set(mine)
    pairs: Iterable[tuple[str, object, object]]
    if isinstance(expected, dict) and isinstance(mine, dict) and mine.keys() == expected.keys():
        pairs = [(str(key), mine[key], value) for key, value in expected.items()]
    elif isinstance(expected, tuple) and isinstance(mine, tuple) and len(mine) == len(expected):
        pairs = [(f"[{i}]", mine[i], value) for i, value in enumerate(expected)]
    else:
        kind = _kind(mine, expected)
        return None if kind is None else Difference(kind, part, shown(mine), shown(expected))
    found = (difference(a, b, f"{part} {name}".strip()) for name, a, b in pairs)
    return next((there for there in found if there is not None), None)


def _kind(mine: object, expected: object) -> Kind | None:
    """In what way two results differ that have no parts in common; None if they don't."""
    if mine is None and expected is not None:
        return Kind.NOTHING
    match expected:
        case torch.Tensor():
            if isinstance(mine, torch.Tensor):
                return _kind_of_tensors(mine, expected)
            return Kind.SHAPE if isinstance(mine, tuple) else Kind.TYPE  # a ragged list
        case tuple():
            return Kind.SHAPE if isinstance(mine, tuple) else Kind.TYPE  # of another length
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


def _kind_of_tensors(mine: torch.Tensor, expected: torch.Tensor) -> Kind | None:
    if mine.shape != expected.shape and not mine.numel() == expected.numel() == 1:
        return Kind.SHAPE
    if mine.is_complex() and not expected.is_complex():
        return Kind.DTYPE
    a, b = mine.reshape(expected.shape).double(), expected.double()
    if b.isfinite().all() and not a.isfinite().all():
        return Kind.NOT_FINITE
    # A result in half precision is as good as half precision is.
    rounding = 4 * torch.finfo(mine.dtype).eps if mine.is_floating_point() else 0.0
    rtol, atol = max(RELATIVE, rounding), max(ABSOLUTE, rounding / 10)
    if not expected.is_floating_point():  # a count, or a position: nothing to round
        rtol, atol = 0.0, ABSOLUTE
    if torch.allclose(a, b, rtol=rtol, atol=atol):
        return None
    whole = not mine.is_floating_point()
    digits_lost = whole and expected.is_floating_point() and (a - b).abs().max() < 1
    return Kind.DTYPE if digits_lost else Kind.DIFFERS


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
        inside = ", ".join(f"{key}: {shown(part)}" for key, part in value.items())
        return _cut(f"{{{inside}}}")
    if isinstance(value, Set):
        return _cut("{" + ", ".join(sorted(map(str, value))) + "}" if value else "nothing")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _cut("[" + ", ".join(map(shown, value)) + "]")
    if isinstance(value, float):
        return _numbers(value)
    return _cut(str(value) if isinstance(value, str | int | None) else _repr(value))


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
