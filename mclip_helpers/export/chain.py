"""From a model with adapters to a folder that runs without PyTorch, link by link."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

from ..data import PictureDataset, emoji_dataset
from ..files import replace
from ..lora import fold, lora_layers, merged_copy
from ..lora.card import apple_notice
from ..model import Clip, in_eval, is_apples, require_clip
from .card import write_card
from .folder import GRAPHS, as_metadata, describe, read_notes, refuse_foreign, write_notes
from .gates import EXACT, Chain
from .graph import write_graph
from .needed import ship_package
from .stages import OnnxClip, TorchStage
from .tokenizer import write_tokenizer


def export_onnx(
    clip: Clip,
    folder: str | Path,
    dataset: PictureDataset | None = None,
    *,
    progress: bool = True,
) -> OnnxClip:
    """Write the model as it is now, adapters merged, to `folder`: whole, or not at all.

    The folder holds `image.onnx` (pixels (N, 3, H, W), as `clip.preprocess` leaves them, to unit
    vectors (N, D)), `text.onnx` (int32 tokens (N, context) to unit vectors), the tokenizer's
    vocabulary, `model.json` with all that a program needs beside them, and README.md, a card.
    `clip` stays as it is.

    The way there is a chain: as trained → merged → folded → ONNX. After each link the pictures and
    captions of `dataset` are encoded again, and a gate compares (see `Gate`); they should be those
    of the task, and by default are emoji of the validation split. `gates` of what is returned
    shows what was measured.

    An exported model is replaced, and nothing else: FileExistsError, with what is in the way, if
    anything else is at `folder`. Raises GateError if a link falls below its bar, ValueError for a
    model that can't be exported, and ModuleNotFoundError without the extra `ship`.
    """
    require_clip(clip)
    for package in ("onnx", "onnxruntime", "onnxscript"):
        ship_package(package)
    dataset = emoji_dataset("twemoji", "val") if dataset is None else dataset

    def write(place: Path) -> None:
        place.mkdir()
        with in_eval(clip.model):
            chain = Chain(TorchStage("as trained", clip), dataset, progress=progress)
            model = merged_copy(clip.model).cpu()
            if any(lora_layers(clip.model)):
                chain.add(TorchStage("merged", dataclasses.replace(clip, model=model)), EXACT)
            model = copy.deepcopy(model)
            fold(model, keep=())
            folded = dataclasses.replace(clip, model=model)
            chain.add(TorchStage("folded", folded), EXACT)
            _write_graphs(folded, place)
            chain.add(OnnxClip(place), EXACT)
            _finish(place, chain)

    return OnnxClip(replace(folder, write, refuse_foreign))


def _write_graphs(clip: Clip, folder: Path) -> None:
    """The graphs, the vocabulary and `model.json`, which is complete after `_finish` only."""
    notes = describe(clip, "fp32")
    for tower, file in GRAPHS.items():
        write_graph(clip.model, tower, folder / file, as_metadata(notes))
    write_tokenizer(folder)
    write_notes(folder, notes)


def _finish(folder: Path, chain: Chain) -> None:
    """Add the card, the notice, and what was measured."""
    notes = read_notes(folder) | {"gates": [dataclasses.asdict(link) for link in chain.links]}
    name, _, weights = notes["model"].partition("/")
    card = write_card(notes, chain.links, chain.dataset, folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    if is_apples(name, weights):
        changed = (
            f"{name} (weights {weights}) was written as ONNX, with its adapters, if it had any."
        )
        (folder / "NOTICE").write_text(apple_notice(changed), encoding="utf-8")
    write_notes(folder, notes)
