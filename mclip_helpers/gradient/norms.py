"""The norm of a gradient: zero only where every number is, and at once where that is cheap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .nodes import Visit

# The type in which a CPU adds up the squares of a half-precision gradient; others keep their own.
WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
Norm = torch.Tensor | float  # a tensor for as long as it is on another device than the CPU
# Beyond these bounds the squares of single-precision numbers may be zero or infinite.
SAFE = (1e-15, 1e15)


def norm(gradient: torch.Tensor) -> Norm:
    """The Euclidean norm, as a number on the CPU and as a tensor elsewhere (see `fetch`).

    Raises NotImplementedError for a sparse or complex gradient.
    """
    if gradient.requires_grad:  # only under `create_graph`
        gradient = gradient.detach()
    if gradient.layout is not torch.strided or gradient.is_complex():
        kind = "complex" if gradient.is_complex() else f"sparse ({gradient.layout})"
        raise NotImplementedError(
            f"a gradient of shape {tuple(gradient.shape)} is {kind}: the recorder reads dense, "
            f"real gradients only. (An nn.Embedding gives dense ones with sparse=False.)"
        )
    if not gradient.is_cpu:
        wide = None if gradient.device.type == "mps" else torch.float64  # MPS has no float64
        return torch.linalg.vector_norm(gradient, dtype=wide)
    value = torch.linalg.vector_norm(gradient, dtype=WIDE.get(gradient.dtype)).item()
    if SAFE[0] < value < SAFE[1] or (value == 0 and not gradient.any()):
        return value
    return _scaled_norm(gradient.double(), value)  # takes a CPU many times as long


def _scaled_norm(gradient: torch.Tensor, value: float) -> float:
    """The norm without squares that are too small or too large; `value` if it is not finite."""
    largest = gradient.abs().max()
    if 0 < largest < math.inf:
        return (torch.linalg.vector_norm(gradient / largest) * largest).item()
    return value


def fetch(visits: Sequence[Visit]) -> None:
    """Replace norms that are still tensors by numbers, all of one device in one transfer."""
    by_device: dict[tuple, list[torch.Tensor]] = {}
    for visit in visits:
        for value in visit.incoming + (visit.outgoing or ()):
            if isinstance(value, torch.Tensor):
                by_device.setdefault((value.device, value.dtype), []).append(value)
    if not by_device:
        return
    number: dict[int, float] = {}
    for values in by_device.values():
        fetched = torch.stack(values).tolist()
        number |= {id(value): n for value, n in zip(values, fetched, strict=True)}
    for visit in visits:
        visit.incoming = tuple(number.get(id(value), value) for value in visit.incoming)
        if visit.outgoing is not None:
            visit.outgoing = tuple(number.get(id(value), value) for value in visit.outgoing)
