"""Core ML: the two towers as Apple's ML programs, for iOS 16 and macOS 13 or later.

coremltools converts on Linux as well, but only a Mac can run what comes out. So there is no gate
here: `tools/check_coreml.py` is one, on a Mac, with the inputs and features that are written beside
the models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from ..data import PictureDataset, emoji_dataset
from ..files import replace
from ..model import Clip, ClipModel, in_eval, require_clip
from ..packages import optional_package
from .folder import as_metadata, describe, refuse_foreign, write_notes, write_notice
from .graph import FEATURES, INPUTS, Tower, example, quiet
from .plain import plain_folded
from .stages import TOWERS, TorchStage
from .tokenizer import write_tokenizer

PACKAGES = {"image": "image.mlpackage", "text": "text.mlpackage"}  # tower → what Xcode opens
EXPECTED = "expected.safetensors"
CHECKED = 64  # pictures, and as many captions


def export_coreml(clip: Clip, folder: str | Path, dataset: PictureDataset | None = None) -> Path:
    """Write the model as it is now, adapters merged, to `folder` for Core ML. Returns the folder.

    `image.mlpackage` turns pixels (1, 3, H, W) and `text.mlpackage` int32 tokens (1, context) into
    unit vectors (1, D), one at a time, in half precision inside. Beside them are the vocabulary,
    `model.json`, as `export_onnx` writes it (and in the models' metadata), and
    `expected.safetensors`: inputs of `dataset` and the features that PyTorch computes for them.

    **Nothing has run what is written**: do that on a Mac, with `tools/check_coreml.py`. Raises
    FileExistsError as `export_onnx` does, and ModuleNotFoundError without `coremltools`.
    """
    require_clip(clip)
    optional_package("coremltools")
    dataset = emoji_dataset("twemoji", "val") if dataset is None else dataset

    def write(place: Path) -> None:
        place.mkdir()
        with in_eval(clip.model):
            model = plain_folded(clip.model)
            notes = describe(clip, "fp16")
        for tower, package in PACKAGES.items():
            _converted(model, tower, notes).save(str(place / package))
        stage = TorchStage("folded", dataclasses.replace(clip, model=model))
        save_file(_expected(stage, dataset.head(CHECKED)), place / EXPECTED)
        write_tokenizer(place)
        write_notice(place, notes, "Core ML")
        write_notes(place, notes)

    return replace(folder, write, refuse_foreign)


def _converted(model: ClipModel, tower: str, notes: dict[str, Any]) -> Any:
    """The tower as coremltools' MLModel."""
    coremltools = optional_package("coremltools")
    given = example(model, tower)[:1]
    with quiet(), torch.no_grad():
        # By torch.export: coremltools 9 stumbles over the traced attention of the image tower.
        program = torch.export.export(Tower(model, tower).eval(), (given,)).run_decompositions({})
        numbers = np.int32 if tower == "text" else np.float32
        converted = coremltools.convert(
            program,
            inputs=[coremltools.TensorType(INPUTS[tower], tuple(given.shape), numbers)],
            outputs=[coremltools.TensorType(FEATURES, dtype=np.float32)],
            minimum_deployment_target=coremltools.target.iOS16,
        )
    converted.short_description = f"The {tower} tower of {notes['model']}: unit vectors"
    converted.license = notes["licence"]
    converted.user_defined_metadata.update(as_metadata(notes))
    return converted


def _expected(stage: TorchStage, dataset: PictureDataset) -> dict[str, torch.Tensor]:
    """Inputs and features of both towers: "pixels", "image_features", "tokens", "text_features"."""
    items: dict[str, Sequence] = {
        "image": [pair.load() for pair in dataset.pairs],
        "text": dataset.captions,
    }
    tensors = {}
    for tower in TOWERS:
        inputs = stage.inputs(tower, items[tower])
        tensors[INPUTS[tower]] = inputs.int() if tower == "text" else inputs
        tensors[f"{tower}_{FEATURES}"] = stage.features(tower, inputs)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}
