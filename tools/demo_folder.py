"""What the page in demo/ needs beside its own files: the model, small enough to wait for.

The base's towers are kept whole, with weights in half precision: 16 bits in the file, 32 in the
sums. An adapter changes some weights of a tower and nothing else, so what is kept of it is only
which bits those are (base XOR adapted). Almost all of these are zero, and compressed they are small.
"""

from __future__ import annotations

import copy
import gzip
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

import mclip_helpers as mh

BASE = "base"
TOWERS = ("image", "text")
RESIZE_MODES = ("shortest", "squash")
INTERPOLATIONS = ("bilinear", "bicubic")
LEAST_COSINE = 0.9999
LEAST_AGREEMENT = 0.99
SMALL = 1024  # numbers: what is not worth halving

ABOUT = {
    BASE: "As trained, on emoji as people draw them in colour",
    "thermal": "Has learned false colours, as of a thermal camera",
    "sketch": "Has learned black lines on white",
    "openmoji": "Has learned another hand's drawings: OpenMoji",
}
LOOKS = {
    "twemoji": "Twemoji, which the model was trained on",
    "thermal": "Thermal, computed from Twemoji",
    "sketch": "Sketch, computed from Twemoji",
    "openmoji": "OpenMoji, drawn by others",
}
# Of the test split: no adapter has been trained on a picture of these.
EXAMPLES = ("house", "guitar", "cactus", "rocket", "butterfly", "pear", "bell", "fish")
LABELS = (
    *EXAMPLES,
    *("umbrella", "sun", "star", "cat face", "evergreen tree", "automobile", "key", "glasses"),
    *("balloon", "crown", "crescent moon", "snowman", "hot beverage", "light bulb", "sailboat"),
    "grinning face",
)


class GateError(RuntimeError):
    """What was made is not the model that it was made of; the message has the number."""


def write_model(folder: Path, name: str, adapters: Mapping[str, Path]) -> None:
    """The model `name`, and each of `adapters` (folders, by their names), for the page.

    Raises ValueError if the page can't do what the model's transform does, and GateError if a file
    computes something else than PyTorch does.
    """
    folder.mkdir()
    clip = mh.load_model(name, device="cpu")
    with tempfile.TemporaryDirectory() as exported:
        base = _export(clip, Path(exported) / BASE)
        card = json.loads((Path(exported) / BASE / "model.json").read_text(encoding="utf-8"))
        _require_possible(card)
        vocabulary = card["tokenizer"]["file"]
        shutil.copy(Path(exported) / BASE / vocabulary, folder / vocabulary)
        _check(clip, base, BASE)
        card["towers"] = {
            tower: _packed(folder / f"{tower}.onnx.gz", base[tower].SerializeToString())
            for tower in TOWERS
        }
        card["known_tokens"] = _known_tokens(clip)
        card["adapters"] = []
        for adapter, source in adapters.items():
            adapted = copy.copy(clip)
            adapted.model = mh.load_adapter(copy.deepcopy(clip.model), source)
            towers = _export(adapted, Path(exported) / adapter)
            card["adapters"].append(_write_adapter(folder, adapter, adapted, base, towers))
    card["about"] = {key: text for key, text in ABOUT.items() if key in (BASE, *adapters)}
    (folder / "model.json").write_text(json.dumps(card, indent=1), encoding="utf-8")


def write_examples(folder: Path) -> None:
    """The same eight things in four looks, as PNG files, and their credits."""
    folder.mkdir()
    datasets = {look: mh.emoji_dataset(look, "test").find(*EXAMPLES) for look in LOOKS}
    looks = []
    for look, dataset in datasets.items():
        files = []
        for picture, label in (dataset[i] for i in range(len(dataset))):
            file = f"{look}-{label.replace(' ', '-')}.png"
            picture.save(folder / file)
            files.append({"file": file, "label": label})
        looks.append({"look": look, "about": LOOKS[look], "pictures": files})
    credits = list(dict.fromkeys(text for data in datasets.values() for text in data.credits))
    names = list(dict.fromkeys(emoji.en for emoji in mh.emoji_catalogue()))
    content = {"looks": looks, "names": names, "labels": LABELS, "credits": credits}
    (folder / "examples.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _export(clip: mh.Clip, folder: Path) -> dict[str, onnx.ModelProto]:
    """Both towers with their weights in half precision."""
    mh.export_onnx(clip, folder)
    return {tower: _halved(onnx.load(folder / f"{tower}.onnx")) for tower in TOWERS}


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights stored in half precision, and cast when it is loaded."""
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or np.prod(weight.dims) < SMALL:
            continue
        name = weight.name
        half = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _require_possible(card: Mapping[str, Any]) -> None:
    height, width = card["image_size"]
    if card["resize_mode"] not in RESIZE_MODES or height != width:
        raise ValueError(
            f"the page can't resize to {height}×{width} pixels by {card['resize_mode']!r}; it can "
            f"resize to a square by one of {RESIZE_MODES}"
        )
    if card["interpolation"] not in INTERPOLATIONS:
        raise ValueError(f"the page can't resize by the filter {card['interpolation']!r}")


def _write_adapter(
    folder: Path,
    name: str,
    clip: mh.Clip,
    base: Mapping[str, onnx.ModelProto],
    adapted: Mapping[str, onnx.ModelProto],
) -> dict[str, Any]:
    """Check and write what differs from the base; returns what the page has to know of it."""
    with_weights = {tower: _with_weights(base[tower], adapted[tower]) for tower in TOWERS}
    _check(clip, with_weights, name)
    patches = {}
    for tower in TOWERS:
        patch = _difference(base[tower].SerializeToString(), with_weights[tower].SerializeToString())
        if patch.any():
            patches[tower] = _packed(folder / f"{name}.{tower}.xor.gz", patch.tobytes())
    scale = clip.model.logit_scale.exp().item()
    size = sum((folder / file).stat().st_size for file in patches.values())
    return {"name": name, "patches": patches, "logit_scale": scale, "bytes": size}


def _with_weights(base: onnx.ModelProto, adapted: onnx.ModelProto) -> onnx.ModelProto:
    """The base's graph with the weights of the adapted one; their files are equally long."""
    weights = {weight.name: weight for weight in adapted.graph.initializer}
    result = copy.deepcopy(base)
    for weight in result.graph.initializer:
        other = weights.get(weight.name)
        if other is None or (other.dims, other.data_type) != (weight.dims, weight.data_type):
            raise GateError(f"the exported adapter lacks {weight.name} as the base has it")
        weight.CopyFrom(other)
    return result


def _difference(base: bytes, other: bytes) -> np.ndarray:
    if len(base) != len(other):
        raise GateError(f"the adapted model has {len(other)} bytes, and the base {len(base)}")
    return np.frombuffer(base, np.uint8) ^ np.frombuffer(other, np.uint8)


def _packed(path: Path, content: bytes) -> str:
    path.write_bytes(gzip.compress(content, mtime=0))
    return path.name


def _known_tokens(clip: mh.Clip) -> list[int] | None:
    """The tokens that the model has an embedding for; None if that is all of them."""
    table = getattr(clip.model, "text", clip.model).token_embedding.weight
    known = table.any(dim=1)
    return None if known.all() else known.nonzero().flatten().tolist()


@torch.no_grad()
def _check(clip: mh.Clip, towers: Mapping[str, onnx.ModelProto], name: str) -> None:
    """GateError unless the towers compute what `clip` does, on the test pictures of its look."""
    look = name if name in LOOKS else "twemoji"
    dataset = mh.emoji_dataset(look, "test").head(200)
    pixels = torch.stack([clip.preprocess(dataset[i][0]) for i in range(len(dataset))])
    tokens = clip.tokenizer(dataset.captions)
    expected = {
        "image": clip.model.encode_image(pixels, normalize=True).numpy(),
        "text": clip.model.encode_text(tokens, normalize=True).numpy(),
    }
    inputs = {"image": {"pixels": pixels.numpy()}, "text": {"tokens": tokens.int().numpy()}}
    found = {}
    for tower, model in towers.items():
        session = onnxruntime.InferenceSession(model.SerializeToString())
        (found[tower],) = session.run(["features"], inputs[tower])
        cosine = (found[tower] * expected[tower]).sum(1).min()
        if not cosine >= LEAST_COSINE:
            raise GateError(
                f"{name}: the {tower} tower parts from PyTorch's; the smallest cosine of "
                f"{len(dataset)} is {cosine:.6f}, and {LEAST_COSINE} is the least"
            )
    answers = [(f["image"] @ f["text"].T).argmax(1) for f in (found, expected)]
    agreement = (answers[0] == answers[1]).mean()
    print(f"  {name}: the first answer is PyTorch's for {agreement:.1%} of {len(dataset)} pictures")
    if agreement < LEAST_AGREEMENT:
        raise GateError(f"{name}: that is less than {LEAST_AGREEMENT:.0%}")
