"""How well pictures and captions find each other: ranks, retrieval, zero-shot classification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from string import Formatter

import torch
import torch.nn.functional as F
from PIL import Image

from .checks import whole_number
from .data import PictureDataset, require_dataset
from .loss import require_features, require_finite
from .model import Clip, in_eval, require_clip
from .progress_bar import progress_bar


def embed(
    clip: Clip, dataset: PictureDataset, batch_size: int = 128, *, progress: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors (N, D) of the dataset's pictures and (M, D) of all its captions, on the CPU.

    What takes longer than a moment shows a bar, unless `progress` is False. TypeError for another
    kind of object, ValueError for an empty dataset or a `batch_size` below 1.
    """
    require_clip(clip)
    require_dataset(dataset)
    batch_size = whole_number("batch_size", batch_size, least=1)
    pairs, captions = dataset.pairs, dataset.all_captions

    def starts(items: Sequence[object], what: str) -> Iterator[int]:
        batches = range(0, len(items), batch_size)
        yield from progress_bar(batches, f"embedding {what}", "batches", shown=progress)

    with in_eval(clip.model):
        images = [
            clip.encode_images([pair.load() for pair in pairs[at : at + batch_size]]).float().cpu()
            for at in starts(pairs, "pictures")
        ]
        texts = [
            clip.encode_texts(captions[at : at + batch_size]).float().cpu()
            for at in starts(captions, "captions")
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
    groups: Sequence[int] | None = None,
    text_groups: Sequence[int] | None = None,
    chunk: int = 1024,
    *,
    progress: bool = True,
) -> Retrieval:
    """Rank all texts for each picture, and all pictures for each text (see `ranks`).

    Features (N, D) of pictures and (M, D) of texts; they are normalised here. `groups` (N) and
    `text_groups` (M): a picture and a text with the same number are a good answer to each other.
    `text_groups` defaults to `groups`, and `groups` to all different: row i belongs to row i. With
    several texts for a picture, each text is a query of its own, and any of them is a good answer
    to the picture.

    `chunk` queries are compared at a time: memory grows with chunk · N, not with N². ValueError for
    shapes and groups that don't fit, for a picture or a text that has no good answer at all, and
    (as NotFiniteError) for features with NaN or infinity in them. What takes longer than a moment
    shows a bar, unless `progress` is False.
    """
    require_features(image_features, text_features)
    _check_shapes(image_features, text_features)
    require_finite("image_features", image_features, "the ranking")
    require_finite("text_features", text_features, "the ranking")
    ks, chunk = _checked_ks(ks), whole_number("chunk", chunk, least=1)
    of_images, of_texts = _groups(image_features, text_features, groups, text_groups)
    images = F.normalize(image_features.float(), dim=-1)
    texts = F.normalize(text_features.float(), dim=-1)
    image_ranks = _ranks_by_chunk(
        queries=progress_bar(
            _in_chunks(images, of_images, chunk), "ranking texts", "chunks", shown=progress
        ),
        gallery=texts,
        gallery_groups=of_texts,
    )
    text_ranks = _ranks_by_chunk(
        queries=progress_bar(
            _in_chunks(texts, of_texts, chunk), "ranking pictures", "chunks", shown=progress
        ),
        gallery=images,
        gallery_groups=of_images,
    )
    return Retrieval(
        image_to_text=_recall(image_ranks, ks),
        text_to_image=_recall(text_ranks, ks),
        image_median_rank=image_ranks.quantile(0.5).item(),
        text_median_rank=text_ranks.quantile(0.5).item(),
        pictures=len(images),
        texts=len(texts),
    )


def _checked_ks(ks: object) -> list[int]:
    """`ks` as a list. TypeError if it is one number or a text, ValueError for ranks it can't be."""
    if isinstance(ks, str) or not isinstance(ks, Sequence):
        raise TypeError(f"ks is {ks!r}; it must be a list of whole numbers, such as (1, 5, 10)")
    checked = [whole_number("a rank in ks", k, least=1) for k in ks]
    if not checked or len(set(checked)) < len(checked):
        raise ValueError(f"ks is {ks!r}; it must have at least one number, and none twice")
    return checked


def _check_shapes(image_features: torch.Tensor, text_features: torch.Tensor) -> None:
    shapes = [tuple(features.shape) for features in (image_features, text_features)]
    fitting = all(len(shape) == 2 and 0 not in shape for shape in shapes)
    if not fitting or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            f"the features must have the shapes (N, D) and (M, D), none of them 0, got "
            f"image_features {shapes[0]} and text_features {shapes[1]}"
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
    of_images = torch.arange(n) if groups is None else _numbers("groups", groups)
    of_texts = of_images if text_groups is None else _numbers("text_groups", text_groups)
    if (len(of_images), len(of_texts)) != (n, m):
        raise ValueError(f"{len(of_images)} groups for {n} pictures, {len(of_texts)} for {m} texts")
    alone = set(of_images.tolist()) ^ set(of_texts.tolist())
    if alone:
        raise ValueError(
            f"group {min(alone)} has pictures but no text, or texts but no picture: there is no "
            f"good answer to find ({len(alone)} such groups)"
        )
    return of_images.to(device), of_texts.to(device)


def _numbers(name: str, groups: object) -> torch.Tensor:
    """`groups` as a tensor. ValueError unless it is a list of whole numbers."""
    try:
        numbers = torch.as_tensor(groups)
        kind = numbers.dtype
        whole = not (kind.is_floating_point or kind.is_complex or kind == torch.bool)
    except (TypeError, ValueError, RuntimeError):  # of PyTorch, about what can't become a tensor
        whole = False
    if not whole or numbers.dim() != 1:
        raise ValueError(
            f"{name} must be a list with one whole number for each row, such as dataset.groups"
        )
    return numbers


def _in_chunks(
    features: torch.Tensor, groups: torch.Tensor, chunk: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(features.split(chunk), groups.split(chunk), strict=True))


def _ranks_by_chunk(
    *,
    queries: Iterable[tuple[torch.Tensor, torch.Tensor]],
    gallery: torch.Tensor,
    gallery_groups: torch.Tensor,
) -> torch.Tensor:
    """The ranks of all queries, which come in chunks with their groups; (queries,) as floats."""
    parts = []
    for features, groups in queries:
        good = groups[:, None] == gallery_groups[None, :]
        parts.append(ranks(features @ gallery.T, good))
    return torch.cat(parts).float()


def _recall(query_ranks: torch.Tensor, ks: Sequence[int]) -> dict[int, float]:
    """The share of ranks up to k, for each k."""
    return {k: (query_ranks <= k).float().mean().item() for k in ks}


def evaluate(
    clip: Clip, dataset: PictureDataset, batch_size: int = 128, *, progress: bool = True
) -> Retrieval:
    """Retrieval among the pictures and all captions of `dataset`, duplicates counted as hits.

    Refuses what `embed` and `retrieval` refuse, and shows their bars unless `progress` is False.
    """
    features = embed(clip, dataset, batch_size, progress=progress)
    return retrieval(
        *features, groups=dataset.groups, text_groups=dataset.caption_groups, progress=progress
    )


@torch.no_grad()
def zero_shot(
    clip: Clip,
    pictures: Sequence[Image.Image],
    labels: Sequence[str],
    templates: Sequence[str] = ("{}",),
) -> torch.Tensor:
    """The probability of each label for each picture, (pictures, labels); rows sum to 1.

    Each label is put into each of `templates` ("a picture of {}"), and the unit vectors of these
    texts are averaged. TypeError for another kind of object, and ValueError for fewer than two
    labels, one that is empty or there twice, a template without exactly one `{}`, no pictures, or
    (NotFiniteError) a model whose features are not finite.
    """
    require_clip(clip)
    pictures, labels = _checked_pictures(pictures), _checked_labels(labels)
    templates = _checked_templates(templates)
    texts = [template.format(label) for label in labels for template in templates]
    features = clip.encode_texts(texts).unflatten(0, (len(labels), len(templates))).mean(1)
    features, images = F.normalize(features, dim=-1), clip.encode_images(pictures)
    require_finite("the text features", features, "the comparison")
    require_finite("the image features", images, "the comparison")
    logits = clip.model.logit_scale.exp() * images @ features.T
    return logits.softmax(dim=-1).cpu()


def _checked_pictures(pictures: object) -> list[Image.Image]:
    given = _several("pictures", pictures, "pictures, also for one: [picture]")
    for picture in given:
        if not isinstance(picture, Image.Image):
            raise TypeError(
                f"pictures holds a {type(picture).__name__}; it must hold opened pictures, such as "
                f"PIL.Image.open(path)"
            )
    if not given:
        raise ValueError("there are no pictures to classify; give at least one")
    return given


def _checked_labels(labels: object) -> list[str]:
    given = _several_texts("labels", labels, "labels, such as ['a cat', 'a dog']")
    if len(given) < 2:
        raise ValueError(f"classification needs at least two labels, got {given}")
    twice = next((label for label, times in Counter(given).items() if times > 1), None)
    if twice is not None:
        raise ValueError(f"the label {twice!r} is there twice; its probability would be halved")
    if not all(label.strip() for label in given):
        raise ValueError(f"a label is empty, in {given}; take it out")
    return given


def _checked_templates(templates: object) -> list[str]:
    given = _several_texts("templates", templates, "templates, also for one: ['a picture of {}']")
    if not given:
        raise ValueError("there are no templates; leave them out, or give ['a picture of {}']")
    for template in given:
        try:
            fields = [field[1:] for field in Formatter().parse(template) if field[1] is not None]
        except ValueError:  # of a brace without its partner
            fields = []
        if fields != [("", "", None)]:
            raise ValueError(
                f"the template {template!r} has no {{}} to put the label in, or other braces "
                f"besides; it must have exactly one {{}}"
            )
    return given


def _several_texts(name: str, value: object, wanted: str) -> list[str]:
    given = _several(name, value, wanted)
    for text in given:
        if not isinstance(text, str):
            raise TypeError(f"{name} holds a {type(text).__name__}; it must hold texts only")
    return given


def _several(name: str, value: object, wanted: str) -> list:
    """`value` as a list. TypeError if it is one text, or no sequence at all."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be a list of {wanted}")
    return list(value)
