"""Whether a saved adapter is one that we know how to compute, and fits this model.

Nothing in the file is trusted. PEFT reads no configuration here: options that change what is
computed are refused by name, and only rank, alpha and dropout are taken over. A pattern is never
run. The names, shapes and types of all tensors are compared with the model before one is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import nn

from ..checks import finite_number, whole_number
from ..names import clean_name, is_adapter
from .attention import PROJECTIONS, is_fused_attention
from .folder import read_json
from .inject import lora_layers
from .targets import why_not

# Options that are read here.
READ = {"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias"}
# Options that change nothing: notes for people and programs, and details of options that are off.
NOTES = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
}
# How A and B began is of no interest once they are trained; the other ways change the base as well.
HARMLESS_STARTS = (True, False, "gaussian", "orthogonal")
PARTS = ("lora_A", "lora_B")
KEY = re.compile(r"base_model\.model\.(.+)\.(lora_[AB])\.weight")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Layer:
    """A layer that can carry an adapter: the shape and type of its weight."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def adapter_shape(self, part: str, rank: int) -> tuple[int, ...]:
        """A is (rank, in), B is (out, rank); a convolution's A has its kernel, its B is 1×1."""
        out, *inside = self.shape
        return (rank, *inside) if part == "lora_A" else (out, rank, *(1 for _ in inside[1:]))


@dataclass(frozen=True)
class Settings:
    """What an adapter's configuration says. `targets`: names as PEFT matches them, or a pattern."""

    rank: int
    alpha: float
    dropout: float
    targets: str | Sequence[str]


@dataclass(frozen=True)
class Adapter:
    """An adapter that fits a model: `layers` in the model's order, `tensors` by layer and part."""

    settings: Settings
    layers: Sequence[str]
    tensors: Mapping[tuple[str, str], torch.Tensor]
    exact: bool  # whether the configuration names these layers, and not by a pattern

    @torch.no_grad()
    def fill(self, lora_model: PeftModel, adapter: str) -> None:
        """Copy the numbers into that adapter of `lora_model`, which is on the same layers."""
        for name, layer in lora_layers(lora_model):
            if name in self.layers:
                for part in PARTS:
                    getattr(layer, part)[adapter].weight.copy_(self.tensors[name, part])


def read_adapter(folder: Path, model: nn.Module) -> Adapter:
    """The adapter in `folder`. ValueError, naming what is wrong, unless it is sure to fit `model`.

    `model` may have adapters itself, and its attention may be split or not.
    """
    settings = read_settings(read_json(folder / CONFIG_NAME))
    layers = adaptable_layers(model)
    file = folder / SAFETENSORS_WEIGHTS_NAME
    try:
        with safe_open(file, framework="pt") as stored:
            headers = {key: stored.get_slice(key) for key in stored.keys()}  # noqa: SIM118
            forms = {k: (tuple(h.get_shape()), h.get_dtype()) for k, h in headers.items()}
            found = check_tensors(forms, layers, settings.rank)
            adapted = {layer for layer, _ in found.values()}
            exact = check_targets(settings.targets, adapted, layers)
            tensors = {found[key]: stored.get_tensor(key) for key in found}
    except SafetensorError as error:
        raise ValueError(f"{file.name} is damaged: {error}") from error
    require_finite(tensors)
    return Adapter(settings, [name for name in layers if name in adapted], tensors, exact)


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Rank, alpha, dropout and targets. ValueError if one is wrong, or anything else is in use."""
    for option, value in config.items():
        off = value is None or value is False or value in ({}, [])
        harmless = option == "init_lora_weights" and value in HARMLESS_STARTS
        if not (option in READ | NOTES or off or harmless):
            raise ValueError(
                f"{CONFIG_NAME} has {_shown(option)} = {_shown(value)}: with it an adapter "
                f"computes something else than W x + (alpha / rank) · B A x, or changes the base"
            )
    if config.get("peft_type") != "LORA":
        raise ValueError(
            f"{CONFIG_NAME} has peft_type = {_shown(config.get('peft_type'))}, not LORA"
        )
    if config.get("bias") != "none":
        raise ValueError(f"{CONFIG_NAME} has bias = {_shown(config.get('bias'))}, not 'none'")
    targets = config.get("target_modules")
    names = [targets] if isinstance(targets, str) else targets
    listed = isinstance(names, list) and names and all(n and isinstance(n, str) for n in names)
    if not listed or targets is None:
        raise ValueError(f"{CONFIG_NAME} has target_modules = {_shown(targets)}, not layers' names")
    finite_number(f"lora_alpha in {CONFIG_NAME}", config.get("lora_alpha"), above=0)
    return Settings(
        rank=whole_number(f"r in {CONFIG_NAME}", config.get("r"), least=1),
        alpha=config["lora_alpha"],  # an int stays one
        dropout=finite_number(
            f"lora_dropout in {CONFIG_NAME}", config.get("lora_dropout"), least=0, below=1
        ),
        targets=targets,
    )


def adaptable_layers(model: nn.Module) -> dict[str, Layer | str]:
    """Every layer as it is once attention is split; the reason instead, where it can't be adapted.

    Names are those in the model without adapters.
    """
    layers: dict[str, Layer | str] = {}
    for name, module in model.named_modules():
        name = clean_name(name)
        if is_adapter(name):
            continue
        if is_fused_attention(module):
            layers[name] = (
                f"a {type(module).__name__}: PEFT's own adapter for it adds the update of out_proj "
                f"twice; make a new one with inject_lora"
            )
            shape, dtype = module.in_proj_weight.shape, module.in_proj_weight.dtype
            part = Layer((shape[0] // 3, *shape[1:]), dtype)
            layers.update({f"{name}.{projection}": part for projection in PROJECTIONS})
        elif (reason := why_not(module)) is None:
            weight = module.weight
            assert isinstance(weight, torch.Tensor)
            layers[name] = Layer(tuple(weight.shape), weight.dtype)
        else:
            layers[name] = reason
    return layers


def check_tensors(
    forms: Mapping[str, tuple[tuple[int, ...], str]], layers: Mapping[str, Layer | str], rank: int
) -> dict[str, tuple[str, str]]:
    """(layer, part) by key. ValueError unless there are an A and a B for some of `layers`, no more.

    `forms` are shapes and types by key, as the file's head has them.
    """
    found = {key: (m[1], m[2]) for key in forms if (m := KEY.fullmatch(key))}
    absent = "a layer that this model does not have"
    fit = {layer: layers.get(layer, absent) for layer, _ in found.values()}
    if unfit := [layer for layer, reason in fit.items() if isinstance(reason, str)]:
        # An attention's own reason says more than what PEFT hides below it.
        layer = min(unfit, key=lambda layer: fit[layer] == absent)
        raise ValueError(f"{SAFETENSORS_WEIGHTS_NAME} adapts {_shown(layer)}, {fit[layer]}")
    if strange := [key for key in forms if key not in found]:
        raise ValueError(
            f"{SAFETENSORS_WEIGHTS_NAME} holds {_shown(strange[0])}, which belongs to no LoRA "
            f"adapter of a Linear or Conv2d, and might overwrite the base"
        )
    if not found:
        raise ValueError(f"{SAFETENSORS_WEIGHTS_NAME} holds no adapter")
    needed = {(layer, part) for layer in fit for part in PARTS}
    if lacking := sorted(needed - set(found.values())):
        raise ValueError(
            f"{SAFETENSORS_WEIGHTS_NAME} lacks {lacking[0][1]} of {lacking[0][0]!r}, which PEFT "
            f"would leave at its start"
        )
    for key, (shape, dtype) in forms.items():
        layer, part = found[key]
        _check_form(f"{part} of {layer!r}", shape, dtype, layers[layer], part, rank)
    return found


def _check_form(
    name: str, shape: tuple[int, ...], dtype: str, layer: Layer | str, part: str, rank: int
) -> None:
    assert isinstance(layer, Layer)
    wanted = layer.adapter_shape(part, rank)
    if shape != wanted:
        raise ValueError(
            f"{SAFETENSORS_WEIGHTS_NAME} has {name} in the shape {shape}; with the rank {rank} of "
            f"{CONFIG_NAME} this layer needs {wanted}"
        )
    # PEFT keeps adapters in fp32 or more, so that half precision is taken over without a loss.
    exact = torch.promote_types(layer.dtype, torch.float32)
    if dtype not in DTYPES or torch.promote_types(DTYPES[dtype], exact) != exact:
        raise ValueError(
            f"{SAFETENSORS_WEIGHTS_NAME} has {name} as {dtype} numbers, which can't be turned into "
            f"the model's ({exact}) without changing them"
        )


def check_targets(
    targets: str | Sequence[str], adapted: set[str], layers: Mapping[str, Layer | str]
) -> bool:
    """ValueError unless `targets` means exactly the layers `adapted`, those that have tensors.

    A string is a regular expression of whole names. It is compared as text, if it is whole names
    with | between, and never run: one can be written that runs for ever. Returns False for any
    other one; what it means isn't known then. A list holds names, or ends of names.
    """
    if isinstance(targets, str):
        if re.fullmatch(r"(\w|\\?[.-]|\|)+", targets) is None:
            return False
        meant = set(targets.replace("\\", "").split("|"))
    elif len(targets) > len(layers):
        raise ValueError(f"{CONFIG_NAME} names more layers than the model has")
    else:
        can = [name for name, layer in layers.items() if isinstance(layer, Layer)]
        meant = {name for name in can for t in targets if name == t or name.endswith(f".{t}")}
        meant |= {t for t in targets if not any(f".{n}".endswith(f".{t}") for n in meant)}
    if lacking := sorted(meant - adapted):
        raise ValueError(
            f"{CONFIG_NAME} names {_shown(lacking[0])}, and {SAFETENSORS_WEIGHTS_NAME} has no "
            f"adapter for it"
        )
    if unnamed := sorted(adapted - meant):
        raise ValueError(
            f"{SAFETENSORS_WEIGHTS_NAME} has an adapter for {unnamed[0]!r}, and {CONFIG_NAME} does "
            f"not name it"
        )
    return True


def require_finite(tensors: Mapping[tuple[str, str], torch.Tensor]) -> None:
    """ValueError, with the first one's name, if a tensor has NaN or infinity in it."""
    for (layer, part), tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{part} of {layer!r} holds NaN or infinity")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
