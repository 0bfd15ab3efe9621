"""What `load_adapter` promises: an adapter comes back as it was saved, or is refused by name.

A refused one leaves the model as it was, to the bit, the class and the flag.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cases import Case
from conftest import fresh, load_once, skeleton
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import mclip_helpers as mh

HEAD = "visual.trunk.head.fc"
CONVOLUTION = "visual.trunk.stages.0.blocks.0.mlp.fc1"
TEXT = "text.transformer.resblocks.0.attn.q_proj"
TARGETS = [CONVOLUTION, HEAD, TEXT]
DEPTHWISE = "visual.trunk.stages.0.blocks.0.mlp.conv.conv"
A_KEY = f"base_model.model.{HEAD}.lora_A.weight"

BASE, CONFIG, WEIGHTS = "base_model.json", "adapter_config.json", "adapter_model.safetensors"

# ------------------------------------------------------------------------------ scenes and actions


@functools.cache
def trained() -> torch.nn.Module:
    """`nano` with adapters on three kinds of layers, which do something."""
    return randomised(mh.inject_lora(fresh("nano").model, rank=2, alpha=4, targets=TARGETS))


def randomised(lora_model: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for name, parameter in lora_model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.constant_(lora_model.get_base_model().logit_scale, 3.0)
    return lora_model.eval()


@functools.cache
def saved_by_us() -> Path:
    return mh.save_adapter(trained(), Path(tempfile.mkdtemp()) / "adapter")


@functools.cache
def saved_by_peft(targets: str | tuple[str, ...], split: bool = False) -> Path:
    """What people have who adapted this base with PEFT alone."""
    model = fresh("nano").model
    if split:
        mh.split_attention(model)
    chosen = targets if isinstance(targets, str) else list(targets)
    lora_model = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=chosen))
    folder = Path(tempfile.mkdtemp()) / "adapter"
    randomised(lora_model).save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@dataclass
class Scene:
    model: Any
    path: Any


Change = Callable[[Path], Any]


def given(*changes: Change, of: Callable[[], Path] = saved_by_us) -> Callable[[Path], Scene]:
    """`nano`, and a saved adapter after `changes` of its folder."""

    def prepare(folder: Path) -> Scene:
        shutil.copytree(of(), folder / "adapter")
        for change in changes:
            change(folder / "adapter")
        return Scene(fresh("nano").model, folder / "adapter")

    return prepare


def refitted(folder: Path) -> None:
    """Somebody makes the checksums fit again."""
    notes = json.loads((folder / BASE).read_text())
    hashes = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.*")
    }
    if "files" in notes:
        notes["files"] |= {name: hashes[name] for name in (CONFIG, WEIGHTS)}
        notes.pop("sha256", None)
        content = json.dumps(notes, sort_keys=True).encode()
        notes["sha256"] = hashlib.sha256(content).hexdigest()
    else:
        notes["adapter_sha256"] = hashes[WEIGHTS]
    (folder / BASE).write_text(json.dumps(notes))


def as_older_versions_saved(folder: Path) -> None:
    """With a checksum of the weights alone."""
    old = {"adapter_sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()}
    notes = json.loads((folder / BASE).read_text())
    old = {key: notes[key] for key in ("name", "fingerprint", "logit_scale")} | old
    (folder / BASE).write_text(json.dumps(old))


def changed_json(file: str, refit: bool = True, without: str = "", **changes: Any) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) | changes
        content.pop(without, None)
        (folder / file).write_text(json.dumps(content))
        if refit:
            refitted(folder)

    return change


def changed_tensors(change_them: Callable[[dict], Any], refit: bool = True) -> Change:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        changed = change_them(tensors)
        tensors = tensors if changed is None else changed
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / WEIGHTS)
        if refit and (folder / BASE).exists():
            refitted(folder)

    return change


def written(file: str, content: str | bytes) -> Change:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / file).write_bytes(data)


def without(file: str) -> Change:
    return lambda folder: (folder / file).unlink()


def as_a_pipe(file: str) -> Change:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return change


def load(scene: Scene) -> Any:
    return mh.load_adapter(scene.model, scene.path)


def load_unchecked(scene: Scene) -> Any:
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        return mh.load_adapter(scene.model, scene.path, unchecked_base=True)


def everything(scene: Scene) -> Any:
    """All that a refused load could have touched: classes, flags, bits."""
    if not isinstance(scene.model, torch.nn.Module):
        return None
    tensors = [*scene.model.named_parameters(), *scene.model.named_buffers()]
    return (
        [(name, type(m), m.training) for name, m in scene.model.named_modules()],
        [
            (name, t.requires_grad, None if t.is_meta else t.detach().numpy().tobytes())
            for name, t in tensors
        ],
        list(scene.model.state_dict()),
        getattr(scene.model, "peft_config", None),
    )


def refusing(name: str, prepare: Any, *says: str, does: Callable = load, **more: Any) -> Case:
    more = {"refused": ValueError, "keeps": everything} | more
    return Case(name, prepare, does, says=says, **more)


# ------------------------------------------------------------------ the configuration was changed


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:50]}…"


def config_cases() -> list[Case]:
    """With checksums that fit: somebody may refit them."""
    computes_something_else: dict[str, list[Any]] = {
        "use_rslora": [True],
        "use_dora": [True],
        "use_qalora": [True],
        "use_bdlora": [True, {"target_modules_bd_a": [HEAD]}],
        "alpha_pattern": [{HEAD: 1600}, {".*": 1}],
        "rank_pattern": [{HEAD: 4}, {"(a+)+$": 4}],
        "init_lora_weights": [
            "pissa",
            "pissa_niter_4",
            "olora",
            "corda",
            "loftq",
            "eva",
            "lora_ga",
        ],
        "modules_to_save": [["head"], [HEAD]],
        "bias": ["all", "lora_only", None, True],
        "trainable_token_indices": [[0, 1], {"token_embedding": [0]}],
        "layer_replication": [[[0, 2], [1, 3]]],
        "target_parameters": [["in_proj_weight"]],
        "exclude_modules": [[HEAD], "(a+)+$"],
        "layers_to_transform": [0, [0], 1],
        "layers_pattern": ["blocks"],
        "fan_in_fan_out": [True],
        "lora_bias": [True],
        "loftq_config": [{"loftq_bits": 4}],
        "eva_config": [{"rho": 2}],
        "corda_config": [{"corda_method": "kpm"}],
        "megatron_config": [{"a": 1}],
        "alora_invocation_tokens": [[1, 2]],
        "an_option_of_tomorrow": [True, 1, "on", "x" * 5000],
        "peft_type": ["LOHA", "IA3", "ADALORA", "lora", None, 1],
        "lora_alpha": [math.nan, math.inf, 0, -16, "16", True, None, [16]],
        "r": [10**6, 1, 3, 0, -2, 2.0, "2", True, None, 10**30],
        "lora_dropout": [-0.1, 1, 1.5, math.nan, "0", None, True],
        "target_modules": [None, [], "", 3, [HEAD, 3], {HEAD: 1}],
    }
    return [
        refusing(
            f"{option} = {shown(value)} in the configuration is refused",
            given(changed_json(CONFIG, **{option: value})),
            option,
        )
        for option, values in computes_something_else.items()
        for value in values
    ]


PATTERN = "|".join(name.replace(".", "\\.") for name in TARGETS)
TARGET_CASES = [
    refusing(
        f"targets that are {what} are refused",
        given(changed_json(CONFIG, target_modules=targets)),
        *says,
    )
    for what, targets, says in (
        ("a pattern that runs for ever", "(a+)+$|" + PATTERN, ("pattern",)),
        ("another pattern that runs for ever", r"(.*.*)*.*fc1x", ("pattern",)),
        ("a pattern", r".*head\.fc", ("pattern",)),
        ("fewer than the tensors", HEAD.replace(".", "\\."), (CONFIG, "does not name")),
        ("fewer than the tensors, in a list", [HEAD], ("does not name",)),
        ("more than the tensors", PATTERN + "|" + TEXT.replace("q_", "k_"), ("k_proj",)),
        ("more than the tensors, in a list", [*TARGETS, "k_proj"], ("k_proj",)),
        ("others than the tensors", PATTERN.replace("fc1", "fc2"), ("fc2",)),
        ("all-linear", "all-linear", ("all-linear",)),
        ("a list of 9,000 names", [f"a{i}" for i in range(9000)], ("more layers",)),
        ("a megabyte of names", ["a" * 2_000_000], (CONFIG, "larger than")),
    )
]

WITH_CHECKSUMS = [
    *(
        refusing(
            f"a changed {file} is refused: {what}",
            given(changed_json(file, refit=False, **change)),
            file,
            says,
        )
        for file, change, what, says in (
            (CONFIG, {"lora_alpha": 1600}, "alpha is 1600", "is damaged"),
            (CONFIG, {"lora_dropout": 0.5}, "another dropout", "is damaged"),
            (CONFIG, {"base_model_name_or_path": "x"}, "another base", "is damaged"),
            (BASE, {"logit_scale": 4.0}, "another logit_scale", "changed"),
            (BASE, {"remark": "mine"}, "a remark", "changed"),
            (BASE, {"files": {}}, "no checksums", "no checksum"),
            (BASE, {"sha256": "0" * 64}, "another checksum", "changed"),
        )
    ),
    refusing(
        "a flipped bit in the weights is refused",
        given(lambda f: written(WEIGHTS, flipped((f / WEIGHTS).read_bytes()))(f)),
        WEIGHTS,
        "is damaged",
    ),
]


def flipped(data: bytes) -> bytes:
    """One bit of the last number's mantissa."""
    return data[:-4] + bytes([data[-4] ^ 1]) + data[-3:]


# ------------------------------------------------------------------------- base_model.json is wrong

NOTES = [
    *(
        refusing(f"a {file} that is {what} is refused", given(written(file, content), *then), file)
        for file, then in ((BASE, ()), (CONFIG, (refitted,)))
        for what, content in (
            ("empty", ""),
            ("no JSON", "{"),
            ("a list", "[]"),
            ("a number", "3"),
            ("null", "null"),
            ("no text", b"\xff\xfe\x00{"),
            ("nested without end", "[" * 100_000),
            ("an empty object", "{}"),
        )
    ),
    *(
        refusing(
            f"{key} = {value!r} in base_model.json is refused",
            given(changed_json(BASE, **{key: value})),
            key,
            BASE,
        )
        for key, values in {
            "name": (None, 3, ["nano/nano"]),
            "fingerprint": (None, 3, {}),
            "logit_scale": (math.nan, math.inf, -math.inf, 1e6, "3", True, None, [3]),
        }.items()
        for value in values
    ),
    *(
        refusing(
            f"base_model.json without {key} is refused",
            given(changed_json(BASE, without=key)),
            BASE,
        )
        for key in ("name", "fingerprint", "logit_scale")
    ),
    refusing(
        "an adapter for another model is refused with both names",
        given(changed_json(BASE, name="MobileCLIP2-S0/dfndr2b")),
        "made for 'MobileCLIP2-S0/dfndr2b', not for 'nano/nano'",
    ),
    refusing(
        "an adapter for other weights is refused with both fingerprints",
        given(changed_json(BASE, fingerprint="0123456789abcdef")),
        "0123456789abcdef",
    ),
]

# --------------------------------------------------------------------------- the weights are wrong


def put(key: str, value: Any) -> Change:
    """`value`, or what it makes of the old one, under `key`."""

    def change(tensors: dict) -> None:
        tensors[key] = value(tensors.get(key)) if callable(value) else value

    return changed_tensors(change)


def at_the_end(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor

    return change


def of_a_layer(name: str, rank: int, inside: int, out: int) -> Change:
    def change(tensors: dict) -> None:
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.zeros(rank, inside)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.zeros(out, rank)

    return changed_tensors(change)


BASE_WEIGHT = f"base_model.model.{HEAD}.base_layer.weight"
CONVOLUTION_A = f"base_model.model.{CONVOLUTION}.lora_A.weight"
LONG_HEAD = b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
TENSORS = [
    *(
        refusing(f"{what} in the weights is refused", given(put(key, value)), says)
        for what, key, value, says in (
            ("the base's weight", BASE_WEIGHT, torch.zeros(256, 256), "base_layer"),
            (
                "the base's bias",
                BASE_WEIGHT.replace("weight", "bias"),
                torch.zeros(9),
                "base_layer",
            ),
            ("a weight of the model", f"base_model.model.{HEAD}.weight", torch.zeros(9), HEAD),
            ("logit_scale", "base_model.model.logit_scale", torch.zeros(()), "logit_scale"),
            ("logit_scale, without a prefix", "logit_scale", torch.zeros(()), "logit_scale"),
            (
                "a magnitude of DoRA",
                f"{A_KEY[:-13]}lora_magnitude_vector",
                torch.ones(9),
                "magnitude",
            ),
            ("a bias of B", A_KEY.replace("A.weight", "B.bias"), torch.ones(9), "lora_B.bias"),
            ("a second adapter", A_KEY.replace("weight", "x.weight"), torch.ones(9), "lora_A.x"),
            (
                "an embedding's adapter",
                f"{A_KEY[:-13]}lora_embedding_A",
                torch.ones(9),
                "embedding",
            ),
            (
                "a key without the prefix",
                A_KEY.removeprefix("base_model.model."),
                torch.ones(9),
                HEAD,
            ),
            ("NaN", A_KEY, at_the_end(math.nan), "NaN"),
            ("infinity", A_KEY, at_the_end(math.inf), "infinity"),
            ("minus infinity", CONVOLUTION_A, at_the_end(-math.inf), "infinity"),
            ("another rank", A_KEY, torch.zeros(4, 256), "rank 2"),
            ("another width", A_KEY, torch.zeros(2, 255), "(2, 255)"),
            ("a transposed A", A_KEY, lambda a: a.T, HEAD),
            ("a flat A", A_KEY, lambda a: a.flatten(), HEAD),
            ("an empty A", A_KEY, torch.zeros(0), "(0,)"),
            ("a number for A", A_KEY, torch.zeros(()), "()"),
            ("a Linear's A in a convolution", CONVOLUTION_A, lambda a: a.flatten(1), CONVOLUTION),
            ("a larger kernel", CONVOLUTION_A, lambda a: a.expand(-1, -1, 3, 3), CONVOLUTION),
            ("whole numbers", A_KEY, lambda a: a.long(), "I64"),
            ("truth values", A_KEY, lambda a: a.bool(), "BOOL"),
            ("double precision", A_KEY, lambda a: a.double(), "F64"),
            ("8-bit floats", A_KEY, lambda a: a.to(torch.float8_e4m3fn), "F8_E4M3"),
        )
    ),
    *(
        refusing(
            f"weights without {what} are refused",
            given(
                changed_tensors(lambda t, gone=gone: {k: v for k, v in t.items() if gone not in k})
            ),
            says,
        )
        for what, gone, says in (
            ("an A", f"{HEAD}.lora_A", HEAD),
            ("a B", f"{HEAD}.lora_B", HEAD),
            ("any B", ".lora_B", "lora_B"),
            ("a layer that the configuration names", HEAD, HEAD),
            ("anything", ".lora_", "no adapter"),
        )
    ),
    *(
        refusing(f"an adapter for {what} is refused", given(of_a_layer(layer, 2, 8, 8)), layer)
        for what, layer in (
            ("a layer that is not there", "visual.trunk.stages.9.fc"),
            ("a depthwise convolution", DEPTHWISE),
            ("a norm", "text.ln_final"),
            ("an embedding", "text.token_embedding"),
            ("the whole model", "visual"),
        )
    ),
    *(
        refusing(f"a weights file that is {what} is refused", given(change, refitted), WEIGHTS)
        for what, change in (
            ("empty", written(WEIGHTS, "")),
            ("a text", written(WEIGHTS, "version https://example.org/spec/v1\n" * 9)),
            ("a pickle", lambda f: torch.save({"a": torch.ones(1)}, f / WEIGHTS)),
            ("cut short", lambda f: os.truncate(f / WEIGHTS, 2000)),
            ("a head without end", written(WEIGHTS, b"\xff" * 7 + b"\x7f" + b"{}")),
            ("a head of 2 EB", written(WEIGHTS, (2**61).to_bytes(8, "little") + b"{}")),
            (
                "tensors beyond its end",
                written(WEIGHTS, len(LONG_HEAD).to_bytes(8, "little") + LONG_HEAD),
            ),
        )
    ),
]

# --------------------------------------------------------------------------------- wrong arguments


def with_model(make: Callable[[], Any]) -> Callable[[Path], Scene]:
    return lambda folder: Scene(make(), saved_by_us())


def with_path(path: Any) -> Callable[[Path], Scene]:
    return lambda folder: Scene(
        fresh("nano").model, folder / path if isinstance(path, str) else path
    )


@functools.cache
def merged_away() -> torch.nn.Module:
    lora_model = mh.inject_lora(fresh("nano").model, rank=1)
    mh.merge_adapter(lora_model)
    return lora_model


ARGUMENTS = [
    *(
        refusing(
            f"{what} in the place of a model is refused",
            with_model(make),
            "clip.model",
            refused=TypeError,
        )
        for what, make in (
            ("a Clip", lambda: load_once("nano")),
            ("a list", lambda: [1]),
            ("None", lambda: None),
            ("a text", lambda: "nano"),
            ("a class", lambda: torch.nn.Linear),
        )
    ),
    refusing("a model with adapters is refused", with_model(trained), "has LoRA adapters already"),
    refusing(
        "the model under adapters is refused",
        with_model(lambda: trained().get_base_model()),
        "has LoRA adapters already",
    ),
    refusing("what merge_adapter has emptied is refused", with_model(merged_away), "merge_adapter"),
    refusing(
        "another model is refused",
        with_model(lambda: skeleton("ViT-B-32").model),
        "'ViT-B-32/random'",
    ),
    refusing(
        "a layer in the place of a model is refused",
        with_model(lambda: torch.nn.Linear(2, 2)),
        "unnamed",
    ),
    *(
        refusing(f"{what} in the place of a folder is refused", prepare, *says, refused=error)
        for what, prepare, says, error in (
            ("nothing", with_path("nowhere"), ("nowhere is not an adapter",), FileNotFoundError),
            ("an empty folder", with_path("."), ("is not an adapter",), FileNotFoundError),
            (
                "a file",
                (lambda f: Scene(fresh("nano").model, saved_by_us() / BASE)),
                ("is not an adapter",),
                FileNotFoundError,
            ),
            (
                "a folder of something else",
                lambda f: Scene(fresh("nano").model, mh.data_folder()),
                ("is not an adapter",),
                FileNotFoundError,
            ),
            ("a name that is too long", with_path("x" * 300), ("can't be read",), OSError),
            ("a name with a NUL in it", with_path("a\0b"), ("can't be",), OSError),
            ("None", with_path(None), ("a text or a Path",), TypeError),
            ("a number", with_path(3), ("a text or a Path",), TypeError),
            ("the root of all folders", with_path(Path("/")), ("root",), OSError),
        )
    ),
    *(
        refusing(
            f"a folder without {file} is refused",
            given(without(file)),
            f"no {file}",
            refused=FileNotFoundError,
        )
        for file in (BASE, CONFIG, WEIGHTS)
    ),
    *(
        refusing(
            f"a pipe for {file} is refused, and not waited for",
            given(as_a_pipe(file)),
            file,
            refused=FileNotFoundError,
        )
        for file in (BASE, CONFIG, WEIGHTS)
    ),
    refusing(
        "a link that leads back to itself is refused",
        lambda f: (f / "a").symlink_to("a") or Scene(fresh("nano").model, f / "a"),
        "leads back to itself",
        refused=OSError,
    ),
]

# ---------------------------------------------------------------------------------- what is loaded


def numbers(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach() for name, p in model.named_parameters() if ".lora_" in name]


def whole(model: torch.nn.Module, lora_model: torch.nn.Module, scale: bool = True) -> bool:
    """`lora_model` computes, to the bit, what `trained()` does."""
    torch.manual_seed(0)
    images, tokens = torch.rand(1, 3, 64, 64), load_once("nano").tokenizer(["a cat"])
    with torch.no_grad():
        same = [
            torch.equal(left, right)
            for left, right in (
                (lora_model.encode_image(images), trained().encode_image(images)),
                (lora_model.encode_text(tokens), trained().encode_text(tokens)),
                *zip(numbers(lora_model), numbers(trained()), strict=True),
            )
        ]
    return all(same) and (not scale or model.logit_scale.item() == 3.0)


def base_kept(scene: Scene, lora_model: torch.nn.Module) -> bool:
    """The base under the adapters, when they are switched off again, is what it was."""
    same = load_once("nano").model.state_dict()
    for _, layer in mh.lora_layers(lora_model):
        for part in (layer.lora_A, layer.lora_B):
            torch.nn.init.zeros_(part["default"].weight)
    state = mh.merge_adapter(lora_model).state_dict()
    return all(torch.equal(state[key], same[key]) for key in same if key != "logit_scale")


def loads(scene: Scene, lora_model: torch.nn.Module) -> bool:
    return whole(scene.model, lora_model) and not any(
        p.requires_grad for p in lora_model.parameters()
    )


def peft_case(name: str, of: Callable[[], Path], layers: int) -> Case:
    return Case(
        name,
        given(of=of),
        load_unchecked,
        holds=lambda scene, lora_model: (
            len(list(mh.lora_layers(lora_model))) == layers and base_kept(scene, lora_model)
        ),
    )


LOADED = [
    Case("a saved adapter is loaded whole", given(), load, holds=loads),
    Case("the base under a loaded adapter is what it was", given(), load, holds=base_kept),
    Case(
        "an adapter of an older version is loaded whole",
        given(as_older_versions_saved),
        load,
        holds=loads,
    ),
    Case(
        "the adapter that the project brings along is loaded",
        lambda f: Scene(fresh("nano").model, mh.data_folder() / "adapters" / "thermal"),
        load,
        holds=lambda scene, lora_model: len(list(mh.lora_layers(lora_model))) == 9,
    ),
    Case(
        "an edited model card is no reason to refuse",
        given(written("README.md", "# My adapter")),
        load,
        holds=loads,
    ),
    Case(
        "other files beside it are no reason to refuse",
        given(written("thesis.txt", "mine")),
        load,
        holds=loads,
    ),
    Case("a link to it is followed", lambda f: _linked(given()(f)), load, holds=loads),
    Case(
        "a path may be a text",
        lambda f: (s := given()(f)) and Scene(s.model, str(s.path)),
        load,
        holds=loads,
    ),
    Case(
        "targets in a list, as PEFT writes them, are read as PEFT reads them",
        given(changed_json(CONFIG, target_modules=["q_proj", *TARGETS[:2]])),
        lambda scene: mh.load_adapter(scene.model, scene.path),
        refused=ValueError,
        says=("resblocks.1.attn.q_proj",),
        keeps=everything,
    ),
    Case(
        "half precision is loaded without a loss",
        given(changed_tensors(lambda t: {key: value.half() for key, value in t.items()})),
        load,
        holds=lambda scene, lora_model: all(
            torch.equal(a, b.half().float())
            for a, b in zip(numbers(lora_model), numbers(trained()), strict=True)
        ),
    ),
]


def _linked(scene: Scene) -> Scene:
    link = scene.path.with_name("link")
    link.symlink_to(scene.path)
    return Scene(scene.model, link)


# ------------------------------------------------------------------ adapters that PEFT itself saved

head_by_peft = functools.partial(saved_by_peft, (HEAD,))


def ours_without_notes() -> Path:
    folder = Path(tempfile.mkdtemp()) / "adapter"
    shutil.copytree(saved_by_us(), folder)
    (folder / BASE).unlink()
    return folder


def warning_of(scene: Scene) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mh.load_adapter(scene.model, scene.path, unchecked_base=True)
    return [str(warning.message) for warning in caught]


FROM_PEFT = [
    refusing(
        "an adapter without base_model.json is refused unless asked for, with the way to ask",
        given(of=head_by_peft),
        "no base_model.json",
        "unchecked_base=True",
        refused=FileNotFoundError,
    ),
    peft_case("PEFT's adapter on one layer is loaded", head_by_peft, 1),
    peft_case(
        "PEFT's adapter on ends of names is loaded",
        functools.partial(saved_by_peft, ("fc1", "fc2")),
        20,
    ),
    peft_case(
        "PEFT's adapter by a pattern is loaded", functools.partial(saved_by_peft, r".*head\.fc"), 1
    ),
    peft_case(
        "PEFT's adapter on attention that we split is loaded",
        functools.partial(saved_by_peft, ("q_proj", "v_proj"), True),
        6,
    ),
    peft_case(
        "PEFT's adapter on all Linear layers is loaded",
        functools.partial(saved_by_peft, "all-linear", True),
        23,
    ),
    Case(
        "our adapter without its base_model.json is loaded whole, but for logit_scale",
        given(of=ours_without_notes),
        load_unchecked,
        holds=lambda scene, lora_model: (
            whole(scene.model, lora_model, scale=False)
            and scene.model.logit_scale.item() == load_once("nano").model.logit_scale.item()
        ),
    ),
    Case(
        "one warning says what could not be checked",
        given(of=head_by_peft),
        warning_of,
        holds=lambda scene, said: (
            len(said) == 1 and "base_model.json" in said[0] and "logit_scale" in said[0]
        ),
    ),
    Case(
        "a warning says that a pattern was not run",
        given(of=functools.partial(saved_by_peft, r".*head\.fc")),
        warning_of,
        holds=lambda scene, said: len(said) == 1 and "pattern" in said[0],
    ),
    Case(
        "a pattern that runs for ever is not run",
        given(
            changed_json(CONFIG, refit=False, target_modules="(.*.*)*.*head.fcx"), of=head_by_peft
        ),
        load_unchecked,
        holds=base_kept,
    ),
    Case(
        "with its base_model.json, all is checked and nothing is warned of",
        given(),
        warning_of,
        holds=lambda scene, said: said == [],
    ),
    refusing(
        "with its base_model.json, another base is refused as ever",
        given(changed_json(BASE, fingerprint="0" * 16)),
        "0" * 16,
        does=load_unchecked,
    ),
    refusing(
        "PEFT's own adapter for attention is refused by name",
        given(of=functools.partial(saved_by_peft, ("attn",))),
        "attn",
        "MultiheadAttention",
        "inject_lora",
        does=load_unchecked,
    ),
    *(
        refusing(
            f"PEFT's adapter with {what} is refused",
            given(change, of=head_by_peft),
            says,
            does=load_unchecked,
        )
        for what, change, says in (
            ("rsLoRA", changed_json(CONFIG, refit=False, use_rslora=True), "use_rslora"),
            ("PiSSA", changed_json(CONFIG, refit=False, init_lora_weights="pissa"), "pissa"),
            ("a rank of a million", changed_json(CONFIG, refit=False, r=10**6), "1000000"),
            (
                "another α for a layer",
                changed_json(CONFIG, refit=False, alpha_pattern={"fc": 9}),
                "alpha_pattern",
            ),
            ("the base's weight", put(BASE_WEIGHT, torch.zeros(2)), "base_layer"),
            ("NaN", put(A_KEY, at_the_end(math.nan)), "NaN"),
            ("another width", put(A_KEY, torch.zeros(2, 9)), "(2, 9)"),
            (
                "names without a tensor",
                changed_json(CONFIG, refit=False, target_modules=["fc", "fc1"]),
                "fc1",
            ),
        )
    ),
]

CASES = [
    *config_cases(),
    *TARGET_CASES,
    *WITH_CHECKSUMS,
    *NOTES,
    *TENSORS,
    *ARGUMENTS,
    *LOADED,
    *FROM_PEFT,
]
