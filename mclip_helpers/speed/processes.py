"""Several processes, each with a part of every batch: together they take the step of one.

A pair is compared with every other pair, also with those of other processes. So features are
gathered *with their gradient*: what another process's rows learn from mine comes back to me. Each
process computes the same loss of the whole batch; its features get the sum of what all of them
found, and the mean over processes of the weights' gradients is then that of one process with all.

Where no process group was started (`accelerate launch`, `torchrun`), all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather


def is_distributed() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def share() -> tuple[int, int]:
    """The number of this process, from 0, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


def is_main() -> bool:
    """Whether this process is the one that writes files and shows bars."""
    return share()[0] == 0


def gather(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, process by process; their gradient finds its way back.

    Every process must have as many.
    """
    return torch.cat(all_gather(rows.contiguous())) if is_distributed() else rows


def gather_numbers(rows: torch.Tensor) -> torch.Tensor:
    """The same of whole numbers, such as tokens, which have no gradient."""
    if not is_distributed():
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Put the mean over all processes into each parameter's `.grad`; where one has none, zeros."""
    if not is_distributed():
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()


def require_alike(what: str, value: object) -> None:
    """ValueError, in every process, unless all have an equal `value`."""
    if not is_distributed():
        return
    values: list[object] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    others = [i for i, other in enumerate(values) if other != values[0]]
    if others:
        raise ValueError(
            f"{what} of process {others[0]} is not that of process 0: {values[others[0]]!r:.200} "
            f"beside {values[0]!r:.200}. Every process must load the same model and pictures, with "
            f"the same seed before inject_lora"
        )
