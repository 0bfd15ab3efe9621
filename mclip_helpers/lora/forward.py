"""What a forward pass calls.

An adapter wraps a layer, and acts when that layer is called. Some models have layers that are never
called: a parent reads their weights (`nn.MultiheadAttention`, the pooling attention of open_clip's
ResNets, EVA's `qkv`), or they belong to something else (CoCa's decoder of captions). Their names
don't tell; a forward pass does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from ..model.clip import ClipModel, require_model
from ..model.modes import in_eval


@dataclass
class ForwardPass:
    """The names of the modules that are called, and of the one that returns the image embedding.

    `embedding` is the last Linear called in the image tower, if what it returns has the embedding's
    shape; None where the model itself goes on from there (ViT's `proj` is a raw parameter).
    """

    called: set[str] = field(default_factory=set)
    embedding: str | None = None


@torch.no_grad()
def forward_pass(model: ClipModel) -> ForwardPass:
    """Encode one blank picture and one text in eval mode, on the model's device; changes nothing.

    Raises TypeError if `model` is no CLIP of open_clip, ValueError if it can't encode them.
    """
    _require_clip_model(model)
    weight = next(model.visual.parameters())
    size = model.visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    picture = torch.zeros(1, 3, height, width, device=weight.device, dtype=weight.dtype)
    text = torch.ones(1, model.context_length, device=weight.device, dtype=torch.long)
    found = ForwardPass()
    shapes: dict[str, torch.Size] = {}

    def note(name: str, layer: nn.Module, inputs: tuple, output: object) -> None:
        found.called.add(name)
        if isinstance(layer, nn.Linear) and isinstance(output, torch.Tensor):
            shapes[name] = output.shape

    with _listening(model, note):
        try:
            features = model.encode_image(picture)
            last = next(reversed(shapes), None)
            model.encode_text(text)
        except Exception as error:
            raise ValueError(
                f"this {type(model).__name__} can't encode one blank picture {height}×{width} and "
                f"one text of {model.context_length} tokens, which is tried to see which layers it "
                f"calls: {type(error).__name__}: {error}"
            ) from error
    if last is not None and shapes[last] == features.shape:
        found.embedding = last
    return found


def _require_clip_model(model: nn.Module) -> None:
    require_model(model)
    children = dict(model.named_children())
    if "visual" not in children or not hasattr(model, "encode_text"):
        inside = f" around a {type(next(iter(children.values()))).__name__}" if children else ""
        raise TypeError(
            f"this is a {type(model).__name__}{inside}, not a CLIP of open_clip; pass clip.model "
            f"itself, before anything is wrapped around it"
        )


@contextmanager
def _listening(model: nn.Module, note: Callable[..., None]) -> Iterator[None]:
    """In eval mode, with `note(name, module, inputs, output)` called after each module."""
    hooks = [m.register_forward_hook(partial(note, name)) for name, m in model.named_modules()]
    try:
        with in_eval(model):
            yield
    finally:
        for hook in hooks:
            hook.remove()
