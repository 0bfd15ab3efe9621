"""Progress bars: whatever takes more than a moment says how far it is."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

QUIET = 2.0  # seconds without a bar: what is done by then needs none

T = TypeVar("T")


def progress_bar(
    items: Iterable[T], title: str, unit: str, *, total: int | None = None, shown: bool = True
) -> tqdm[T]:
    """`items`, with a bar from two seconds on, which goes away at the end; it is a `tqdm`.

    `unit` is the plural of what is counted ("pictures"); `total`, if `items` has no length. With
    Ctrl-C the loop over it stops as any other.
    """
    return tqdm(
        items,
        desc=title,
        unit=f" {unit}",
        total=total,
        file=sys.stdout,
        disable=not shown,
        delay=QUIET,
        leave=False,
    )
