"""What eight bits cost, layer by layer, and what is won by leaving some layers out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..checks import finite_number, whole_number
from ..data import PictureDataset
from ..display import Drawable, Table
from ..progress_bar import progress_bar
from .gates import Chain
from .links import Link, table_of
from .precision import Quantizer, halved, write_variant
from .stages import TOWERS, OnnxClip, run, session

if TYPE_CHECKING:
    import onnx

MEASURED = 32  # pictures and captions that a layer's cost is measured with
SHARE = 0.8  # of the damage: the layers that do it stay as they are


@dataclass(frozen=True)
class LayerCost:
    """What it costs to compute one layer alone in eight bits.

    `damage` is 1 − the mean cosine between the features before and after, and `cosine` the smallest
    of them.
    """

    layer: str
    tower: str
    damage: float
    cosine: float


def layer_costs(quantizer: Quantizer, *, progress: bool = True) -> list[LayerCost]:
    """The cost of each layer, the costliest first, on the first pictures of the calibration."""
    costs = []
    pairs = quantizer.calibration.pairs[:MEASURED]
    for tower in TOWERS:
        items = [pair.load() if tower == "image" else pair.captions[0] for pair in pairs]
        inputs = quantizer.clip.inputs(tower, items)
        before = quantizer.clip.features(tower, inputs)
        layers = list(quantizer.layers(tower))
        for layer in progress_bar(layers, f"eight bits, {tower}", "layers", shown=progress):
            graph = quantizer.graph(tower, [layer])
            (after,) = run(session(graph.SerializeToString()), tower, inputs)
            cosines = torch.cosine_similarity(before.double(), after.double())
            damage = max(0.0, 1 - cosines.mean().item())
            costs.append(LayerCost(layer, tower, damage, cosines.min().item()))
    return sorted(costs, key=lambda cost: -cost.damage)


def costliest(costs: Sequence[LayerCost], share: float = SHARE) -> list[str]:
    """The layers that do `share` of all damage, the costliest first: as few as can be."""
    share = finite_number("share", share, least=0, most=1)
    wanted = share * sum(cost.damage for cost in costs)
    layers, done = [], 0.0
    for cost in costs:
        if done >= wanted:
            break
        layers.append(cost.layer)
        done += cost.damage
    return layers


@dataclass(frozen=True)
class Trade(Drawable):
    """Size against quality: what each way to store a model costs, and what it loses.

    `links` lead from the graphs in fp32 to each other way, whose name is that of `after`.
    """

    links: tuple[Link, ...]

    @property
    def table(self) -> Table:
        """The links as a table."""
        return table_of(self.links)


def size_against_recall(
    quantizer: Quantizer,
    dataset: PictureDataset,
    costs: Sequence[LayerCost],
    kept: Sequence[int] = (0, 4, 8, 12, 16, 24),
    *,
    progress: bool = True,
) -> Trade:
    """Half precision and eight bits, with as many of the costliest layers `kept` in full precision.

    Each is compared with fp32 on `dataset`, and nothing is refused.
    """
    clip = quantizer.clip
    chain = Chain(clip, dataset, progress=progress)
    links = []

    def measure(name: str, graphs: Mapping[str, onnx.ModelProto]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_variant(Path(folder), clip, graphs, name)
            links.append(chain.compare(OnnxClip(folder, name)))

    measure("fp32", {tower: clip.graph(tower) for tower in TOWERS})
    measure("fp16", halved(clip))
    for count in kept:
        keep = {cost.layer for cost in costs[: whole_number("a number in kept", count, least=0)]}
        measure(f"int8, {len(keep)} kept" if keep else "int8", quantizer.graphs(keep))
    return Trade(tuple(links))
