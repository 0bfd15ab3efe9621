"""Pictures and texts compared: cosine similarities, rankings, answers and probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image

from ..checks import whole_number
from ..colours import COLOURS, QUIET
from ..data import PictureDataset, require_dataset
from ..display import Chart
from ..evaluation import nan_as_wrong, ranks
from .arguments import (
    finite_tensor,
    pictures_of,
    require_as_many,
    require_mapping,
    require_texts,
    tensor_of,
)
from .captions import LONGEST_CREDIT, credit_line, escaped, wrapped
from .charts import bare
from .image_rows import picture_chart, thumbnail

# --------------------------------------------------------------------------------- a whole matrix


def similarity(
    matrix: torch.Tensor,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    title: str = "",
    credit: str = "",
    number_format: str = "{:.2f}",
) -> Chart:
    """A heat map of `matrix` (pictures, captions): pictures on the left edge, captions on top.

    ValueError for NaN, and unless there are a picture for each row and a caption for each column.
    """
    values = finite_tensor("the matrix", matrix, 2).numpy()
    n, m = values.shape
    shown = pictures_of(images)
    require_as_many("pictures", shown, "rows of the matrix", n)
    require_texts("captions", captions)
    require_as_many("captions", captions, "columns of the matrix", m)
    figure = Chart(figsize=(0.85 * m + 2, 0.85 * n + 1.2))
    axes = figure.subplots()
    limit = np.abs(values).max() or 1
    heat = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
    _numbers(axes, values, number_format)
    labels = [wrapped(caption, 14) for caption in captions]
    axes.set_xticks(range(m), labels, fontsize=8, rotation=35, ha="left")
    axes.xaxis.tick_top()
    axes.set_yticks([])
    for i, picture in enumerate(shown):
        thumbnail(axes, picture, -1.05, i, 0.42)
    axes.set_xlim(-1.55, m - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(escaped(title), fontsize=10)
    if credit:
        place = axes.transAxes
        axes.text(
            0.5,
            -0.015,
            escaped(credit, LONGEST_CREDIT),
            transform=place,
            ha="center",
            va="top",
            fontsize=7,
            color=QUIET,
        )
    figure.colorbar(heat, ax=axes, shrink=0.7)
    return figure


def _numbers(axes: Axes, values: np.ndarray, number_format: str) -> None:
    """Each number in its cell, white on dark ones; the diagonal of a square matrix in bold."""
    n, m = values.shape
    dark = np.abs(values) > 0.6 * np.abs(values).max()
    for i in range(n):
        for j in range(m):
            axes.text(
                j,
                i,
                number_format.format(values[i, j]),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark[i, j] else "black",
                weight="bold" if i == j and n == m else "normal",
            )


# ------------------------------------------------------------------------------ text → pictures


def ranking(
    query: str,
    similarities: torch.Tensor,
    dataset: PictureDataset,
    *,
    top: int = 8,
) -> Chart:
    """The `top` pictures of `dataset` for one text, best first, each with its cosine similarity.

    ValueError for NaN, and unless there is a similarity for each picture.
    """
    top = whole_number("top", top, least=1)
    require_dataset(dataset)
    similarities = finite_tensor("similarities", similarities, 1)
    require_as_many("similarities", similarities, "pictures", len(dataset))
    best = similarities.topk(min(top, len(dataset)))
    chosen = dataset.subset(best.indices.tolist())
    titles = [f"{s:.2f}\n{c}" for s, c in zip(best.values.tolist(), chosen.captions, strict=True)]
    chart = picture_chart([pair.load() for pair in chosen.pairs], titles, top, dataset.credit)
    heading = f"“{escaped(query)}”"
    chart.suptitle(heading, fontsize=11, color=COLOURS["text"], y=1.5, va="bottom")
    return chart


# ------------------------------------------------------------------------------ picture → texts

# The layout of `answers`, in inches.
LINE, LEFT, COLUMN, HEAD = 0.24, 2.55, 3.2, 0.35


def answers(
    dataset: PictureDataset,
    chosen: Sequence[int],
    similarities: Mapping[str, torch.Tensor],
    *,
    top: int = 3,
) -> Chart:
    """The `top` captions of each model for each chosen picture; right ones are marked.

    `chosen` are indices into the dataset. `similarities` maps the name of a model to its matrix
    (pictures, all captions). Beside the captions stands the rank of the best right one (see
    `evaluation.ranks`). ValueError for a matrix of another shape, and an index out of range.
    """
    require_dataset(dataset)
    require_mapping("similarities", similarities)
    top = min(whole_number("top", top, least=1), len(dataset.all_captions))
    if not len(chosen):
        raise ValueError("chosen is empty: name the pictures to show by their indices")
    chosen = [
        whole_number("an index in `chosen`", i, least=0, most=len(dataset) - 1) for i in chosen
    ]
    matrices = {name: _cosines(name, matrix, dataset) for name, matrix in similarities.items()}
    captions, groups = dataset.all_captions, torch.as_tensor(dataset.caption_groups)
    row_height = LINE * top + 0.2
    width, height = LEFT + COLUMN * len(similarities), HEAD + row_height * len(chosen)
    figure = Chart(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for column, name in enumerate(similarities):
        axes.text(
            LEFT + COLUMN * column, 0.15, escaped(name, 40), fontsize=11, weight="bold", va="center"
        )
    for row, index in enumerate(chosen):
        middle = HEAD + row_height * (row + 0.5)
        axes.axhline(middle - row_height / 2, color="#DDDDDD", lw=0.8)
        picture, caption = dataset[index]
        thumbnail(axes, picture, 0.45, middle, 0.4)
        axes.text(1.0, middle, wrapped(caption, 19), fontsize=9, weight="bold", va="center")
        good = groups == dataset.groups[index]
        for column, matrix in enumerate(matrices.values()):
            own = matrix[index]
            rank = int(ranks(own[None], good[None]))
            order = nan_as_wrong(own, good).topk(top).indices.tolist()
            best = [(captions[i], bool(good[i])) for i in order]
            _answer(axes, LEFT + COLUMN * column, middle, rank, best)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    credit_line(figure, dataset.credit, -0.02)
    return figure


def _cosines(name: str, matrix: torch.Tensor, dataset: PictureDataset) -> torch.Tensor:
    """The matrix of one model; ValueError unless it is (pictures, all captions)."""
    found = tensor_of(f"the matrix of {escaped(name)!r}", matrix, 2)
    wanted = len(dataset), len(dataset.all_captions)
    if found.shape != wanted:
        raise ValueError(
            f"the matrix of {escaped(name)!r} has the shape {tuple(found.shape)}; the dataset has "
            f"{wanted[0]} pictures and {wanted[1]} captions"
        )
    return found


def _answer(
    axes: Axes, x: float, middle: float, rank: int, best: Sequence[tuple[str, bool]]
) -> None:
    """One model's answer for one picture: its best captions, and which of them are right."""
    colour = COLOURS["adapter"] if rank == 1 else COLOURS["frozen"]
    axes.text(x, middle, f"{rank}.", fontsize=11, weight="bold", color=colour, va="center")
    for line, (caption, right) in enumerate(best):
        axes.text(
            x + 0.5,
            middle + LINE * (line - (len(best) - 1) / 2),
            f"✓ {escaped(caption, 31)}" if right else escaped(caption, 31),
            fontsize=9,
            weight="bold" if right else "normal",
            color=COLOURS["adapter"] if right else QUIET,
            va="center",
        )


def probabilities(
    values: torch.Tensor,
    images: Sequence[Image.Image],
    labels: Sequence[str],
    *,
    credit: str = "",
) -> Chart:
    """Beside each picture the probability of each label as a bar; `values` (pictures, labels).

    ValueError for NaN, and unless there are a row for each picture and a column for each label.
    """
    values = finite_tensor("the probabilities", values, 2)
    shown = pictures_of(images)
    require_as_many("pictures", shown, "rows of probabilities", len(values))
    require_texts("labels", labels)
    require_as_many("labels", labels, "columns of probabilities", values.shape[1])
    n = len(shown)
    # The layout leaves room for labels of any length beside the pictures.
    figure = Chart(figsize=(7.5, (0.23 * len(labels) + 0.3) * n), layout="constrained")
    grid = figure.subplots(n, 2, squeeze=False, width_ratios=[1, 5])
    for (left, right), image, shares in zip(grid, shown, values.tolist(), strict=True):
        left.imshow(image)
        left.axis("off")
        best = max(shares)
        colours = [COLOURS["text"] if share == best else COLOURS["frozen"] for share in shares]
        right.barh(range(len(labels)), shares, color=colours)
        right.set_yticks(range(len(labels)), [escaped(label, 60) for label in labels], fontsize=8)
        right.invert_yaxis()
        right.set_xlim(0, 1.12)
        right.set_xticks([])
        for y, share in enumerate(shares):
            right.text(share + 0.01, y, f"{share:.1%}", va="center", fontsize=8)
        bare(right)
    credit_line(figure, credit, -0.02)
    return figure
