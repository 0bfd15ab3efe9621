"""The exported folder: what `model.json` says, and whether all is still as it was written.

`model.json` holds what a program needs beside the graphs. It also lists every other file with its
SHA-256, and ends with the SHA-256 of its own content, as an adapter's folder does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from ..files import foreign, hashes, notes_hash, resolved, settle, some_of
from ..lora.card import LICENCES, apple_notice, licence_of
from ..model import Clip, is_apples
from .tokenizer import describe_tokenizer

FORMAT = 1
MODEL_FILE = "model.json"
GRAPHS = {"image": "image.onnx", "text": "text.onnx"}  # tower → file
OF_THE_FOLDER = ("files", "sha256", "gates")  # what is not about the graphs themselves


def describe(clip: Clip, precision: str) -> dict[str, Any]:
    """What `model.json` says of `clip`. ValueError for a tokenizer that can't be written."""
    transform = clip.model.visual.preprocess_cfg
    licence = licence_of(clip.name, clip.pretrained)
    context_length = clip.model.context_length
    return {
        "format": FORMAT,
        "model": f"{clip.name}/{clip.pretrained}",
        "precision": precision,
        "image_size": list(clip.image_size),
        "resize_mode": transform["resize_mode"],
        "interpolation": transform["interpolation"],
        "mean": [float(value) for value in transform["mean"]],
        "std": [float(value) for value in transform["std"]],
        "context_length": context_length,
        "logit_scale": clip.model.logit_scale.exp().item(),
        "embed_dim": clip.model.encode_text(clip.tokenizer(["a"]).to(clip.device)).shape[-1],
        "tokenizer": describe_tokenizer(clip.tokenizer, context_length),
        "licence": LICENCES[licence] or licence,
    }


def as_metadata(notes: Mapping[str, Any]) -> dict[str, str]:
    """The same for a graph, whose metadata are texts: a text as it is, anything else as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in notes.items()
        if key not in OF_THE_FOLDER
    }


def write_notes(folder: Path, notes: Mapping[str, Any]) -> None:
    """Write `model.json`, when all other files are in `folder`."""
    others = {name: value for name, value in hashes(folder).items() if name != MODEL_FILE}
    noted = {key: value for key, value in notes.items() if key not in ("files", "sha256")}
    noted["files"] = others
    noted["sha256"] = notes_hash(noted)
    (folder / MODEL_FILE).write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")


def write_notice(folder: Path, notes: Mapping[str, Any], form: str) -> None:
    """Write NOTICE, if Apple's licence asks for one; `form` is what the model was written as."""
    name, _, weights = notes["model"].partition("/")
    if is_apples(name, weights):
        changed = f"{name} (weights {weights}) was written as {form}, with its adapters, if any."
        (folder / "NOTICE").write_text(apple_notice(changed), encoding="utf-8")


def read_notes(path: str | Path) -> dict[str, Any]:
    """What `model.json` in the folder `path` says.

    FileNotFoundError if there is none, ValueError if it is of another format.
    """
    settle(resolved(path))
    file = Path(path) / MODEL_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{path} was not written by export_onnx: it has no {MODEL_FILE}")
    try:
        notes = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); export the model again") from error
    found = notes.get("format") if isinstance(notes, dict) else None
    if found != FORMAT:
        raise ValueError(f"{file} has the format {found!r}, not {FORMAT}; export the model again")
    return notes


def transform_of(notes: Mapping[str, Any]) -> Callable[[Image.Image], torch.Tensor]:
    """The transform that `model.json` describes: RGB picture → pixels (3, H, W)."""
    height, width = notes["image_size"]
    return image_transform_v2(
        PreprocessCfg(
            size=(height, width),
            mean=tuple(notes["mean"]),
            std=tuple(notes["std"]),
            interpolation=notes["interpolation"],
            resize_mode=notes["resize_mode"],
        ),
        is_train=False,
    )


def refuse_foreign(path: Path) -> None:
    """FileExistsError unless all that is at `path` is as an export wrote it (or it is empty)."""
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file, not an exported model; export to another path")
    inside = sorted(item.name for item in path.iterdir())
    if not inside:
        return
    if MODEL_FILE not in inside:
        raise FileExistsError(
            f"{path} is no exported model, and holds {some_of(inside)}; export to another path"
        )
    try:
        notes = read_notes(path)
        whole = notes["sha256"] == notes_hash(notes)
    except (OSError, ValueError, KeyError):
        whole = False
    if not whole:
        raise FileExistsError(
            f"{path} can't be replaced, as its {MODEL_FILE} was changed since it was "
            f"written; export to another path, or delete that folder"
        )
    others = [name for name in foreign(path, notes["files"]) if name != MODEL_FILE]
    if others:
        raise FileExistsError(
            f"{path} holds what no export wrote, or what was changed since: "
            f"{some_of(others)}; move it away, or export to another path"
        )
