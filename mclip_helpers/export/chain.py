"""From a model with adapters to a folder that runs without PyTorch, link by link."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..data import PictureDataset, emoji_dataset
from ..files import replace
from ..lora import lora_layers, merged_copy
from ..model import Clip, in_eval, require_clip
from .card import write_card
from .costs import costliest, layer_costs
from .folder import (
    GRAPHS,
    as_metadata,
    describe,
    read_notes,
    refuse_foreign,
    write_notes,
    write_notice,
)
from .gates import EIGHT_BITS, EXACT, HALF, Chain
from .graph import write_graph
from .needed import ship_package
from .plain import folded_copy
from .precision import Quantizer, halved, write_variant
from .stages import OnnxClip, TorchStage
from .tokenizer import write_tokenizer

GATES = {"fp32": EXACT, "fp16": HALF, "int8": EIGHT_BITS}  # precision → the gate of the last link
CALIBRATED = 128  # pictures


def export_onnx(
    clip: Clip,
    folder: str | Path,
    dataset: PictureDataset | None = None,
    *,
    precision: str = "fp32",
    calibration: PictureDataset | None = None,
    keep: Sequence[str] | None = None,
    progress: bool = True,
) -> OnnxClip:
    """Write the model as it is now, adapters merged, to `folder`: whole, or not at all.

    The folder holds `image.onnx` (pixels (N, 3, H, W), as `clip.preprocess` leaves them, to unit
    vectors (N, D)), `text.onnx` (int32 tokens (N, context) to unit vectors), the tokenizer's
    vocabulary, `model.json` with all that a program needs beside them, and README.md, a card.
    `clip` stays as it is.

    The way there is a chain: as trained → merged → folded → ONNX → `precision`, one of "fp32",
    "fp16" and "int8". After each link the pictures and captions of `dataset` are encoded again, and
    a gate compares (`Gate`); they should be those of the task, and by default are emoji of the
    validation split. `gates` of what is returned shows what was measured.

    Eight bits need pictures of the task for `calibration`, others than those of `dataset`; by
    default they are emoji of the train split. The layers `keep` stay in full precision: by default
    those that do most of the damage, which are looked for on the calibration's pictures.

    An exported model is replaced, and nothing else: FileExistsError, with what is in the way, if
    anything else is at `folder`. Raises GateError if a link falls below its bar, ValueError for a
    model that can't be exported, and ModuleNotFoundError without the extra `ship`.
    """
    require_clip(clip)
    if precision not in GATES:
        raise ValueError(f"precision is {precision!r:.60}; it must be one of {', '.join(GATES)}")
    for package in ("onnx", "onnxruntime", "onnxscript"):
        ship_package(package)
    dataset = emoji_dataset("twemoji", "val") if dataset is None else dataset
    if calibration is None:
        calibration = emoji_dataset("twemoji", "train").head(CALIBRATED)

    def write(place: Path) -> None:
        place.mkdir()
        with in_eval(clip.model), tempfile.TemporaryDirectory() as scratch:
            chain = Chain(TorchStage("as trained", clip), dataset, progress=progress)
            exact = place if precision == "fp32" else Path(scratch)
            onnx = _exact_links(chain, clip, exact)
            if precision == "fp16":
                write_variant(place, onnx, halved(onnx), precision)
            elif precision == "int8":
                quantizer = Quantizer(onnx, calibration)
                left = (
                    costliest(layer_costs(quantizer, progress=progress)) if keep is None else keep
                )
                write_variant(place, onnx, quantizer.graphs(left), precision, left)
            if precision != "fp32":
                chain.add(OnnxClip(place, precision), GATES[precision])
            _finish(place, chain)

    return OnnxClip(replace(folder, write, refuse_foreign))


def _exact_links(chain: Chain, clip: Clip, folder: Path) -> OnnxClip:
    """The links that change nothing but rounding; the last one is written to `folder`."""
    model = merged_copy(clip.model).cpu()
    if any(lora_layers(clip.model)):
        chain.add(TorchStage("merged", dataclasses.replace(clip, model=model)), EXACT)
    folded = dataclasses.replace(clip, model=folded_copy(model))
    chain.add(TorchStage("folded", folded), EXACT)
    _write_graphs(folded, folder)
    onnx = OnnxClip(folder, "ONNX")
    chain.add(onnx, EXACT)
    return onnx


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
    card = write_card(notes, chain.links, chain.dataset, folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    write_notice(folder, notes, "ONNX")
    write_notes(folder, notes)
