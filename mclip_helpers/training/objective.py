"""What a step minimises: how a batch becomes features, and the loss of those."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..loss import contrastive_loss
from ..model import Clip
from ..speed import (
    Encoders,
    average_gradients,
    cached_backward,
    gather,
    gather_numbers,
    plain_encoders,
)


@dataclass(frozen=True)
class Objective:
    """The contrastive loss of a batch, as a loader gives it, and its gradient.

    With `classes`, captions that are equal are all right answers to each other (as in `train`).
    With `chunk`, the backward pass takes so many pairs at a time through the towers (GradCache).
    Where several processes have a part of the batch each, the loss is that of the whole.
    """

    clip: Clip
    encoders: Encoders
    classes: bool = False
    chunk: int | None = None

    @classmethod
    def plain(cls, clip: Clip) -> Objective:
        """As notebook 05 writes it out."""
        return cls(clip, plain_encoders(clip))

    def loss(self, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The loss, with its graph."""
        return self._of_features(tokens)(self.encoders.image(images), self.encoders.text(tokens))

    def backward(
        self,
        images: torch.Tensor,
        tokens: torch.Tensor,
        scale: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Fill `.grad` with the gradient of the (scaled) loss; returns the loss without a graph."""
        loss = self._backward(images, tokens, scale)
        average_gradients(p for p in self.clip.model.parameters() if p.requires_grad)
        return loss

    def _backward(
        self,
        images: torch.Tensor,
        tokens: torch.Tensor,
        scale: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> torch.Tensor:
        if self.chunk is None:
            loss = self.loss(images, tokens)
            (loss if scale is None else scale(loss)).backward()
            return loss.detach()
        towers = self.encoders.image, self.encoders.text
        return cached_backward(
            towers, (images, tokens), self._of_features(tokens), self.chunk, scale
        )

    def _of_features(self, tokens: torch.Tensor) -> Callable[..., torch.Tensor]:
        """The loss of the features of a batch with these tokens."""
        same = None
        if self.classes:
            same = _same_captions(gather_numbers(tokens.to(self.clip.device)))

        def loss(image_features: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
            scale = self.clip.model.logit_scale.exp()
            return contrastive_loss(gather(image_features), gather(text_features), scale, same)

        return loss


def _same_captions(tokens: torch.Tensor) -> torch.Tensor:
    """Rows of `tokens` (N, context) numbered so that equal ones have one number: (N)."""
    return tokens.unique(dim=0, return_inverse=True)[1]
