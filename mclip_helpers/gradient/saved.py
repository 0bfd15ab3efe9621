"""The memory that autograd keeps between the forward and the backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..display import ShownAsPicture, Table
from ..names import block_of, clean_name, tower_of
from .kinds import Kind, Level


@dataclass(frozen=True)
class Saved(ShownAsPicture):
    """Bytes of the *saved tensors*, which autograd keeps for the backward pass.

    `modules` has them by the full name of the module that first saved them ("" outside of any).
    Two saved tensors that share their memory count once. The model's own parameters and buffers
    are there anyway: they are left out of `modules`, and their bytes are `of_the_model`.

    `plot(name="this step", **others)` draws a bar for each block, those of `others` beside them.
    """

    modules: Mapping[str, int]
    of_the_model: int = 0

    @property
    def total(self) -> int:
        return sum(self.modules.values())

    def by(self, level: str) -> dict[str, int]:
        """Added up by "towers", "blocks" or "modules". ValueError for another level."""
        totals: dict[str, int] = {}
        for name, size in self.modules.items():
            place = _place(clean_name(name), level)
            totals[place] = totals.get(place, 0) + size
        return totals

    def by_block(self) -> dict[tuple[Kind, str], int]:
        """Added up by tower and block: (LOSS, "") outside of every module."""
        totals: dict[tuple[Kind, str], int] = {}
        for name, size in self.modules.items():
            place = (Kind(tower_of(name) or Kind.LOSS), block_of(name) if name else "")
            totals[place] = totals.get(place, 0) + size
        return totals

    def __repr__(self) -> str:
        rows = [[name, f"{size:,}"] for name, size in self.by("blocks").items()]
        return str(Table(["made by", "bytes saved"], [*rows, ["all", f"{self.total:,}"]]))


def _place(name: str, level: str) -> str:
    """Where the bytes of the module `name` (without PEFT) are counted at `level`."""
    if level not in (Level.TOWERS, Level.BLOCKS, Level.MODULES):
        raise ValueError(f"level is {level!r}; bytes are known by towers, blocks, modules")
    if not name:
        return Kind.LOSS
    tower = tower_of(name) or Kind.LOSS
    if level == Level.TOWERS:
        return tower
    return name if level == Level.MODULES else f"{tower}: {block_of(name)}"
