"""Where a model has adapters, and where it could have them: `adapter_map`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from torch import nn

from ..colours import COLOURS, VACANT
from ..display import Chart
from ..lora import lora_layers, why_not
from ..model.clip import require_model
from ..names import block_of, tower_of
from .captions import escaped


class Square(NamedTuple):
    """The colours of one kind of layer, and the words of the legend."""

    face: str
    edge: str
    meaning: str


ADAPTED = Square(COLOURS["adapter"], COLOURS["adapter"], "has an adapter")
POSSIBLE = Square(VACANT, VACANT, "could have one")
IMPOSSIBLE = Square("none", VACANT, "can't have one")


def adapter_map(model: nn.Module) -> Chart:
    """A row for each block of each tower, a square for each Linear and each convolution in it.

    Filled: it has an adapter. Grey: it could have one. Hollow: it can't (`why_not`). ValueError if
    there is no such layer.
    """
    require_model(model)
    towers = _squares(model)
    high = max(len(blocks) for blocks in towers.values())
    if not high:
        raise ValueError(
            f"this {type(model).__name__} has no Linear and no convolution: nothing to draw"
        )
    longest = [max(map(len, blocks.values()), default=1) for blocks in towers.values()]
    widths = [max(number, 8) for number in longest]
    figure = Chart(figsize=(9.5, 0.25 * high + 0.9))
    grid = figure.subplots(1, 2, width_ratios=widths)
    for axes, width, (tower, blocks) in zip(grid, widths, towers.items(), strict=True):
        _tower(axes, blocks)
        axes.set_title(f"{tower} tower", fontsize=10, loc="left", color=COLOURS[tower])
        axes.set_xlim(-0.3, width)
        axes.set_ylim(high - 0.4, -0.6)
    keys = [
        Patch(facecolor=face, edgecolor=edge, label=meaning)
        for face, edge, meaning in (ADAPTED, POSSIBLE, IMPOSSIBLE)
    ]
    figure.legend(handles=keys, frameon=False, fontsize=8.5, ncols=3, loc="upper center")
    figure.subplots_adjust(wspace=0.3, top=1 - 0.62 / figure.get_figheight())
    return figure


def _squares(model: nn.Module) -> dict[str, dict[str, list[Square]]]:
    """Tower → block → a square for each layer, in the model's order."""
    adapted = {id(layer) for _, layer in lora_layers(model)}
    inside: set[nn.Module] = set()  # the parts of layers with an adapter
    towers: dict[str, dict[str, list[Square]]] = {"image": {}, "text": {}}
    for name, layer in model.named_modules():
        if layer in inside:
            continue
        if id(layer) in adapted:
            square = ADAPTED
            inside.update(layer.modules())
        elif isinstance(layer, nn.Linear | nn.Conv2d):
            square = POSSIBLE if why_not(layer) is None else IMPOSSIBLE
        else:
            continue
        towers[tower_of(name) or "text"].setdefault(block_of(name), []).append(square)
    return towers


def _tower(axes: Axes, blocks: Mapping[str, Sequence[Square]]) -> None:
    """The rows of one tower, each beside the name of its block."""
    for y, squares in enumerate(blocks.values()):
        for x, square in enumerate(squares):
            place = (x, y - 0.36)
            patch = Rectangle(place, 0.72, 0.72, facecolor=square.face, edgecolor=square.edge)
            axes.add_patch(patch)
    axes.set_yticks(range(len(blocks)), [escaped(block) for block in blocks], fontsize=8)
    axes.set_aspect("equal", anchor="NW")
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
