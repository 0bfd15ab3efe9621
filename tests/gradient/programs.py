"""Random small computations for the tests of the recorder."""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from recording import leaf
from torch.utils.checkpoint import checkpoint

SHAPE = (3, 3)
UNARY = {
    "sin": torch.sin,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": lambda a: a.softmax(1),
    "transposed": lambda a: a.T,
    "from zero": lambda a: a * 0,
    "row": lambda a: a[1].expand(SHAPE),
    "one of several results": lambda a: a.unbind(0)[2].repeat(3, 1),
    "in place": lambda a: a.clone().mul_(2),
    "copied into": lambda a: _copied_into(a),
    "detached": lambda a: a.detach(),
    "normal": lambda a: F.layer_norm(a, (3,)),
    "again": lambda a: checkpoint(_twice, a, use_reentrant=False),
}
BINARY = {
    "plus": operator.add,
    "times": lambda a, b: (a * b).tanh(),
    "matmul": lambda a, b: (a @ b).tanh(),
    "cut": lambda a, b: torch.cat([a, b])[2:5],
    "half": lambda a, b: torch.cat([a, b]).chunk(2)[1],
    "chosen": lambda a, b: torch.where(a.detach() > 0, a, b),
}


def _copied_into(a: torch.Tensor) -> torch.Tensor:
    result = a.clone()
    result[0] = a[1].sin()
    return result


def _twice(a: torch.Tensor) -> torch.Tensor:
    return (a * a).sin() + a.cos()


def programs(without: tuple[str, ...] = ()):
    """Lists of (operation, one earlier value, another); a program's first values are its leaves."""
    names = st.sampled_from([n for n in (*UNARY, *BINARY) if n not in without])
    line = st.tuples(names, st.integers(0, 30), st.integers(0, 30))
    return st.lists(line, min_size=1, max_size=9)


def run(program, leaves: list[torch.Tensor]) -> torch.Tensor:
    """Compute what a program says, down to one number."""
    values = list(leaves)
    for name, i, j in program:
        a, b = values[-1 - i % len(values)], values[-1 - j % len(values)]
        if name == "again" and not a.requires_grad:
            values.append(_twice(a))  # else PyTorch warns that nothing there needs a gradient
        else:
            values.append(UNARY[name](a) if name in UNARY else BINARY[name](a, b))
    return (values[-1] + 0.1 * values[0] + values[len(values) // 2]).sin().sum()


def some_leaves(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    return {name: leaf(*SHAPE, dtype=dtype, seed=i) for i, name in enumerate("abc")}
