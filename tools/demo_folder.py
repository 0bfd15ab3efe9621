"""What the page in demo/ needs beside its own files: the model, small enough to wait for.

The base's towers are kept whole, with weights in half precision: 16 bits in the file, 32 in the
sums. An adapter changes some weights of a tower and nothing else, so what is kept of it is which
bits those are (base XOR adapted). Most are zero, and compressed they take next to no room.
"""

from __future__ import annotations

import copy
import dataclasses
import gzip
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import mclip_helpers as mh
from mclip_helpers.export import Chain, Gate, OnnxClip

OURS = mh.data_folder() / "adapters"
BASE = "base"
TOWERS = ("image", "text")
SMALL = 1024  # numbers: less is not worth halving
GATE = Gate(cosine=1 - 1e-4, agreement=0.99)  # an angle of 0.8°; 11 bits of a weight are left

# What the page can resize by (demo/pixels.js).
RESIZE_MODES = ("shortest", "squash")
INTERPOLATIONS = ("bilinear", "bicubic")

ABOUT_NANO = "As trained: on emoji in colour, as people draw them"
ABOUT = {  # the project's adapters
    "thermal": "Has learned false colours, as a thermal camera has them",
    "sketch": "Has learned black lines on white",
    "openmoji": "Has learned another hand’s drawings, OpenMoji’s",
}
LOOKS = {
    "twemoji": "Twemoji",
    "thermal": "Thermal, computed from Twemoji",
    "sketch": "Sketch, computed from Twemoji",
    "openmoji": "OpenMoji, drawn by others",
}
# Names of emoji that many people can draw. Half of them are of the test split.
LABELS = re.split(
    r",\s+",
    """house, castle, church, tent, door, ladder, bed, chair, automobile, bicycle, bus, locomotive,
    sailboat, airplane, helicopter, rocket, sun, star, cloud, rainbow, snowflake, snowman, fire,
    crescent moon, tornado, globe with meridians, evergreen tree, palm tree, cactus, mushroom,
    tulip, sunflower, maple leaf, four leaf clover, banana, pear, red apple, cherries, strawberry,
    grapes, lemon, pineapple, carrot, ear of corn, avocado, bread, croissant, pizza, hamburger,
    doughnut, ice cream, birthday cake, egg, hot beverage, wine glass, spoon, cat face, dog face,
    rabbit face, mouse face, pig face, owl, duck, penguin, chicken, fish, whale, octopus, turtle,
    snail, spider, butterfly, bat, elephant, giraffe, umbrella, key, scissors, hammer, axe, broom,
    pencil, glasses, crown, ring, balloon, kite, light bulb, candle, magnet, anchor, compass, bell,
    hourglass done, alarm clock, watch, telephone, camera, television, trophy, guitar, violin,
    trumpet, drum, soccer ball, jeans, top hat, backpack, envelope, open book, grinning face,
    crying face, red heart, hand with fingers splayed, eye, mouth, ghost, skull, robot""",
)
# Of the test split, so no adapter has been trained on a picture of one.
EXAMPLES = ("guitar", "fish", "rocket", "sunflower", "spider", "skull", "elephant", "hamburger")


def write_model(folder: Path, name: str, adapters: Mapping[str, Path]) -> None:
    """The model `name`, and each of `adapters` (folders, by their names), for the page.

    Raises ValueError if the page can't do what the model's transform does or the towers of an
    adapter are no others of the base's, and GateError if something of the model gets lost.
    """
    folder.mkdir()
    clip = mh.load_model(name, device="cpu")
    with tempfile.TemporaryDirectory() as place:
        base = _export(clip, Path(place) / BASE)
        _require_possible(base.notes)
        vocabulary = base.notes["tokenizer"]["file"]
        shutil.copy(base.folder / vocabulary, folder / vocabulary)
        towers = {
            tower: _packed(folder / f"{tower}.onnx.gz", base.graph(tower).SerializeToString())
            for tower in TOWERS
        }
        written = []
        for adapter, source in adapters.items():
            model = copy.deepcopy(clip.model)
            mh.load_adapter(model, source)
            # What is said of the project's own adapters must not be said of others.
            look = adapter if source.parent == OURS and adapter in ABOUT else None
            adapted = _export(
                dataclasses.replace(clip, model=model), Path(place) / adapter, look or "twemoji"
            )
            written.append(_write_adapter(folder, adapter, look, base, adapted))
    card = {
        **{key: value for key, value in base.notes.items() if key not in ("files", "sha256")},
        "towers": towers,
        "known_tokens": _known_tokens(clip),
        "about": ABOUT_NANO if name == "nano" else None,
        "adapters": written,
    }
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


def _export(clip: mh.Clip, folder: Path, look: str = "twemoji") -> OnnxClip:
    """The model as ONNX, with its weights stored in half precision."""
    exact = mh.export_onnx(clip, folder / "exact", progress=False)
    half = folder / "half"
    shutil.copytree(exact.folder, half)
    for tower in TOWERS:
        onnx.save(_halved(exact.graph(tower)), half / f"{tower}.onnx")
    pictures = mh.emoji_dataset(look, "test")  # the largest split: 99 % needs many pictures
    chain = Chain(exact, pictures, progress=False)
    halved = OnnxClip(half, "weights in half precision")
    link = chain.add(halved, GATE)
    print(
        f"  {folder.name}: smallest cosine {link.cosine:.7f}, the same first answer for "
        f"{link.agreement:.1%} of {len(pictures)} pictures",
        flush=True,
    )
    return halved


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, changed: its large weights are stored in half precision, and cast when loaded."""
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or np.prod(weight.dims) < SMALL:
            continue
        name, stored = weight.name, f"{weight.name}.half"
        half = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(half, stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _require_possible(notes: Mapping[str, Any]) -> None:
    height, width = notes["image_size"]
    if notes["resize_mode"] not in RESIZE_MODES or height != width:
        raise ValueError(
            f"the page can't resize to {height}×{width} pixels by {notes['resize_mode']!r}; it can "
            f"resize to a square, by one of {', '.join(RESIZE_MODES)}"
        )
    if notes["interpolation"] not in INTERPOLATIONS:
        raise ValueError(
            f"the page can't resize by the filter {notes['interpolation']!r}; it knows "
            f"{', '.join(INTERPOLATIONS)}"
        )


def _write_adapter(
    folder: Path, name: str, look: str | None, base: OnnxClip, adapted: OnnxClip
) -> dict[str, Any]:
    """Write what differs from the base; returns what the page has to know of it.

    `look` is the one that an adapter of the project's was trained on; None for any other adapter.
    """
    patches = {}
    for tower in TOWERS:
        patch = _difference(base.graph(tower), adapted.graph(tower))
        if patch.any():
            patches[tower] = _packed(folder / f"{name}.{tower}.xor.gz", patch.tobytes())
    return {
        "name": name,
        "patches": patches,
        "logit_scale": adapted.logit_scale,
        "bytes": sum((folder / file).stat().st_size for file in patches.values()),
        "about": ABOUT[look] if look else None,
        "measured": _measured(look, base, adapted) if look else None,
    }


def _difference(base: onnx.ModelProto, adapted: onnx.ModelProto) -> np.ndarray:
    """Which bits of the base's file are others with the weights of the adapted one."""
    weights = {weight.name: weight for weight in adapted.graph.initializer}
    result = copy.deepcopy(base)
    for weight in result.graph.initializer:
        weight.CopyFrom(weights.pop(weight.name, onnx.TensorProto()))
    old, new = base.SerializeToString(), result.SerializeToString()
    if weights or len(old) != len(new):
        raise ValueError("the adapted model has other weights than the base, or of another shape")
    return np.frombuffer(old, np.uint8) ^ np.frombuffer(new, np.uint8)


def _measured(look: str, base: OnnxClip, adapted: OnnxClip) -> dict[str, Any]:
    """How often each is right in a look, among LABELS, on the pictures of the test split."""
    test = mh.emoji_dataset(look, "test")
    pictures = test.find(*(label for label in LABELS if label in test.captions))
    loaded = [pair.load() for pair in pictures.pairs]
    right = [LABELS.index(caption) for caption in pictures.captions]
    shares = []
    for model in (base, adapted):
        answers = (model.encode_images(loaded) @ model.encode_texts(LABELS).T).argmax(1)
        shares.append(np.mean(answers.numpy() == right))
    return {"pictures": len(pictures), "labels": len(LABELS), "base": shares[0], "on": shares[1]}


def _packed(path: Path, content: bytes) -> str:
    path.write_bytes(gzip.compress(content, mtime=0))
    return path.name


def _known_tokens(clip: mh.Clip) -> list[int] | None:
    """The tokens that the model has an embedding for; None if that is all of them."""
    table = getattr(clip.model, "text", clip.model).token_embedding.weight
    known = table.any(dim=1)
    return None if known.all() else known.nonzero().flatten().tolist()
