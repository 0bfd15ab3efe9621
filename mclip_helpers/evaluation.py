"""How well pictures and captions find each other: ranks, retrieval, zero-shot classification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from .data import PictureDataset
from .model import Clip


@contextmanager
def _in_eval(model: nn.Module) -> Iterator[None]:
    """Put `model` into eval mode, and each of its modules back into its own mode afterwards."""
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

    `pictures` and `texts` count both sides: each picture ranked all texts, and each text ranked all
    pictures.
    """

    image_to_text: dict[int, float]
    text_to_image: dict[int, float]
    image_median_rank: float
    text_median_rank: float
    pictures: int
    texts: int

    def __str__(self) -> str:
        def line(direction: str, recall: dict[int, float], median: float, gallery: int) -> str:
            shares = "  ".join(f"R@{k} {share:6.1%}" for k, share in recall.items())
            return f"{direction}  {shares}  median rank {median:g} of {gallery}"

        return "\n".join(
            [
                line("picture → text", self.image_to_text, self.image_median_rank, self.texts),
                line("text → picture", self.text_to_image, self.text_median_rank, self.pictures),
            ]
        )


def ranks(similarity: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """The rank of each query's best good answer, (Q,) whole numbers; 1 is best.

    `similarity` (Q, G) compares each query with each answer of the gallery; `good` (Q, G), boolean,
    marks the right ones. Wrong answers that are as similar as the best good one count as ranked
    before it, so that a model that gives every pair the same number does not score well. NaN counts
    as wrong: a wrong answer with NaN is ranked first, a good one last.
    """
    similarity = nan_as_wrong(similarity, good)
    best = similarity.masked_fill(~good, -torch.inf).amax(1, keepdim=True)
    return 1 + ((similarity >= best) & ~good).sum(1)


def nan_as_wrong(similarity: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """`similarity` with the worst in place of NaN: −∞ for a good answer, +∞ for a wrong one."""
    worst = torch.where(good, -torch.inf, torch.inf).to(similarity)
    return torch.where(similarity.isnan(), worst, similarity)


def retrieval(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    ks: Sequence[int] = (1, 5, 10),
    *,
    groups: Sequence[int] | None = None,
    text_groups: Sequence[int] | None = None,
    chunk: int = 1024,
) -> Retrieval:
    """Rank all texts for each picture, and all pictures for each text (see `ranks`).

    Features (N, D) of pictures and (M, D) of texts; they are normalised here. `groups` (N) and
    `text_groups` (M): a picture and a text with the same number are a good answer to each other.
    `text_groups` defaults to `groups`, and `groups` to all different: row i belongs to row i. With
    several texts for a picture, each text is a query of its own, and any of them is a good answer
    to the picture.

    `chunk` queries are compared at a time: memory grows with chunk · N, not with N². ValueError for
    shapes and groups that don't fit, and for a picture or a text that has no good answer at all.
    """
    _check_shapes(image_features, text_features)
    of_images, of_texts = _groups(image_features, text_features, groups, text_groups)
    images = F.normalize(image_features.float(), dim=-1)
    texts = F.normalize(text_features.float(), dim=-1)
    image_ranks = _ranks_by_chunk(
        queries=images, query_groups=of_images, gallery=texts, gallery_groups=of_texts, chunk=chunk
    )
    text_ranks = _ranks_by_chunk(
        queries=texts, query_groups=of_texts, gallery=images, gallery_groups=of_images, chunk=chunk
    )
    return Retrieval(
        image_to_text=_recall(image_ranks, ks),
        text_to_image=_recall(text_ranks, ks),
        image_median_rank=image_ranks.quantile(0.5).item(),
        text_median_rank=text_ranks.quantile(0.5).item(),
        pictures=len(images),
        texts=len(texts),
    )


def _check_shapes(image_features: torch.Tensor, text_features: torch.Tensor) -> None:
    shape = (len(text_features), *image_features.shape[1:])
    if image_features.dim() != 2 or text_features.shape != shape:
        raise ValueError(
            f"the features must have the shapes (N, D) and (M, D), got image_features "
            f"{tuple(image_features.shape)} and text_features {tuple(text_features.shape)}"
        )


def _groups(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    groups: Sequence[int] | None,
    text_groups: Sequence[int] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The groups of pictures (N,) and texts (M,), beside the features, with the defaults filled in.

    ValueError if they don't fit the features or if a group has no picture or no text.
    """
    n, m, device = len(image_features), len(text_features), image_features.device
    if n != m and (groups is None or text_groups is None):
        raise ValueError(
            f"{n} pictures and {m} texts: give both `groups` and `text_groups`, which say what "
            f"belongs to what (dataset.groups and dataset.caption_groups)"
        )
    of_images = torch.arange(n) if groups is None else torch.as_tensor(groups)
    of_texts = of_images if text_groups is None else torch.as_tensor(text_groups)
    if (len(of_images), len(of_texts)) != (n, m):
        raise ValueError(f"{len(of_images)} groups for {n} pictures, {len(of_texts)} for {m} texts")
    alone = set(of_images.tolist()) ^ set(of_texts.tolist())
    if alone:
        raise ValueError(
            f"group {min(alone)} has pictures but no text, or texts but no picture: there is no "
            f"good answer to find ({len(alone)} such groups)"
        )
    return of_images.to(device), of_texts.to(device)


def _ranks_by_chunk(
    *,
    queries: torch.Tensor,
    query_groups: torch.Tensor,
    gallery: torch.Tensor,
    gallery_groups: torch.Tensor,
    chunk: int,
) -> torch.Tensor:
    """The ranks of all queries, `chunk` of them compared at a time; (queries,) as floats."""
    parts = []
    for features, groups in zip(queries.split(chunk), query_groups.split(chunk), strict=True):
        good = groups[:, None] == gallery_groups[None, :]
        parts.append(ranks(features @ gallery.T, good))
    return torch.cat(parts).float()


def _recall(query_ranks: torch.Tensor, ks: Sequence[int]) -> dict[int, float]:
    """The share of ranks up to k, for each k."""
    return {k: (query_ranks <= k).float().mean().item() for k in ks}


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

    Each label is put into each of `templates` ("a picture of {}"), and the unit vectors of these
    texts are averaged. ValueError for fewer than two labels, or a template without `{}`.
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
