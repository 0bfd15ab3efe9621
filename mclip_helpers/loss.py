"""The contrastive loss of CLIP, written out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from .checks import finite_number

MAX_LOGIT_SCALE = 100  # CLIP's own bound on the multiplier


class NotFiniteError(ValueError):
    """Features with NaN or infinity in them."""


def contrastive_loss(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    logit_scale: torch.Tensor | float,
    classes: torch.Tensor | None = None,
) -> torch.Tensor:
    """How badly N pictures and N captions find each other; a scalar, ln N if they know nothing.

    `image_features` and `text_features` (N, D): row i of one belongs to row i of the other; they
    are normalised here. `logit_scale` is the multiplier itself (`model.logit_scale.exp()`), the
    inverse of the temperature.

    `classes` (N), whole numbers, is for captions that repeat: all pairs of one class are right
    answers to each other, and each of k gets the target 1 / k. The least possible loss of such a
    pair is ln k, not 0.

    Raises TypeError for what is no tensor, ValueError for shapes or dtypes that don't match, fewer
    than two pairs, and a multiplier that can't be one; and NotFiniteError (a ValueError) for
    features that are not finite. Sources: Radford et al. 2021, "Learning Transferable Visual Models
    From Natural Language Supervision", figure 3; with classes, Yang et al. 2022, "Unified
    Contrastive Learning in Image-Text-Label Space", equations 2 to 4.
    """
    _check(image_features, text_features, logit_scale)
    if classes is not None:
        _check_classes(classes, len(image_features))
    image_features = F.normalize(image_features, dim=-1, eps=shortest(image_features))
    text_features = F.normalize(text_features, dim=-1, eps=shortest(text_features))

    logits_per_image = logit_scale * image_features @ text_features.T  # (N, N): row = picture
    logits_per_text = logits_per_image.T  #                              (N, N): row = caption
    labels = torch.arange(len(image_features), device=image_features.device)
    if classes is not None:
        same = (classes[:, None] == classes[None, :]).to(logits_per_image)
        labels = same / same.sum(dim=1, keepdim=True)  # (N, N): the right answers share the target

    loss_img = F.cross_entropy(logits_per_image, labels)  # each picture looks for its caption
    loss_txt = F.cross_entropy(logits_per_text, labels)  # each caption looks for its picture
    return (loss_img + loss_txt) / 2


@torch.no_grad()
def clamp_logit_scale(log_scale: torch.Tensor) -> None:
    """Keep the multiplier between 1 and MAX_LOGIT_SCALE; `log_scale` is its logarithm, in place.

    CLIP's models store the logarithm as `model.logit_scale`. Call it after each optimizer step that
    trains it. Source: Radford et al. 2021, section 2.5.
    """
    log_scale.clamp_(0, math.log(MAX_LOGIT_SCALE))


def shortest(features: torch.Tensor) -> float:
    """The length that shorter features count as: they are divided by it, and zeros stay zeros.

    It is PyTorch's own 1e-12, except in fp16, where that is 0.
    """
    return max(1e-12, torch.finfo(features.dtype).tiny)


def require_features(image_features: object, text_features: object) -> None:
    """Raise TypeError or ValueError unless both are tensors of one floating dtype and device."""
    both = {"image_features": image_features, "text_features": text_features}
    for name, value in both.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"{name} is a {type(value).__name__}; it must be a tensor (N, D), as "
                f"model.encode_image and model.encode_text give"
            )
        if not value.is_floating_point():
            raise ValueError(
                f"{name} holds {value.dtype} numbers; features are floating-point numbers (pass "
                f"what the model's towers give, not pictures or tokens)"
            )
    image, text = both.values()
    assert isinstance(image, torch.Tensor) and isinstance(text, torch.Tensor)
    for kind in ("dtype", "device"):
        if getattr(image, kind) != getattr(text, kind):
            raise ValueError(
                f"image_features and text_features must have one {kind}, got "
                f"{getattr(image, kind)} and {getattr(text, kind)}: bring one to the other by .to()"
            )


def require_finite(name: str, features: torch.Tensor, where: str) -> None:
    """Raise NotFiniteError, with the rows, if `features` (N, D) hold NaN or infinity."""
    rows = (~features.detach().isfinite()).any(dim=1).nonzero().flatten().tolist()
    if rows:
        shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
        raise NotFiniteError(
            f"{name} has NaN or infinite values in {len(rows)} of {len(features)} rows "
            f"({shown}): the input or the weights are broken before {where}"
        )


def _check(
    image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: torch.Tensor | float
) -> None:
    require_features(image_features, text_features)
    shapes = (
        f"image_features {tuple(image_features.shape)}, text_features {tuple(text_features.shape)}"
    )
    if image_features.dim() != 2 or image_features.shape != text_features.shape:
        raise ValueError(f"both must have the same shape (N pairs, D dimensions), got {shapes}")
    if len(image_features) < 2:
        raise ValueError(
            f"a batch needs at least two pairs: with one there is nothing to tell apart, and the "
            f"loss is 0 whatever the features are; got {shapes}"
        )
    _check_scale(logit_scale)
    # One question to the device for all: each makes a GPU finish what it was given.
    fine = image_features.detach().isfinite().all() & text_features.detach().isfinite().all()
    if isinstance(logit_scale, torch.Tensor):
        scale = logit_scale.detach().to(image_features.device)
        fine = fine & scale.isfinite() & (scale > 0)
    if not fine.all():
        require_finite("image_features", image_features, "the loss")
        require_finite("text_features", text_features, "the loss")
        finite_number("logit_scale", float(logit_scale), above=0)


def _check_classes(classes: object, pairs: int) -> None:
    """Raise TypeError or ValueError unless `classes` has a whole number for each pair."""
    if not isinstance(classes, torch.Tensor):
        raise TypeError(f"classes is a {type(classes).__name__}; it must be a tensor of N numbers")
    if classes.is_floating_point() or classes.is_complex() or classes.shape != (pairs,):
        raise ValueError(
            f"classes has the shape {tuple(classes.shape)} and {classes.dtype} in it; it must have "
            f"one whole number for each of the {pairs} pairs"
        )
    if classes.unique().numel() < 2:
        raise ValueError(
            "all pairs of this batch are of one class: there is nothing to tell apart, and the "
            "loss has no use; take a larger batch, or pictures of other classes, too"
        )


def _check_scale(logit_scale: object) -> None:
    """Raise ValueError unless it is one number, and not the logarithm of the multiplier.

    A number is checked here, and that in a tensor together with the features.
    """
    if isinstance(logit_scale, nn.Parameter):
        raise ValueError(
            "logit_scale is a parameter, and CLIP's models store the multiplier's logarithm there; "
            "pass model.logit_scale.exp()"
        )
    if not isinstance(logit_scale, torch.Tensor):
        finite_number("logit_scale", logit_scale, above=0)
    elif logit_scale.numel() != 1 or logit_scale.dim() > 1 or logit_scale.is_complex():
        raise ValueError(
            f"logit_scale has the shape {tuple(logit_scale.shape)} and {logit_scale.dtype} in it; "
            f"it must be a single number above 0: model.logit_scale.exp()"
        )
