"""How well do pictures and captions find each other? Retrieval both ways, and classification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from .data import PictureDataset
from .model.clip import Clip


@contextmanager
def _in_eval(model: nn.Module) -> Iterator[None]:
    """`model` in eval mode; afterwards each of its modules in the mode it was in before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def embed(
    clip: Clip, dataset: PictureDataset, batch_size: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors (N, D) of the dataset's pictures and (M, D) of all its captions, on the CPU."""
    pairs, captions = dataset.pairs, dataset.all_captions
    with _in_eval(clip.model):
        images = [
            clip.encode_images([pair.load() for pair in pairs[at : at + batch_size]]).float().cpu()
            for at in range(0, len(pairs), batch_size)
        ]
        texts = [
            clip.encode_texts(captions[at : at + batch_size]).float().cpu()
            for at in range(0, len(captions), batch_size)
        ]
    return torch.cat(images), torch.cat(texts)


@dataclass(frozen=True)
class Retrieval:
    """Recall at k (shares, 0…1) and median ranks (1 is best), from pictures to texts and back.

    Each of the `pictures` was looked for among the `texts`, and each of the `texts` among the
    `pictures`: so many there were of either.
    """

    image_to_text: dict[int, float]
    text_to_image: dict[int, float]
    image_median_rank: float
    text_median_rank: float
    pictures: int
    texts: int

    def __str__(self) -> str:
        def line(way: str, recall: dict[int, float], median: float, gallery: int) -> str:
            shares = "  ".join(f"R@{k} {share:6.1%}" for k, share in recall.items())
            return f"{way}  {shares}  median rank {median:g} of {gallery}"

        return "\n".join(
            [
                line("picture → text", self.image_to_text, self.image_median_rank, self.texts),
                line("text → picture", self.text_to_image, self.text_median_rank, self.pictures),
            ]
        )


def retrieval(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    ks: Sequence[int] = (1, 5, 10),
    *,
    groups: Sequence[int] | None = None,
    text_groups: Sequence[int] | None = None,
    chunk: int = 1024,
) -> Retrieval:
    """Rank all texts for each picture, and all pictures for each text.

    Features (N, D) of pictures and (M, D) of texts; they are normalised here. `groups` (N) and
    `text_groups` (M): a picture and a text with the same number are a good answer to each other.
    `text_groups` defaults to `groups`, and `groups` to all different: row i belongs to row i. With
    several texts a picture, each text is a query of its own, and the picture is found by any.

    A query's rank is that of its best good answer; wrong answers with the same similarity count as
    ranked before it, so that a model that gives every pair the same number scores as badly as it
    is. NaN counts as wrong. `chunk` queries are compared at a time: memory grows with chunk · N,
    not with N². ValueError for shapes and groups that don't fit, and for a picture or a text that
    has no good answer at all.
    """
    n, m = len(image_features), len(text_features)
    if image_features.dim() != 2 or text_features.shape != (m, image_features.shape[1]):
        raise ValueError(
            f"the features must have the shapes (N, D) and (M, D), got image_features "
            f"{tuple(image_features.shape)} and text_features {tuple(text_features.shape)}"
        )
    if n != m and (groups is None or text_groups is None):
        raise ValueError(
            f"{n} pictures and {m} texts: give both `groups` and `text_groups`, which say what "
            f"belongs to what (dataset.groups and dataset.caption_groups)"
        )
    image_group = torch.arange(n) if groups is None else torch.as_tensor(groups)
    text_group = image_group if text_groups is None else torch.as_tensor(text_groups)
    if (len(image_group), len(text_group)) != (n, m):
        raise ValueError(
            f"{len(image_group)} groups for {n} pictures, {len(text_group)} for {m} texts"
        )
    alone = set(image_group.tolist()) ^ set(text_group.tolist())
    if alone:
        raise ValueError(
            f"group {min(alone)} has pictures but no text, or texts but no picture: there is no "
            f"good answer to find ({len(alone)} such groups)"
        )
    image_group, text_group = (
        image_group.to(image_features.device),
        text_group.to(image_features.device),
    )
    image_features = F.normalize(image_features.float(), dim=-1)
    text_features = F.normalize(text_features.float(), dim=-1)

    def ranks(
        queries: torch.Tensor,
        query_group: torch.Tensor,
        gallery: torch.Tensor,
        gallery_group: torch.Tensor,
    ) -> torch.Tensor:
        found = []
        for own, wanted in zip(queries.split(chunk), query_group.split(chunk), strict=True):
            similarity = own @ gallery.T
            good = wanted[:, None] == gallery_group[None, :]
            undefined = similarity.isnan()
            best = similarity.masked_fill(~good | undefined, -torch.inf).amax(1, keepdim=True)
            ahead = ((similarity >= best) | undefined) & ~good
            found.append(1 + ahead.sum(1))
        return torch.cat(found).float()

    image_ranks = ranks(image_features, image_group, text_features, text_group)
    text_ranks = ranks(text_features, text_group, image_features, image_group)

    def recall(of: torch.Tensor) -> dict[int, float]:
        return {k: (of <= k).float().mean().item() for k in ks}

    return Retrieval(
        recall(image_ranks),
        recall(text_ranks),
        image_ranks.quantile(0.5).item(),
        text_ranks.quantile(0.5).item(),
        n,
        m,
    )


def evaluate(clip: Clip, dataset: PictureDataset, batch_size: int = 128) -> Retrieval:
    """Retrieval among the pictures and all captions of `dataset`, duplicates counted as hits."""
    features = embed(clip, dataset, batch_size)
    return retrieval(*features, groups=dataset.groups, text_groups=dataset.caption_groups)


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
