"""What a run reported, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..display import Drawable, Table

RUN_COLUMNS = ("epoch", "loss")  # of an epoch's record; every other key names an evaluated dataset


@dataclass
class History(Drawable):
    """A record for each step (loss, lr) and for each epoch (epoch, loss, R@1 of each dataset).

    `plot()` draws the loss and R@1. In a notebook, a history shows itself as its `table()`.
    """

    steps: list[dict[str, float]] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)

    @property
    def evaluated(self) -> list[str]:
        """The names of the datasets that were evaluated after each epoch."""
        return [key for key in (self.epochs[0] if self.epochs else {}) if key not in RUN_COLUMNS]

    def table(self) -> Table:
        """One row for each epoch: its number, its mean loss, and R@1 of each dataset."""
        rows = [
            [epoch["epoch"], f"{epoch['loss']:.3f}", *(f"{epoch[k]:.1%}" for k in self.evaluated)]
            for epoch in self.epochs
        ]
        return Table([*RUN_COLUMNS, *self.evaluated], rows)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()
