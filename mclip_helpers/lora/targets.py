"""Targets: the layers of a model that carry an adapter, by their full names."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence

import regex
from torch import nn

from ..names import tower_of
from .forward import ForwardPass, forward_pass

TARGET_SETS = ("default", "image", "first", "text", "all")
TOWERS = ("image", "text")
# How image towers number their blocks: visual.trunk.stages.1.…, visual.transformer.resblocks.7.…
BLOCK = re.compile(r"\.(?:stages|blocks|resblocks|layers?)\.?(\d+)\.")
PATIENCE = 1.0  # seconds for all names; a sound pattern takes a millisecond


def why_not(module: nn.Module) -> str | None:
    """Why `module` can't carry a mergeable LoRA adapter; None if it can."""
    if isinstance(module, nn.Linear):
        return None
    if isinstance(module, nn.Conv2d):
        if module.groups == 1:
            return None
        kind = "depthwise" if module.groups == module.in_channels else "grouped"
        return (
            f"a {kind} convolution: PEFT wants the rank to be a multiple of its {module.groups} "
            f"groups, and can't merge it"
        )
    children = [name for name, _ in module.named_children()]
    if children:
        return f"a container ({type(module).__name__}) of {', '.join(children[:4])}"
    return f"a {type(module).__name__}, not a Linear or Conv2d"


def lora_targets(model: nn.Module, targets: str | Sequence[str] = "default") -> list[str]:
    """The full names of the layers that `targets` stands for.

    - "default": the attention of both towers, and the image tower's last layer (its `head`);
    - "image", "text", "all": every Linear and every 1×1 convolution of that tower, or of both;
    - "first": those in the first half of the image tower's blocks, and before them (in a MobileCLIP
      of four stages: stem, stages 0 and 1);
    - a regular expression for whole names, or a list of whole names.

    A set leaves out what can't carry an adapter: above all a layer that is never called, because
    its parent reads its weights instead. So is the text tower's attention before `split_attention`:
    call this after it.

    Raises ValueError if nothing matches, or if something that was named can't carry an adapter;
    TypeError if `model` is no CLIP of open_clip, or `targets` neither a string nor a list of
    strings.
    """
    return choose_targets(model, targets)[0]


def choose_targets(
    model: nn.Module, targets: str | Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """`lora_targets`, and what a set had to leave out: its name → why."""
    layers = _Layers(model)
    if isinstance(targets, str) and targets in TARGET_SETS:
        whole = "image" if targets == "first" else targets
        names = [name for name in layers.modules if layers.is_in(name, whole)]
        if targets == "first":
            names = _first_half(names)
        refused = layers.refused(names)
        chosen = [name for name in names if name not in refused]
        if not chosen:
            raise ValueError(f"the target set {targets!r} is empty in this {type(model).__name__}")
        return chosen, refused
    matched = _match(layers, targets)
    refused = layers.refused(matched)
    if refused:
        raise ValueError(f"{say_first(refused)}. {layers.suggest(next(iter(refused)))}")
    return matched, {}


def regions(model: nn.Module) -> dict[str, list[str]]:
    """The "image" targets in the order of the forward pass, by their place in the tower.

    "stem" is what comes before the numbered blocks (or stages), "head" what comes after them, and
    "block 0" and so on lie between. ValueError if the names of the blocks have no numbers.
    """
    return by_place(lora_targets(model, "image"))


def by_place(names: Sequence[str]) -> dict[str, list[str]]:
    """`regions`, of the names of an image tower's layers in their order."""
    number = {name: int(found[1]) for name in names if (found := BLOCK.search(name))}
    if not number:
        raise ValueError(
            "the blocks of this model's image tower have no numbers in their names, so nothing "
            "tells which come first; choose layers yourself, from lora_targets(model, 'image')"
        )
    last = max(names.index(name) for name in number)
    places: dict[str, list[str]] = {}
    for i, name in enumerate(names):
        outside = "stem" if i < last else "head"
        places.setdefault(f"block {number[name]}" if name in number else outside, []).append(name)
    return places


def _first_half(names: Sequence[str]) -> list[str]:
    """What comes before the second half of the numbered blocks."""
    places = by_place(names)
    blocks = [place for place in places if place not in ("stem", "head")]
    end = list(places).index(blocks[(len(blocks) + 1) // 2 - 1]) + 1
    second = {name for place in list(places)[end:] for name in places[place]}
    return [name for name in names if name not in second]


def require_each_tower(names: Sequence[str], targets: str | Sequence[str]) -> None:
    """Raise ValueError if `names`, found for a target set, leave a tower of the set empty."""
    found = {tower_of(name) for name in names}
    empty = [t for t in TOWERS if targets in ("default", "all", t) and t not in found]
    if empty:
        raise ValueError(
            f"the target set {targets!r} finds no layer in this model's {' and '.join(empty)} "
            f"tower; pass another of {TARGET_SETS}, or a list of names: lora_targets(model, …) "
            f"shows what each finds"
        )


def say_first(refused: Mapping[str, str]) -> str:
    """Of several layers the first with its reason, and how many more there are."""
    name, reason = next(iter(refused.items()))
    more = f" (and {len(refused) - 1} more like it)" if len(refused) > 1 else ""
    return f"{name} is {reason}{more}"


class _Layers:
    """The modules of a model by name, and what its forward pass says of them."""

    def __init__(self, model: nn.Module):
        self.forward: ForwardPass = forward_pass(model)
        self.modules = dict(model.named_modules())

    def parent(self, name: str) -> nn.Module:
        return self.modules[name.rpartition(".")[0]]

    def is_in(self, name: str, targets: str) -> bool:
        """Whether a layer belongs to a target set, by its kind and place."""
        layer, tower = self.modules[name], tower_of(name)
        if why_not(layer) is not None or tower is None:
            return False
        if targets == "default":
            of_attention = "Attention" in type(self.parent(name)).__name__
            return isinstance(layer, nn.Linear) and (of_attention or name == self.forward.embedding)
        pointwise = isinstance(layer, nn.Linear) or layer.kernel_size == (1, 1)
        return pointwise and targets in ("all", tower)

    def why_not(self, name: str) -> str | None:
        """Why the module of this name can't carry an adapter, in this model; None if it can."""
        module, parent = self.modules[name], self.parent(name)
        if (reason := why_not(module)) is not None:
            return reason
        kind = type(module).__name__
        if name not in self.forward.called:
            return (
                f"a {kind} that no forward pass calls, so that an adapter would be dead (its "
                f"parent, a {type(parent).__name__}, reads its weights or leaves it out)"
            )
        if name.rpartition(".")[2] == "text_projection":
            # open_clip: `isinstance(self.text_projection, nn.Linear)`; else it is a raw parameter.
            return (
                f"a {kind} that open_clip asks for by its class, which an adapter's wrapper hides"
            )
        return None

    def refused(self, names: Iterable[str]) -> dict[str, str]:
        return {name: reason for name in names if (reason := self.why_not(name)) is not None}

    def suggest(self, name: str) -> str:
        """A sentence with some names that would work, those in or beside `name` first."""
        fit = [n for n in self.modules if self.why_not(n) is None]
        plain = name.replace("\\", "").replace(".*", "").strip("^$()")
        near = [n for n in fit if n.startswith(plain)]
        near = near or [n for n in fit if plain.rpartition(".")[2] in n] or fit
        shown = ", ".join(near[:6]) + (", …" if len(near) > 6 else "")
        return f"These would work: {shown}"


def _match(layers: _Layers, targets: str | Sequence[str]) -> list[str]:
    """The names that `targets`, a pattern or a list, gives. At least one, or ValueError."""
    modules = layers.modules
    if isinstance(targets, str):
        matched = _matching(targets, filter(None, modules))
    else:
        matched = _names(targets)
        for name in matched:
            if name not in modules or not name:
                raise ValueError(f"no layer is called {name!r}. {layers.suggest(name)}")
    if not matched:
        raise ValueError(
            f"no layer's whole name matches {targets!r} (nor is it one of {TARGET_SETS}). "
            f"{layers.suggest(str(targets))}"
        )
    return matched


def _matching(text: str, names: Iterable[str]) -> list[str]:
    """The names that match a regular expression whole. ValueError if it is none, or runs for ever.

    `regex` is like `re`, and knows a time limit.
    """
    end = time.monotonic() + PATIENCE
    try:
        pattern = regex.compile(text)
        return [n for n in names if pattern.fullmatch(n, timeout=max(end - time.monotonic(), 1e-3))]
    except regex.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error
    except TimeoutError as error:
        raise ValueError(
            f"{text!r} takes longer than {PATIENCE:g} s on the names of this model's layers: it "
            f"repeats something that repeats; write it without"
        ) from error


def _names(targets: object) -> list[str]:
    """A list of names; TypeError if it is something else, ValueError if a name occurs twice."""
    if not isinstance(targets, list | tuple) or not all(isinstance(n, str) for n in targets):
        shown = repr(targets)
        raise TypeError(
            f"targets is {shown if len(shown) <= 60 else shown[:57] + '…'}; it must be one of "
            f"{TARGET_SETS}, a regular expression for whole names, or a list of whole names"
        )
    twice = [name for i, name in enumerate(targets) if name in targets[:i]]
    if twice:
        raise ValueError(f"targets names {twice[0]!r} twice; name each layer once")
    return list(targets)
