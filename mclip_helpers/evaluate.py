"""How well do pictures and captions find each other? Retrieval both ways, and classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image

from .data import PictureDataset, loader
from .models import Clip


@torch.no_grad()
def embed(
    clip: Clip, dataset: PictureDataset, batch_size: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors (N, D) of the dataset's pictures and of its captions, on the CPU."""
    was_training = clip.model.training
    clip.model.eval()
    images, texts = [], []
    for image, tokens in loader(dataset, clip, batch_size):
        images.append(clip.model.encode_image(image.to(clip.device), normalize=True).float().cpu())
        texts.append(clip.model.encode_text(tokens.to(clip.device), normalize=True).float().cpu())
    clip.model.train(was_training)
    return torch.cat(images), torch.cat(texts)


@dataclass(frozen=True)
class Retrieval:
    """Recall at k (shares, 0…1) and median ranks (1 is best), from pictures to texts and back."""

    image_to_text: dict[int, float]
    text_to_image: dict[int, float]
    image_median_rank: float
    text_median_rank: float
    gallery: int

    def __str__(self) -> str:
        def line(way: str, recall: dict[int, float], median: float) -> str:
            shares = "  ".join(f"R@{k} {share:6.1%}" for k, share in recall.items())
            return f"{way}  {shares}  median rank {median:g} of {self.gallery}"

        return "\n".join(
            [
                line("picture → text", self.image_to_text, self.image_median_rank),
                line("text → picture", self.text_to_image, self.text_median_rank),
            ]
        )


def retrieval(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    ks: Sequence[int] = (1, 5, 10),
    *,
    groups: Sequence[int] | None = None,
    chunk: int = 1024,
) -> Retrieval:
    """Rank all texts for each picture, and all pictures for each text.

    Features (N, D), row i with row i; they are normalised here. `groups` (N): pairs with the same
    number are equally good answers; None if all differ. A query's rank is that of its best good
    answer; wrong answers with the same similarity count as ranked before it, so that a model that
    gives every pair the same number scores as badly as it is. NaN counts as wrong. `chunk` queries
    are compared at a time: memory grows with chunk · N, not with N².
    """
    if image_features.dim() != 2 or image_features.shape != text_features.shape:
        raise ValueError(
            f"both must have the same shape (N, D), got image_features "
            f"{tuple(image_features.shape)} and text_features {tuple(text_features.shape)}"
        )
    n = len(image_features)
    group = torch.arange(n) if groups is None else torch.as_tensor(groups)
    if len(group) != n:
        raise ValueError(f"{len(group)} groups for {n} pairs")
    group = group.to(image_features.device)
    image_features = F.normalize(image_features.float(), dim=-1)
    text_features = F.normalize(text_features.float(), dim=-1)

    def ranks(queries: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
        found = []
        for own, wanted in zip(queries.split(chunk), group.split(chunk), strict=True):
            similarity = own @ gallery.T
            good = wanted[:, None] == group[None, :]
            undefined = similarity.isnan()
            best = similarity.masked_fill(~good | undefined, -torch.inf).amax(1, keepdim=True)
            ahead = ((similarity >= best) | undefined) & ~good
            found.append(1 + ahead.sum(1))
        return torch.cat(found).float()

    image_ranks, text_ranks = (
        ranks(image_features, text_features),
        ranks(text_features, image_features),
    )

    def recall(of: torch.Tensor) -> dict[int, float]:
        return {k: (of <= k).float().mean().item() for k in ks}

    return Retrieval(
        recall(image_ranks),
        recall(text_ranks),
        image_ranks.quantile(0.5).item(),
        text_ranks.quantile(0.5).item(),
        n,
    )


def evaluate(clip: Clip, dataset: PictureDataset, batch_size: int = 128) -> Retrieval:
    """Retrieval among the pairs of `dataset`, duplicates counted as hits."""
    return retrieval(*embed(clip, dataset, batch_size), groups=dataset.groups)


@torch.no_grad()
def zero_shot(
    clip: Clip,
    pictures: Sequence[Image.Image],
    labels: Sequence[str],
    templates: Sequence[str] = ("{}",),
) -> torch.Tensor:
    """The probability of each label for each picture, (pictures, labels); rows sum to 1.

    Each label is put into every one of `templates` ("a picture of {}"); the unit vectors of the
    results are averaged to one vector for the label. ValueError for a template without `{}`.
    """
    if len(labels) < 2:
        raise ValueError(f"classification needs at least two labels, got {list(labels)}")
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"the template {template!r} has no {{}} to put the label in")
    texts = [template.format(label) for label in labels for template in templates]
    features = clip.encode_texts(texts).unflatten(0, (len(labels), len(templates))).mean(1)
    features = F.normalize(features, dim=-1)
    logits = clip.model.logit_scale.exp() * clip.encode_images(pictures) @ features.T
    return logits.softmax(dim=-1).cpu()
