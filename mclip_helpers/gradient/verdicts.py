"""The gradient of every parameter: who got one, who did not, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..display import Drawable, Table
from ..names import clean_name, is_adapter, layer_and_part, tower_of
from .reasons import Cause, Reason, Verdict, join_reasons

ORDER = (Verdict.REACHED, Verdict.ZERO, Verdict.NOT_REACHED, Verdict.FROZEN)


@dataclass(slots=True, unsafe_hash=True)
class Gradient:
    """One parameter and the norm of its gradient; None if it has none.

    `name` is its name without PEFT; `layer` is the module that holds it, and `part` is "A" or "B"
    in an adapter, else the parameter's own name. `reason` is why no gradient arrived, or only
    zeros, as far as it is known. `in_optimizer` is None where no optimizer was given.
    """

    name: str
    layer: str
    part: str
    tower: str | None
    shape: tuple[int, ...]
    requires_grad: bool
    norm: float | None
    reason: Reason | None = None
    in_optimizer: bool | None = None

    @classmethod
    def of(
        cls,
        name: str,
        parameter: torch.Tensor,
        norm: float | None,
        reason: Reason | None = None,
        in_optimizer: bool | None = None,
    ) -> Gradient:
        """What is to be said of a parameter with this full name."""
        layer, part = layer_and_part(name)
        return cls(
            name=clean_name(name),
            layer=layer,
            part=part,
            tower=tower_of(name),
            shape=tuple(parameter.shape),
            requires_grad=parameter.requires_grad,
            norm=norm,
            reason=reason,
            in_optimizer=in_optimizer,
        )

    @property
    def verdict(self) -> Verdict:
        if not self.requires_grad:
            return Verdict.FROZEN
        if self.norm is None:
            return Verdict.NOT_REACHED
        return Verdict.ZERO if self.norm == 0 else Verdict.REACHED

    @property
    def is_forgotten(self) -> bool:
        """Whether it is trainable and the optimizer was not given it: it will never change."""
        return self.requires_grad and self.in_optimizer is False

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Everything that keeps it from learning in this step, as far as it is known."""
        forgotten = Reason(Cause.NOT_IN_OPTIMIZER) if self.is_forgotten else None
        return tuple(filter(None, (self.reason, forgotten)))

    @property
    def why(self) -> str:
        """`reasons` in words."""
        return join_reasons(self.reasons)


class Gradients(tuple[Gradient, ...], Drawable):
    """The gradients of a whole model, in the order of its parameters.

    Shows itself as a table; `plot()` draws the norms of each adapter's A and B, by tower.
    """

    def count(self, verdict: str, part: str | None = None) -> int:  # type: ignore[override]
        """How many have this verdict, e.g. "reached" (and are this `part`: "A", "B").

        ValueError for a verdict that does not exist.
        """
        if verdict not in tuple(Verdict):
            raise ValueError(f"no verdict is called {verdict!r}; they are {', '.join(Verdict)}")
        return sum(g.verdict == verdict and part in (None, g.part) for g in self)

    @property
    def adapters(self) -> dict[str, dict[str, Gradient]]:
        """Those of adapters alone: layer → {"A": …, "B": …}."""
        layers: dict[str, dict[str, Gradient]] = {}
        for g in self:
            if g.part in ("A", "B") and is_adapter(g.name):
                layers.setdefault(g.layer, {})[g.part] = g
        return layers

    @property
    def dead(self) -> tuple[str, ...]:
        """The layers whose adapter can't learn: neither A nor B gets a gradient other than zero."""
        return tuple(
            layer
            for layer, pair in self.adapters.items()
            if not any(g.verdict is Verdict.REACHED for g in pair.values())
        )

    @property
    def forgotten(self) -> tuple[str, ...]:
        """Trainable parameters that the optimizer was not given: they will never change."""
        return tuple(g.name for g in self if g.is_forgotten)

    def causes(self) -> set[Cause]:
        """Every cause that occurs among the parameters."""
        return {reason.cause for g in self for reason in g.reasons}

    def table(self) -> Table:
        """A row for each verdict and reason, the number of parameters, and one of them by name."""
        alike: dict[tuple[Verdict, tuple[Reason, ...]], list[Gradient]] = {}
        for g in self:
            alike.setdefault((g.verdict, g.reasons), []).append(g)
        rows = [
            [verdict, len(group), join_reasons(reasons), _one_of(group)]
            for (verdict, reasons), group in sorted(
                alike.items(), key=lambda item: ORDER.index(item[0][0])
            )
        ]
        return Table(["verdict", "parameters", "why", "which"], rows)

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def _one_of(group: Sequence[Gradient]) -> str:
    return group[0].name + (", …" if len(group) > 1 else "")
