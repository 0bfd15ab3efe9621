"""Two results side by side: in which form they come does not matter, what they say does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

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
            return torch.stack([t.to(torch.result_type(t, tensors[0])) for t in tensors])
        return tuple(parts)
    return value


def difference(mine: object, expected: object, part: str = "") -> Difference | None:
    """The first difference between two `plain` results; None if they say the same."""

    def found(kind: Kind) -> Difference:
        return Difference(kind, part, shown(mine), shown(expected))

    if mine is None and expected is not None:
        return found(Kind.NOTHING)
    if isinstance(expected, torch.Tensor):
        return (
            _tensors(mine, expected, found)
            if isinstance(mine, torch.Tensor)
            else (found(Kind.SHAPE if isinstance(mine, tuple) else Kind.TYPE))
        )
    if isinstance(expected, dict):
        if not isinstance(mine, dict):
            return found(Kind.TYPE)
        if mine.keys() != expected.keys():
            return Difference(Kind.DIFFERS, part, shown([*mine]), shown([*expected]))
        return _first(((str(key), mine[key], expected[key]) for key in expected), part)
    if isinstance(expected, frozenset):
        if isinstance(mine, tuple) or (isinstance(mine, torch.Tensor) and mine.dim() == 1):
            mine = _as_set(mine)
        if not isinstance(mine, frozenset):
            return found(Kind.TYPE)
        return None if mine == expected else found(Kind.DIFFERS)
    if isinstance(expected, tuple):
        if isinstance(mine, torch.Tensor) and mine.dim():
            mine = tuple(mine)
        if not isinstance(mine, tuple):
            return found(Kind.TYPE)
        if len(mine) != len(expected):
            return found(Kind.SHAPE)
        parts = enumerate(zip(mine, expected, strict=True))
        return _first(((f"[{i}]", a, b) for i, (a, b) in parts), part)
    if isinstance(expected, str):
        if not isinstance(mine, str):
            return found(Kind.TYPE)
        return (
            None
            if mine.strip().casefold() == expected.strip().casefold()
            else (found(Kind.DIFFERS))
        )
    try:
        same = bool(mine == expected)
    except Exception:  # of a class of the learner's, or of a library's
        same = False
    return None if same else found(Kind.TYPE if type(mine) is not type(expected) else Kind.DIFFERS)


def _first(parts, whole: str) -> Difference | None:  # type: ignore[no-untyped-def]
    for name, mine, expected in parts:
        there = difference(mine, expected, f"{whole} {name}".strip())
        if there is not None:
            return there
    return None


def _tensors(mine: torch.Tensor, expected: torch.Tensor, found) -> Difference | None:  # type: ignore[no-untyped-def]
    if mine.shape != expected.shape and not mine.numel() == expected.numel() == 1:
        return found(Kind.SHAPE)
    if mine.is_complex() and not expected.is_complex():
        return found(Kind.DTYPE)
    a, b = mine.reshape(expected.shape).double(), expected.double()
    if b.isfinite().all() and not a.isfinite().all():
        return found(Kind.NOT_FINITE)
    # A result in half precision is as good as half precision is.
    rounding = 4 * torch.finfo(mine.dtype).eps if mine.is_floating_point() else 0.0
    rtol, atol = max(RELATIVE, rounding), max(ABSOLUTE, rounding / 10)
    if not expected.is_floating_point():  # a count, or a position: nothing to round
        rtol, atol = 0.0, ABSOLUTE
    if torch.allclose(a, b, rtol=rtol, atol=atol):
        return None
    whole = not mine.is_floating_point()
    if whole and expected.is_floating_point() and (a - b).abs().max() < 1:
        return found(Kind.DTYPE)
    return found(Kind.DIFFERS)


def _as_set(several: object) -> frozenset:
    try:
        items = several.tolist() if isinstance(several, torch.Tensor) else several
        return frozenset(items)  # type: ignore[call-overload]
    except TypeError:  # of what can't be in a set
        return frozenset()


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
