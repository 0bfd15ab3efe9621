"""What the small map in a frame of the strip holds: rows of groups, few enough to be read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ..gradient.boxes import DarkGroup, Group, LeafGroup
from ..gradient.derivatives import stem
from ..gradient.kinds import Darkness, Kind, Level
from ..gradient.scenes import Frames
from ..names import short_name

ROWS = 9  # of a column: the letters of more would be too small to print


@dataclass
class Row:
    """A box of the map: groups that lie under one another, and the leaves beside them."""

    label: str
    kind: Kind
    groups: list[Group]
    beside: list[LeafGroup] = field(default_factory=list)

    @property
    def order(self) -> float:
        """When the backward pass first came here; infinite if it never did."""
        return min((g.order for g in self.groups if g.order is not None), default=float("inf"))

    @property
    def nodes(self) -> set[int]:
        return {node for group in self.groups for node in group.nodes}


@dataclass(frozen=True)
class StripMap:
    """The loss on top, and a column of rows for each tower, or one for everything."""

    loss: Row | None
    columns: list[list[Row]]

    @property
    def rows(self) -> list[Row]:
        return [*([self.loss] if self.loss else []), *(r for rows in self.columns for r in rows)]


def strip_map(frames: Frames) -> StripMap:
    """The map that all frames have in common."""
    by_tower: dict[Kind, list[Row]] = {}
    for group in _in_order(frames.shown.groups):
        row = Row(stem(short_name(group.label)), group.kind, [group])
        by_tower.setdefault(group.tower, []).append(row)
    stopped = _groups_stopped_at(frames)
    towers = [tower for tower in (Kind.IMAGE, Kind.TEXT) if tower in by_tower]
    loss = None
    if towers:
        first = [group for row in by_tower.get(Kind.LOSS, []) for group in row.groups]
        loss = Row("loss", Kind.LOSS, first) if first else None
        columns = [by_tower[tower] for tower in towers]
    else:
        columns = [[row for rows in by_tower.values() for row in rows]]
    level = frames.shown.level
    plan = StripMap(loss, [_few_rows(rows, stopped, level) for rows in columns])
    _put_leaves_beside(plan, frames)
    return plan


def _in_order(groups: Sequence[Group]) -> list[Group]:
    """The groups of operations, as the pass came to them; below them what stayed dark."""
    dark = [group for group in groups if group.kind is Kind.DARK]
    ran = [group for group in groups if group.kind is not Kind.DARK and not group.is_leaf]
    return [*sorted(ran, key=lambda g: g.order or float("inf")), *reversed(dark)]


def _groups_stopped_at(frames: Frames) -> set[str]:
    groups = [frames.shown.group_of(frame.node.index) for frame in frames.frames]
    return {group.key for group in groups if group is not None}


def _put_leaves_beside(plan: StripMap, frames: Frames) -> None:
    """Each group of leaves beside the first row that hands it a gradient."""
    row_of = {group.key: row for row in plan.rows for group in row.groups}
    leaves = {g.key: g for g in frames.shown.groups if isinstance(g, LeafGroup)}
    for a, b in frames.shown.edges:
        if b in leaves and a in row_of:
            row_of[a].beside.append(leaves.pop(b))


def _few_rows(rows: list[Row], stopped: Collection[str], level: Level) -> list[Row]:
    """The rows, so few that they can be read: neighbours share one where no frame stops.

    `stopped` has the keys of the groups that a frame stops at; those stay by themselves.
    """
    dark = [row for row in rows if row.kind is Kind.DARK]
    lit = [row for row in rows if row.kind is not Kind.DARK]
    if len(dark) > 2:
        dark = [_one_dark_row(dark, level)]
    room = ROWS - len(dark)
    merged = lit
    for alike in (True, False):  # blocks of one stage if that is enough, else whatever is near
        for most in range(1, len(lit) + 1):
            merged = _merged(lit, stopped, most, alike)
            if len(merged) <= room:
                return merged + dark
    return merged + dark


def _one_dark_row(dark: Sequence[Row], level: Level) -> Row:
    groups = [row.groups[0] for row in dark]
    frozen = all(
        isinstance(group, DarkGroup) and group.darkness is Darkness.FROZEN for group in groups
    )
    return Row(f"{len(dark)} {'frozen' if frozen else 'dark'} {level}", Kind.DARK, groups)


def _merged(rows: Sequence[Row], stopped: Collection[str], most: int, alike: bool) -> list[Row]:
    """The rows, at most so many in one; if `alike`, only those of one stage, or one kind."""
    merged: list[Row] = []
    alone = True
    for row in rows:
        stops = row.groups[0].key in stopped
        last = merged[-1] if merged else None
        if (
            last is not None
            and not alone
            and not stops
            and len(last.groups) < most
            and (not alike or _stage(last.groups[0]) == _stage(row.groups[0]) is not None)
        ):
            last.groups += row.groups
            last.kind = row.kind if last.kind is Kind.ADAPTER else last.kind
            last.label = span([stem(short_name(group.label)) for group in last.groups])
        else:
            merged.append(Row(row.label, row.kind, list(row.groups)))
            alone = stops
    return merged


def _stage(group: Group) -> str | None:
    """What the names of blocks that belong together have in common: "stages.3", "resblocks"."""
    parts = short_name(group.place).split(".")
    return ".".join(parts[: 2 if parts[0] == "stages" else 1]) if len(parts) > 1 else None


def span(labels: Sequence[str]) -> str:
    """One label for several: "resblocks.11…9", "stages.3 × 4", "head + 2"."""
    stems, ends = zip(*(label.rpartition(".")[::2] for label in labels), strict=True)
    if len(set(stems)) == 1 and stems[0] and all(end.isdigit() for end in ends):
        return f"{labels[0]}…{ends[-1]}"
    parts = {".".join(label.split(".")[:2]) for label in labels}
    if len(parts) == 1:
        return f"{parts.pop()} × {len(labels)}"
    return f"{labels[0]} + {len(labels) - 1}"
