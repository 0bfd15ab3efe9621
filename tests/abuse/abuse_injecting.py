"""What `inject_lora` promises: an adapter that can learn, or a model that is what it was.

And what `train` promises of adapters that nobody could foresee to be dead, and `load_model` of a
name, a device or a tokenizer that is not there.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from architectures import small
from cases import Case
from conftest import emoji_pairs, fresh
from huggingface_hub import constants as hub_constants
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraModel
from torch import nn

import mclip_helpers as mh

# ---- scenes, and what stays ----------------------------------------------------------------------


@functools.cache
def nano_of_few_words() -> mh.Clip:
    """`nano` without most of its vocabulary, which is most of its size."""
    clip = fresh("nano")
    words = clip.model.text.token_embedding.weight.detach()[:64].clone()
    clip.model.text.token_embedding = nn.Embedding.from_pretrained(words, freeze=False)
    return clip


def nano(_: Path) -> mh.Clip:
    clip = nano_of_few_words()
    return dataclasses.replace(clip, model=copy.deepcopy(clip.model))


def a_small(name: str) -> Callable[[Path], mh.Clip]:
    return lambda _: small(name)


def everything(clip: mh.Clip) -> tuple:
    """All of a model: classes, modes, attributes, flags, order, and the bits of every number."""
    model = clip.model
    digest = hashlib.blake2b()
    for tensor in model.state_dict().values():
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return (
        [(name, type(m), m.training, sorted(vars(m))) for name, m in model.named_modules()],
        [(name, p.requires_grad, p.grad is None) for name, p in model.named_parameters()],
        list(model.state_dict()),
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        digest.hexdigest(),
    )


def inject(clip: mh.Clip, **arguments: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of layers left out
        return mh.inject_lora(clip.model, **arguments)


def an_argument(name: str, value: object, *says: str, kind: Any = ValueError) -> Case:
    return Case(
        f"{name} = {value!r:.50} is refused",
        nano,
        lambda clip: inject(clip, **{name: value}),
        refused=kind,
        says=says or (f"{name} is ",),
        keeps=everything,
    )


# ---- numbers -------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
NUMBERS = [
    *(
        an_argument("rank", value, "rank is", "a whole number")
        for value in (True, False, 0, -1, -8, 2.5, 8.0, NAN, INF, "8", b"8", None, [8], (8,), 8j)
    ),
    *(
        an_argument("rank", value, "rank is", "at most 256")  # the largest target is 512 → 256
        for value in (257, 10**6, 10**9, 10**100)
    ),
    *(
        an_argument("alpha", value, "alpha is", "a finite number, above 0")
        for value in (0, 0.0, -0.0, -1, -1e-9, NAN, INF, -INF, True, "16", b"16", None, [16], 16j)
    ),
    *(
        an_argument("dropout", value, "dropout is", "a finite number", "at least 0")
        for value in (-0.1, -1e-9, 1, 1.0, 1.5, NAN, INF, True, "0.1", None, [0.1], 0.1j)
    ),
]


def allowed(rank: Any, alpha: Any, dropout: Any) -> Case:
    def holds(clip: mh.Clip, lora_model: Any) -> bool:
        config = lora_model.peft_config["default"]
        layers = dict(mh.lora_layers(clip.model))
        return len(layers) == 17 and (config.r, config.lora_alpha) == (rank, alpha)

    return Case(
        f"rank {rank!r}, alpha {alpha!r}, dropout {dropout!r} are accepted",
        nano,
        lambda clip: inject(clip, rank=rank, alpha=alpha, dropout=dropout),
        holds=holds,
    )


ALLOWED = [
    allowed(1, 1e-6, 0),
    allowed(256, 512, 0.999),
    allowed(np.int64(4), np.float32(0.5), np.float32(0.25)),
]

# ---- targets -------------------------------------------------------------------------------------

HEAD = "visual.trunk.head.fc"
TEXT_ATTENTION = "text.transformer.resblocks.0.attn"
WRONG_KIND = "a list of whole names"
TARGETS = [
    *(
        an_argument("targets", value, WRONG_KIND, kind=TypeError)
        for value in (
            *(None, 5, 2.5, True, b"image", {HEAD}, {HEAD: 1}, [None], [HEAD, 3], [[HEAD]]),
            *([b"head"], [Path(HEAD)], [nn.Linear], nn.Linear(2, 2), iter([HEAD]), range(3)),
        )
    ),
    *(
        an_argument("targets", value, "no layer's whole name matches", "These would work")
        for value in ("", " ", "Default", "default ", "IMAGE", "head", "fc", ".fc", "q_proj", "^$")
    ),
    *(an_argument("targets", v, "no layer's whole name matches") for v in ([], ())),
    *(
        an_argument("targets", value, "is not a regular expression")
        for value in (
            "(",
            ")",
            "[",
            "*",
            "a**",
            "(?P<",
            "\\",
            "(?<=a",
            "x{2,1}",
        )
    ),
    *(
        an_argument("targets", value, "takes longer than", "repeats")
        for value in (r"(\w|\w\w|\.)+[^\w.]", r"(.|.){40,}[^\w.]")
    ),
    *(
        an_argument("targets", value, "no layer is called", "These would work")
        for value in (
            *(["head"], [""], ["default"], [HEAD, "no.such.layer"], [HEAD + " "], [HEAD + "."]),
            *([HEAD + ".weight"], [TEXT_ATTENTION + ".in_proj_weight"], ["model." + HEAD]),
            *(["logit_scale"], ["../" + HEAD], ["text.positional_embedding"]),
        )
    ),
    an_argument("targets", [HEAD, HEAD], "names", HEAD, "twice"),
    an_argument("targets", [HEAD, TEXT_ATTENTION + ".q_proj", HEAD], "names", HEAD, "twice"),
    *(
        an_argument("targets", [name], f"{name} is a", "These would work")
        for name in (
            *("visual", "text", "visual.trunk", TEXT_ATTENTION, "text.token_embedding"),
            *("text.ln_final", "visual.trunk.stem.1.conv_kxk.0.conv"),
        )
    ),
    an_argument("targets", ".*", "is a container", "more like it"),
    an_argument("targets", r"visual\..*", "is a container", "more like it"),
    an_argument("targets", r"text\..*(ln_1|q_proj)", "is a LayerNorm"),
]

# ---- the model -----------------------------------------------------------------------------------


def passing(what: str, make: Callable[[mh.Clip], object], kind: Any, *says: str) -> Case:
    return Case(
        f"{what} in place of the model is refused",
        lambda folder: (clip := nano(folder), make(clip)),
        lambda scene: mh.inject_lora(scene[1]),
        refused=kind,
        says=says,
        keeps=lambda scene: everything(scene[0]),
    )


RIGHT_CALL = "pass clip.model"
MODELS = [
    passing("a Clip", lambda clip: clip, TypeError, "this is a Clip", "clip.model"),
    passing("None", lambda clip: None, TypeError, "NoneType", RIGHT_CALL),
    passing("a list of models", lambda clip: [clip.model], TypeError, "list", RIGHT_CALL),
    passing("a name", lambda clip: "nano", TypeError, "str", RIGHT_CALL),
    passing("a class", lambda clip: type(clip.model), TypeError, RIGHT_CALL),
    passing("a state dict", lambda clip: clip.model.state_dict(), TypeError, RIGHT_CALL),
    passing("a bound method", lambda clip: clip.model.encode_image, TypeError, RIGHT_CALL),
    passing("a layer", lambda clip: nn.Linear(4, 4), TypeError, "not a CLIP", RIGHT_CALL),
    passing("an empty module", lambda clip: nn.Module(), TypeError, "not a CLIP", RIGHT_CALL),
    passing("one tower", lambda clip: clip.model.visual, TypeError, "not a CLIP", RIGHT_CALL),
    passing("a Sequential", lambda c: nn.Sequential(c.model), TypeError, "around a CustomTextCLIP"),
    passing("a ModuleDict", lambda c: nn.ModuleDict({"m": c.model}), TypeError, "not a CLIP"),
    passing("a compiled model", lambda c: torch.compile(c.model), TypeError, "around a Custom"),
    passing("a data-parallel model", lambda c: nn.DataParallel(c.model), TypeError, "around a "),
    *(
        Case(
            f"a model that has adapters already is refused ({what})",
            lambda _, of=of: (clip := fresh("nano"), of(clip))[0],
            lambda clip, take=take: mh.inject_lora(take(clip)),
            refused=ValueError,
            says=("has LoRA adapters already",),
            keeps=everything,
        )
        for what, of, take in (
            ("the model", inject, lambda clip: clip.model),
            (
                "PEFT's own adapters",
                lambda clip: get_peft_model(clip.model, LoraConfig(target_modules=[HEAD])),
                lambda clip: clip.model,
            ),
        )
    ),
    Case(
        "a PeftModel is refused",
        lambda _: inject(fresh("nano")),
        lambda lora_model: mh.inject_lora(lora_model),
        refused=ValueError,
        says=("has LoRA adapters already",),
    ),
]

# ---- it breaks off in the middle -----------------------------------------------------------------


def fails(holder: type, name: str, calls: int, error: type[BaseException]) -> Any:
    """A block in which `holder.name` raises after so many calls."""
    original, left = getattr(holder, name), [calls]

    def failing(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise error("in the middle")
        return original(*args, **options)

    return mock.patch.object(holder, name, failing)


def breaks_off(where: str, place: tuple[type, str, int], error: type[BaseException]) -> Case:
    def does(clip: mh.Clip) -> str:
        with fails(*place, error):
            try:
                inject(clip, targets="all")
            except error as caught:
                return str(caught)
        return "it went through"

    return Case(
        f"{error.__name__} {where} leaves the model as it was",
        nano,
        does,
        holds=lambda clip, message: message == "in the middle",
        keeps=everything,
    )


PLACES = {
    "at the second attention": (nn.Linear, "__init__", 5),
    "at the third batch norm": (nn.Module, "eval", 3),
    "at the first layer": (LoraModel, "_create_and_replace", 0),
    "at the third layer": (LoraModel, "_create_and_replace", 2),
    "at the last layer": (LoraModel, "_create_and_replace", 47),
    "when all adapters are in": (LoraModel, "_mark_only_adapters_as_trainable", 0),
    "at the first matrix of an adapter": (nn.init, "kaiming_uniform_", 13),
}


BROKEN_OFF = [
    *(
        breaks_off(where, place, error)
        for where, place in PLACES.items()
        for error in (MemoryError, KeyboardInterrupt, RuntimeError)
    ),
    Case(
        "after Ctrl-C in the middle the same call works",
        nano,
        lambda clip: (
            [breaks_off("", PLACES["at the third layer"], KeyboardInterrupt).does(clip)]
            and inject(clip)
        ),
        holds=lambda clip, lora_model: len(list(mh.lora_layers(lora_model))) == 17,
    ),
]

# ---- other architectures -------------------------------------------------------------------------


def cannot_carry(name: str, layer: str, *says: str) -> Case:
    return Case(
        f"{name}: an adapter on {layer} is refused",
        a_small(name),
        lambda clip: inject(clip, targets=[layer]),
        refused=ValueError,
        says=(layer, *says),
        keeps=everything,
    )


def every_adapter_learns(name: str, targets: str) -> Case:
    def two_steps(clip: mh.Clip) -> list[str]:
        torch.manual_seed(0)
        inject(clip, rank=2, targets=targets)
        layers = dict(mh.lora_layers(clip.model))
        mh.train(clip, emoji_pairs().head(8), epochs=2, batch_size=8, progress=False)
        return [n for n, layer in layers.items() if not layer.lora_B["default"].weight.any()]

    return Case(
        f"{name}: each adapter on the {targets!r} targets learns",
        a_small(name),
        two_steps,
        holds=lambda clip, still_zero: still_zero == [],
    )


NEVER_CALLED = "no forward pass calls"
OTHERS = [
    *(
        cannot_carry("RN50", f"visual.attnpool.{part}_proj", NEVER_CALLED, "AttentionPool2d")
        for part in "qkvc"
    ),
    cannot_carry("coca_ViT-B-32", "visual.attn_pool.attn.out_proj", NEVER_CALLED),
    *(
        cannot_carry("coca_ViT-B-32", f"text_decoder.resblocks.0.{part}", NEVER_CALLED)
        for part in ("attn.q_proj", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
    ),
    cannot_carry("EVA01-g-14", "visual.trunk.blocks.0.attn.qkv", NEVER_CALLED, "EvaAttention"),
    cannot_carry("ViT-B-16-SigLIP", "text.text_projection", "asks for by its class"),
    Case(
        "RN50: the default set, which finds nothing in the image tower, is refused",
        a_small("RN50"),
        lambda clip: inject(clip),
        refused=ValueError,
        says=("'default' finds no layer", "image tower", "lora_targets"),
        keeps=everything,
    ),
    Case(
        "convnext_base: the default set has the image tower's last layer",
        a_small("convnext_base"),
        inject,
        holds=lambda clip, lora_model: "visual.head.proj" in dict(mh.lora_layers(lora_model)),
    ),
    *(
        every_adapter_learns(name, targets)
        for name, targets in (
            *(("RN50", "image"), ("RN50", "all"), ("convnext_base", "default")),
            *(("coca_ViT-B-32", "image"), ("coca_ViT-B-32", "all"), ("EVA01-g-14", "image")),
            *(("ViT-B-16-SigLIP", "text"), ("ViT-B-16-SigLIP", "all"), ("ViT-B-16", "all")),
        )
    ),
]

# ---- the first step ------------------------------------------------------------------------------


def without_scaling(clip: mh.Clip) -> None:
    inject(clip)
    for _, layer in mh.lora_layers(clip.model):
        layer.scaling["default"] = 0.0


def replaced(clip: mh.Clip) -> None:
    """A forward of one's own, which forgets the adapter."""
    inject(clip)
    layer = dict(mh.lora_layers(clip.model))[HEAD]
    layer.forward = layer.get_base_layer().forward  # type: ignore[attr-defined]


def wrapped(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[mh.Clip], None]:
    """The image tower, with something behind it."""

    def spoil(clip: mh.Clip) -> None:
        inject(clip)
        clip.model.visual.register_forward_hook(lambda tower, inputs, output: change(output))

    return spoil


def both_zero(clip: mh.Clip) -> None:
    inject(clip)
    nn.init.zeros_(dict(mh.lora_layers(clip.model))[HEAD].lora_A["default"].weight)


def only_a(clip: mh.Clip) -> None:
    """B is zero and frozen, so that A never counts."""
    inject(clip)
    dict(mh.lora_layers(clip.model))[HEAD].lora_B["default"].weight.requires_grad_(False)


def pefts_own(layers: str) -> Callable[[mh.Clip], None]:
    """Adapters from PEFT itself, which asks nobody."""

    def spoil(clip: mh.Clip) -> None:
        mh.freeze_batch_norm(clip.model)
        get_peft_model(clip.model, LoraConfig(r=2, target_modules=layers))

    return spoil


def dead(what: str, name: str, spoil: Callable[[mh.Clip], None], *says: str) -> Case:
    def prepare(_: Path) -> mh.Clip:
        clip = fresh("nano") if name == "nano" else small(name)
        torch.manual_seed(0)
        spoil(clip)
        clip.model.logit_scale.requires_grad_(False)
        clip.model.eval()
        return clip

    return Case(
        f"train stops before its first step: {what}",
        prepare,
        lambda clip: mh.train(clip, emoji_pairs().head(8), epochs=1, batch_size=8, progress=False),
        refused=ValueError,
        says=("would never learn", "no step was taken", *says),
        keeps=everything,
    )


FIRST_STEP = [
    dead("every scaling is 0", "nano", without_scaling, "17 of 17", "scaling"),
    dead("alpha vanishes in fp32", "nano", lambda c: inject(c, alpha=1e-50) and None, "17 of 17"),
    dead("one adapter is not called", "nano", replaced, "1 of 17", "never called", HEAD),
    dead("a tower is detached", "nano", wrapped(torch.Tensor.detach), "5 of 17", "cut off"),
    dead("A and B are zero", "nano", both_zero, "1 of 17", HEAD),
    dead("B is zero and frozen", "nano", only_a, "1 of 17", HEAD),
    dead(
        "RN50's pooling attention reads weights",
        "RN50",
        pefts_own(r"visual\.attnpool\..*|transformer.*c_fc"),
        *("4 of 6", "never called", "visual.attnpool.q_proj"),
    ),
    dead(
        "EVA reads the weight of qkv",
        "EVA01-g-14",
        pefts_own(r"visual.*attn\.(qkv|proj)"),
        *("2 of 4", "never called", "visual.trunk.blocks.0.attn.qkv"),
    ),
    dead(
        "CoCa's decoder is not in this loss",
        "coca_ViT-B-32",
        pefts_own(r"text.*c_fc"),
        *("4 of 6", "never called", "text_decoder.resblocks.0.mlp.c_fc"),
    ),
    *(
        Case(
            f"train goes on: {what}",
            lambda _, spoil=spoil, name=name: (clip := a_small(name)(_), spoil(clip))[0],
            lambda clip: mh.train(clip, emoji_pairs(), epochs=1, batch_size=4, progress=False),
            holds=lambda clip, history: len(history.steps) == 6,
        )
        for what, name, spoil in (
            ("stochastic depth skips blocks", "convnext_base", lambda c: inject(c, targets="all")),
            (
                "the text tower's adapters are frozen on purpose",
                "ViT-B-16",
                lambda c: (inject(c), c.model.transformer.requires_grad_(False)),
            ),
        )
    ),
]

# ---- loading a model -----------------------------------------------------------------------------


def load(what: str, kind: Any, *says: str, name: Any = "nano", **arguments: Any) -> Case:
    return Case(
        f"load_model: {what} is refused",
        lambda folder: folder,
        lambda folder: mh.load_model(name, **arguments),
        refused=kind,
        says=says,
    )


def offline(name: str, tokenizer: str) -> Case:
    def does(folder: Path) -> mh.Clip:
        with mock.patch.object(hub_constants, "HF_HUB_OFFLINE", True):
            return mh.load_model(name, pretrained="random", cache_dir=folder / "cache")

    return Case(
        f"load_model: {name} without its tokenizer and without a network is refused",
        lambda folder: folder,
        does,
        refused=mh.WeightsError,
        says=("tokenizer", name, tokenizer, "the hub can't be reached", "with a network"),
    )


LOADING = [
    *(
        load(f"the name {name!r}", TypeError, "a model's name", name=name)
        for name in (None, 5, ["nano"], b"nano", Path("nano"))
    ),
    *(
        load(f"the name {name!r}", ValueError, "there is no model", "nano", name=name)
        for name in ("", " nano", "NANO", "nano/nano", "hf-hub:apple/x", "../nano", "\0")
    ),
    *(
        load(f"the tag {tag!r}", TypeError, "pretrained is a", pretrained=tag)
        for tag in (5, ["nano"], b"nano", True)
    ),
    *(
        load(f"the tag {tag!r}", ValueError, "no weights", pretrained=tag)
        for tag in ("", "Nano", "laion2b", "/etc/passwd")
    ),
    *(
        load(f"the device {device!r}", ValueError, "can't be used here", device=device)
        for device in ("", "gpu", "cuda:99", "cpu:x", 5, ["cpu"])
    ),
    offline("ViT-B-16-SigLIP", "timm/ViT-B-16-SigLIP"),
    offline("ViT-B-16-SigLIP2", "timm/ViT-B-16-SigLIP2"),
    offline("roberta-ViT-B-32", "roberta-base"),
    Case(
        "one text in no list is refused, not taken for its letters",
        nano,
        lambda clip: clip.encode_texts("cat"),
        refused=TypeError,
        says=("'cat'", "list of texts"),
    ),
    Case(
        "one picture in no list is refused",
        nano,
        lambda clip: clip.encode_images(emoji_pairs()[0][0]),
        refused=TypeError,
        says=("list of pictures",),
    ),
]

CASES = [
    *NUMBERS,
    *ALLOWED,
    *TARGETS,
    *MODELS,
    *BROKEN_OFF,
    *OTHERS,
    *FIRST_STEP,
    *LOADING,
]
