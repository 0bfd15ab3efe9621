"""The contrastive loss of CLIP, written out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

MAX_LOGIT_SCALE = 100  # CLIP's own bound on the multiplier


class NotFiniteError(ValueError):
    """Features with NaN or infinity in them."""


def contrastive_loss(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    logit_scale: torch.Tensor | float,
) -> torch.Tensor:
    """How badly N pictures and N captions find each other; a scalar, ln N if they know nothing.

    `image_features` and `text_features` (N, D): row i of one belongs to row i of the other; they
    are normalised here. `logit_scale` is the multiplier itself (`model.logit_scale.exp()`), the
    inverse of the temperature.

    Raises ValueError for shapes that don't match or fewer than two pairs, and NotFiniteError (a
    ValueError) for features that are not finite. Source: Radford et al. 2021, "Learning
    Transferable Visual Models From Natural Language Supervision", figure 3.
    """
    _check(image_features, text_features)
    image_features = F.normalize(image_features, dim=-1)
    text_features = F.normalize(text_features, dim=-1)

    logits_per_image = logit_scale * image_features @ text_features.T  # (N, N): row = picture
    logits_per_text = logits_per_image.T  #                              (N, N): row = caption
    labels = torch.arange(len(image_features), device=image_features.device)

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


def _check(image_features: torch.Tensor, text_features: torch.Tensor) -> None:
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
    for name, features in (("image_features", image_features), ("text_features", text_features)):
        rows = (~features.detach().isfinite()).any(dim=1).nonzero().flatten().tolist()
        if rows:
            shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
            raise NotFiniteError(
                f"{name} has NaN or infinite values in {len(rows)} of {len(features)} rows "
                f"({shown}): the input or the weights are broken before the loss"
            )
