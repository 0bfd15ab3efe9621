"""Folding: several frozen convolutions that are one, computed as one; and back.

The trunk of a MobileCLIP was trained with parallel branches: convolutions of several sizes, a
scaled input and the input itself, each with a batch norm of its own. While all of them are frozen,
their sum is one convolution (Vasu et al. 2023, "MobileOne"; timm computes it). The original modules
are kept aside, so that `unfold`, and everything that is saved, give open_clip's own weights.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator

import torch
from timm.layers import ConvNormAct
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..model.weights import StateDict
from .batch_norm import BATCH_NORM
from .inject import require_no_adapters
from .targets import lora_targets

ORIGINAL = "_unfolded"  # where a folded module keeps what it was, in a tuple: no registered child


def fold(model: nn.Module, keep: Collection[str] | None = None) -> list[str]:
    """Fold the image tower's branches and batch norms, in place. Returns the names of what changed.

    `keep` has the names of layers that must stay: by default the "image" targets, so that a target
    set means the same layers folded and unfolded, and an adapter fits both. With `keep=()` all is
    folded, also the few branches that an adapter could sit on.

    Folded modules compute what they did, up to rounding, in eval mode: their batch norm is part of
    a convolution now and can't move. They are frozen, whatever they were. Call it before
    `inject_lora`: ValueError if there are adapters already, TypeError if `model` is no CLIP.
    """
    require_no_adapters(model)
    kept = lora_targets(model, "image") if keep is None else keep
    visual = model.get_submodule("visual")
    names = []
    for name, module in list(_foldable(visual, "visual.")):
        folded = _folded(module)
        layers = {f"{name}.{inner}" for inner, _ in folded.named_modules()}
        if any(layer.startswith(f"{name}.") and layer not in layers for layer in kept):
            continue  # a layer that must stay would be gone
        setattr(folded, ORIGINAL, (module,))
        model.set_submodule(name, folded)
        names.append(name)
    return names


def unfold(model: nn.Module) -> list[str]:
    """Undo `fold`, in place. Returns the names of what it put back.

    Layers that are in both forms (those of a squeeze-and-excitation, into which adapters may have
    been merged) keep their numbers. ValueError if there are adapters: merge or unload them first.
    """
    require_no_adapters(model)
    found = dict(folded_modules(model))
    for name, module in found.items():
        model.set_submodule(name, original_of(module))
    return list(found)


def folded_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """`(name, module)` of everything that is folded."""
    for name, module in model.named_modules():
        if hasattr(module, ORIGINAL):
            yield name, module


@torch.no_grad()
def original_of(folded: nn.Module) -> nn.Module:
    """What a folded module was, on its device, with the layers that both have as they are now."""
    (original,) = getattr(folded, ORIGINAL)
    some = next(folded.parameters())
    original.to(some.device, some.dtype)
    original.load_state_dict(unfolded_state(folded, folded.state_dict()))
    for parameter in original.parameters():
        parameter.requires_grad_(some.requires_grad)
    return original.train(folded.training)


def unfolded_state(folded: nn.Module, state: StateDict) -> StateDict:
    """The original's state dict, with the numbers of `state` for layers that are in both forms."""
    (original,) = getattr(folded, ORIGINAL)
    own = original.state_dict()
    if isinstance(original, ConvNormAct):  # its convolution has another meaning now
        return own
    return own | {name: value for name, value in state.items() if name in own}


def _foldable(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules that can be folded, by their full names."""
    for name, child in module.named_children():
        if hasattr(child, ORIGINAL):
            continue  # it is folded
        if hasattr(child, "reparameterize") or isinstance(child, ConvNormAct):
            if _has_something_to_fold(child):
                yield prefix + name, child
        else:
            yield from _foldable(child, f"{prefix}{name}.")


def _has_something_to_fold(module: nn.Module) -> bool:
    if isinstance(module, ConvNormAct):  # MobileCLIP-B has one without a norm
        return isinstance(module.bn, BATCH_NORM)
    return getattr(module, "reparam_conv", None) is None


@torch.no_grad()
def _folded(module: nn.Module) -> nn.Module:
    """A folded copy."""
    copied = copy.deepcopy(module).eval()
    if isinstance(copied, ConvNormAct):
        copied.conv = fuse_conv_bn_eval(copied.conv, copied.bn)
        # timm's batch norm ends with the activation.
        copied.bn = nn.Sequential(copied.bn.drop, copied.bn.act)
    else:
        copied.reparameterize()  # type: ignore[operator]  # `_foldable` has looked for it
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    return copied.train(module.training)
