"""The chain from a model to what is shipped, with a gate at every link.

A link leads from one stage to the next. Real pictures and captions go through both, and what the
features have lost is measured. A gate says how much may be lost; where it is more, the chain ends
with a GateError, which names the number, the bar, and the first layer at which the two part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..data import PictureDataset, require_dataset
from ..display import Table
from ..evaluation import retrieval
from ..progress_bar import progress_bar
from .links import Link, table_of
from .parting import first_parted, first_refused
from .stages import TOWERS, Stage

BATCH = 32
ROUNDING = 1e-2  # of a length; half precision has 3 digits
SHOWN = 4  # items with which the layer is looked for; more than one, for what depends on the batch


@dataclass(frozen=True)
class Gate:
    """How much a link may change: the bars that its numbers must reach.

    `cosine`: the smallest cosine between the old and the new feature, over all pictures and
    captions. `agreement`: the share of pictures whose first answer stays. `lost`: how much R@1
    (picture to text, a share) may fall.
    """

    cosine: float = -1.0
    agreement: float = 0.0
    lost: float = 1.0


# What is exact on paper differs by rounding alone; a cosine of 1 − 1e-5 is an angle of 0.26°.
EXACT = Gate(cosine=1 - 1e-5)
HALF = Gate(agreement=0.99)
# Eight bits move every feature a little, and near-ties between captions turn over. One first answer
# in twenty may change; R@1 alone would not tell, as it gains about what it loses (notebook 08).
EIGHT_BITS = Gate(agreement=0.95, lost=0.02)


class GateError(RuntimeError):
    """A link of the chain lost more than its gate lets through.

    `between` names the two stages. `number` is what was too low ("smallest cosine", …), `value`
    what was measured, and `bar` the least that would do. `layer` is the first layer at which the
    two part: a module of open_clip's model, or "pixels" for the transform, "tokens" for the
    tokenizer.
    """

    def __init__(self, between: tuple[str, str], number: str, value: float, bar: float, layer: str):
        super().__init__(between, number, value, bar, layer)
        self.between, self.number, self.layer = between, number, layer
        self.value, self.bar = value, bar

    def __str__(self) -> str:
        before, after = self.between
        return (
            f"{before} → {after}: the {self.number} is {self.value:.7g}, and the gate asks for at "
            f"least {self.bar:.7g}. The first layer at which the two part: {self.layer}"
        )


class Chain:
    """Stages of one model, each linked to the one before by what was measured between them.

    `start` is the model as it was trained; the pictures and captions of `dataset` go through every
    stage: the first of them alone and the others in batches, so that a batch size that was baked in
    is found. `links` has what was measured.
    """

    def __init__(self, start: Stage, dataset: PictureDataset, *, progress: bool = True):
        self.dataset, self.progress = require_dataset(dataset, least=2), progress
        self._items: dict[str, Sequence] = {
            "image": [pair.load() for pair in dataset.pairs],
            "text": dataset.all_captions,
        }
        self.links: list[Link] = []
        self.stage = start
        self._features = self._embed(start)

    @property
    def table(self) -> Table:
        """`links` as a table."""
        return table_of(self.links)

    def compare(self, stage: Stage) -> Link:
        """Measure the link to `stage`, without a gate; the chain stays as it is."""
        features = self._embed(stage)
        return self._measured(stage, features, self._cosines(features))

    def add(self, stage: Stage, gate: Gate) -> Link:
        """Measure the link to `stage`, which is the last one from now on.

        Raises GateError, and leaves the chain as it was, if `gate` does not let it through.
        """
        try:
            features = self._embed(stage)
        except Exception as error:  # ONNX Runtime has a class for each reason
            raise self._refused(stage, error) from error
        cosines = self._cosines(features)
        lengths = torch.cat([features[tower].norm(dim=-1) for tower in TOWERS])
        unit = ((lengths - 1).abs() < ROUNDING).float().mean().item()
        self._require(stage, cosines, "share of features of length 1", unit, 1.0)
        link = self._measured(stage, features, cosines)
        self._require(stage, cosines, "smallest cosine", link.cosine, gate.cosine)
        self._require(stage, cosines, "top-1 agreement", link.agreement, gate.agreement)
        self._require(stage, cosines, "R@1", link.r1_after, link.r1_before - gate.lost)
        self.links.append(link)
        self.stage, self._features = stage, features
        return link

    def _measured(
        self, stage: Stage, features: dict[str, torch.Tensor], cosines: dict[str, torch.Tensor]
    ) -> Link:
        same = self._answers(self._features) == self._answers(features)
        return Link(
            before=self.stage.name,
            after=stage.name,
            image_cosine=cosines["image"].min().item(),
            text_cosine=cosines["text"].min().item(),
            mean_cosine=torch.cat([cosines[tower] for tower in TOWERS]).mean().item(),
            agreement=same.float().mean().item(),
            r1_before=self._r1(self._features),
            r1_after=self._r1(features),
            size_before=self.stage.size,
            size_after=stage.size,
        )

    def _cosines(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {tower: _cosines(self._features[tower], features[tower]) for tower in TOWERS}

    def _embed(self, stage: Stage) -> dict[str, torch.Tensor]:
        """The features of all pictures and captions, by tower."""
        found = {}
        for tower, items in self._items.items():
            starts = progress_bar(
                [0, *range(1, len(items), BATCH)],
                f"{stage.name}: {tower}s",
                "batches",
                shown=self.progress,
            )
            parts = [
                _features(stage, tower, items[at : at + (BATCH if at else 1)]) for at in starts
            ]
            found[tower] = torch.cat(parts)
        return found

    def _answers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """The group of each picture's first answer."""
        groups = torch.tensor(self.dataset.caption_groups)
        return groups[(features["image"] @ features["text"].T).argmax(dim=1)]

    def _r1(self, features: dict[str, torch.Tensor]) -> float:
        found = retrieval(
            features["image"],
            features["text"],
            ks=(1,),
            groups=self.dataset.groups,
            text_groups=self.dataset.caption_groups,
            progress=False,
        )
        return found.image_to_text[1]

    def _require(
        self,
        stage: Stage,
        cosines: dict[str, torch.Tensor],
        number: str,
        value: float,
        bar: float,
    ) -> None:
        """GateError unless `value` reaches `bar`. The layer is looked for where it is worst."""
        if value >= bar:
            return
        tower = min(TOWERS, key=lambda tower: cosines[tower].min().item())
        worst = int(cosines[tower].argmin())
        others = [item for i, item in enumerate(self._items[tower]) if i != worst]
        items = [self._items[tower][worst], *others[: SHOWN - 1]]
        layer = first_parted(self.stage, stage, tower, items)
        raise GateError((self.stage.name, stage.name), number, value, bar, layer)

    def _refused(self, stage: Stage, error: Exception) -> Exception:
        """GateError with the batch size that `stage` fails at; `error`, if it is not the size."""
        for tower, items in self._items.items():
            done = 0
            for size in (1, 2, BATCH):
                batch = items[:size]
                try:
                    _features(stage, tower, batch)
                except Exception:
                    layer = first_refused(stage, tower, batch)
                    between = (self.stage.name, stage.name)
                    return GateError(between, "largest batch", done, len(batch), layer)
                done = len(batch)
        return error


def _features(stage: Stage, tower: str, items: Sequence) -> torch.Tensor:
    """The features of `items`. ValueError unless there is one for each."""
    found = stage.features(tower, stage.inputs(tower, items))
    if len(found) != len(items):
        raise ValueError(f"{stage.name} gives {len(found)} features for {len(items)} {tower}s")
    return found


def _cosines(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """(N,), in fp64; −1 where a feature is not finite, or they have not as many numbers."""
    if old.shape != new.shape:
        return torch.full((len(old),), -1.0, dtype=torch.float64)
    return F.cosine_similarity(old.double(), new.double(), dim=-1).nan_to_num(-1)
