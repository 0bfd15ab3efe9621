"""What `loss.backward()` left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from .lora import tower_of


@dataclass(frozen=True)
class Gradient:
    """One parameter and the norm of its `.grad`; None if it has none.

    `layer` is the name of the module that holds it, without PEFT's additions; `part` is "A" or "B"
    in an adapter, else the parameter's own name.
    """

    layer: str
    part: str
    tower: str | None
    shape: tuple[int, ...]
    requires_grad: bool
    norm: float | None

    @property
    def verdict(self) -> str:
        """ "frozen", "not reached" (`.grad` is None), "exactly zero", or "reached"."""
        if not self.requires_grad:
            return "frozen"
        if self.norm is None:
            return "not reached"
        return "exactly zero" if self.norm == 0 else "reached"


class Gradients(tuple[Gradient, ...]):
    """The gradients of a whole model, in the order of its parameters; draws itself."""

    def count(self, verdict: str, part: str | None = None) -> int:  # type: ignore[override]
        """How many have this `verdict` (and are this `part`: "A", "B")."""
        return sum(g.verdict == verdict and part in (None, g.part) for g in self)

    def plot(self):
        """A bar for each adapter: the norms of A's and B's gradient, by tower."""
        from . import draw

        return draw.adapter_gradients(self)


def gradients(model: nn.Module) -> Gradients:
    """Look at every parameter's `.grad` after a backward pass. Changes nothing."""
    found: list[Gradient] = []
    for name, p in model.named_parameters():
        layer, part = _layer_and_part(name)
        norm = None if p.grad is None else p.grad.norm().item()
        found.append(Gradient(layer, part, tower_of(name), tuple(p.shape), p.requires_grad, norm))
    return Gradients(found)


def _layer_and_part(name: str) -> tuple[str, str]:
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    for part in ("A", "B"):
        layer, found, _ = name.partition(f".lora_{part}.")
        if found:
            return layer, part
    layer, _, last = name.rpartition(".")
    return layer, last


def adapters(found: Sequence[Gradient]) -> dict[str, dict[str, Gradient]]:
    """The gradients of adapters alone: layer → {"A": …, "B": …}."""
    layers: dict[str, dict[str, Gradient]] = {}
    for g in found:
        if g.part in ("A", "B"):
            layers.setdefault(g.layer, {})[g.part] = g
    return layers
