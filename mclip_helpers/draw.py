"""Pictures and tables for the notebooks. Colours mean the same thing everywhere."""

from __future__ import annotations

import html
import io
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

if TYPE_CHECKING:
    from .autograd import Gradients
    from .data import PictureDataset
    from .train import History

# Distinct for colour-blind readers as well (after Okabe and Ito).
COLOURS = {
    "image": "#0072B2",
    "text": "#D55E00",
    "loss": "#CC79A7",
    "adapter": "#009E73",
    "frozen": "#8A8F98",
}


class Chart(Figure):
    """A matplotlib figure that shows itself once, as PNG, wherever it is the value of a cell."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
        return buffer.getvalue()


class Svg:
    """A drawing that shows itself in a notebook; `source` is the SVG."""

    def __init__(self, source: str):
        self.source = source

    def _repr_svg_(self) -> str:
        return self.source


class Table:
    """Rows under a header: HTML in a notebook, aligned text elsewhere."""

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[object]]):
        self.header, self.rows = list(header), [[str(cell) for cell in row] for row in rows]

    def __str__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        shown = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
        shown.insert(1, "  ".join("─" * width for width in widths))
        return "\n".join(line.rstrip() for line in shown)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            style = ' style="text-align:left"'
            return "".join(f"<{tag}{style}>{html.escape(cell)}</{tag}>" for cell in cells)

        body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in self.rows)
        head = f"<thead><tr>{row(self.header, 'th')}</tr></thead>"
        return f"<table>{head}<tbody>{body}</tbody></table>"


def _bare(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


# -------------------------------------------------------------------------------------- pictures


def to_picture(image: Image.Image | torch.Tensor) -> Image.Image:
    """A PIL picture from one, or from a tensor (3, H, W) in 0…1."""
    if isinstance(image, Image.Image):
        return image
    array = image.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    return Image.fromarray((array * 255).round().astype(np.uint8))


def pictures(
    images: PictureDataset | Sequence[Image.Image | torch.Tensor],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 8,
    credit: str | None = None,
) -> Chart:
    """Pictures in rows, each under its title; a dataset brings its captions and its credit."""
    if titles is None and hasattr(images, "captions"):
        titles = images.captions
    credit = getattr(images, "credit", "") if credit is None else credit
    shown = [to_picture(image[0] if isinstance(image, tuple) else image) for image in images]
    rows = -(-len(shown) // columns)
    figure = Chart(figsize=(1.35 * columns, 1.72 * rows + 0.25))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for i, (axes, picture) in enumerate(zip(grid.flat, shown, strict=False)):
        axes.imshow(picture, interpolation="lanczos")
        if titles is not None:
            axes.set_title(_wrap(titles[i], 17), fontsize=8)
    if credit:
        figure.text(0.5, 0.0, credit, ha="center", va="top", fontsize=7, color="#555555")
    return figure


def _wrap(text: str, width: int) -> str:
    lines = [""]
    for word in str(text).split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:3])


def _thumbnail(axes, picture: Image.Image, x: float, y: float, size: float) -> None:
    axes.imshow(picture, extent=(x - size, x + size, y + size, y - size), clip_on=False, zorder=3)


def similarity(
    matrix: torch.Tensor,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    title: str = "",
    credit: str = "",
    number_format: str = "{:.2f}",
) -> Chart:
    """A heat map (pictures × captions), the pictures on its left edge and the captions on top."""
    values = matrix.detach().cpu().numpy()
    n, m = values.shape
    figure = Chart(figsize=(0.85 * m + 2, 0.85 * n + 1.2))
    axes = figure.subplots()
    limit = np.abs(values).max()
    drawn = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for i in range(n):
        for j in range(m):
            dark = abs(values[i, j]) > 0.6 * limit
            number = number_format.format(values[i, j])
            colour = "white" if dark else "black"
            weight = "bold" if i == j and n == m else "normal"
            axes.text(
                j, i, number, ha="center", va="center", fontsize=8, color=colour, weight=weight
            )
    axes.set_xticks(range(m), [_wrap(c, 14) for c in captions], fontsize=8, rotation=35, ha="left")
    axes.xaxis.tick_top()
    axes.set_yticks([])
    for i, picture in enumerate(images):
        _thumbnail(axes, to_picture(picture), -1.05, i, 0.42)
    axes.set_xlim(-1.55, m - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    if title:
        axes.set_title(title, fontsize=10)
    if credit:
        figure.text(0.5, 0.02, credit, ha="center", va="top", fontsize=7, color="#555555")
    figure.colorbar(drawn, ax=axes, shrink=0.7)
    return figure


def probabilities(
    values: torch.Tensor,
    images: Sequence[Image.Image],
    labels: Sequence[str],
    *,
    credit: str = "",
) -> Chart:
    """Beside each picture, the probability of each label as a bar; `values` (pictures, labels)."""
    n = len(images)
    figure = Chart(figsize=(7.5, (0.26 * len(labels) + 0.55) * n))
    grid = figure.subplots(n, 2, squeeze=False, width_ratios=[1, 3.6])
    for row, image, shares in zip(grid, images, values.tolist(), strict=True):
        row[0].imshow(to_picture(image))
        row[0].axis("off")
        best = max(shares)
        colours = [COLOURS["text"] if s == best else COLOURS["frozen"] for s in shares]
        row[1].barh(range(len(labels)), shares, color=colours)
        row[1].set_yticks(range(len(labels)), labels, fontsize=8)
        row[1].invert_yaxis()
        row[1].set_xlim(0, 1.12)
        row[1].set_xticks([])
        for y, share in enumerate(shares):
            row[1].text(share + 0.01, y, f"{share:.1%}", va="center", fontsize=8)
        _bare(row[1])
    if credit:
        figure.text(0.5, 0.02, credit, ha="center", va="top", fontsize=7, color="#555555")
    return figure


def ranking(
    query: str,
    similarities: torch.Tensor,
    dataset: PictureDataset,
    *,
    top: int = 8,
) -> Chart:
    """The `top` pictures of `dataset` for one text, best first, each with its cosine similarity."""
    best = similarities.topk(min(top, len(dataset)))
    chosen = dataset.subset(best.indices.tolist())
    titles = [f"{s:.2f}\n{c}" for s, c in zip(best.values.tolist(), chosen.captions, strict=True)]
    chart = pictures([picture for picture, _ in chosen], titles, columns=top, credit=dataset.credit)
    chart.suptitle(f"“{query}”", fontsize=11, color=COLOURS["text"], y=1.12)
    return chart


# ---------------------------------------------------------------------------------------- numbers


def bars(
    values: Mapping[str, float],
    *,
    title: str = "",
    unit: str = "",
    colours: Mapping[str, str] | None = None,
    number_format: str = "{:,.0f}",
) -> Chart:
    """One horizontal bar a name, its number beside it."""
    figure = Chart(figsize=(7.5, 0.36 * len(values) + 0.6))
    axes = figure.subplots()
    colours = colours or {}
    tints = [colours.get(name, COLOURS["frozen"]) for name in values]
    axes.barh(list(values), list(values.values()), color=tints)
    axes.invert_yaxis()
    top = max(values.values()) or 1
    for y, value in enumerate(values.values()):
        axes.text(
            value + 0.01 * top, y, number_format.format(value) + unit, va="center", fontsize=9
        )
    axes.set_xlim(0, 1.18 * top)
    axes.set_xticks([])
    axes.set_title(title, fontsize=10, loc="left")
    _bare(axes)
    axes.spines["bottom"].set_visible(False)
    return figure


def history(run: History) -> Chart:
    """Loss over steps; beside it R@1 over epochs, if anything was evaluated."""
    sets = [key for key in (run.epochs[0] if run.epochs else {}) if key not in ("epoch", "loss")]
    figure = Chart(figsize=(9.5 if sets else 5.5, 3.1))
    grid = figure.subplots(1, 2 if sets else 1, squeeze=False)[0]
    losses = [step["loss"] for step in run.steps]
    grid[0].plot(range(1, len(losses) + 1), losses, color=COLOURS["loss"], lw=1.2)
    grid[0].set(xlabel="step", ylabel="contrastive loss", ylim=(0, None))
    if sets:
        tints = (COLOURS["adapter"], COLOURS["frozen"], COLOURS["image"], COLOURS["text"])
        for name, colour in zip(sets, tints, strict=False):
            recall = [100 * epoch[name] for epoch in run.epochs]
            epochs = [epoch["epoch"] for epoch in run.epochs]
            grid[1].plot(epochs, recall, "o-", color=colour, label=name)
        grid[1].set(xlabel="epoch", ylabel="R@1, picture → text (%)", ylim=(0, None))
        grid[1].legend(frameon=False, fontsize=8)
    for axes in grid:
        _bare(axes)
    figure.tight_layout()
    return figure


def epoch_table(run: History) -> Table:
    """One row an epoch."""
    header = list(run.epochs[0]) if run.epochs else ["epoch", "loss"]
    rows = []
    for epoch in run.epochs:
        shares = [f"{epoch[k]:.1%}" for k in header if k not in ("epoch", "loss")]
        rows.append([epoch["epoch"], f"{epoch['loss']:.3f}", *shares])
    return Table(header, rows)


def adapter_gradients(found: Gradients) -> Chart:
    """For each adapter the norms of A's and B's gradient, on a log axis; zeros are named."""
    from .autograd import adapters

    layers = adapters(found)
    figure = Chart(figsize=(8.5, 0.27 * len(layers) + 1.1))
    axes = figure.subplots()
    norms = [g.norm for pair in layers.values() for g in pair.values() if g.norm]
    floor = min(norms, default=1e-3) / 3
    for y, (_, pair) in enumerate(layers.items()):
        for part, shift in (("B", -0.19), ("A", 0.19)):
            g = pair[part]
            colour = COLOURS[g.tower or "frozen"]
            if g.norm:
                alpha = 1.0 if part == "B" else 0.45
                axes.barh(
                    y + shift, g.norm - floor, left=floor, height=0.36, color=colour, alpha=alpha
                )
            else:
                said = "exactly 0" if g.norm == 0 else g.verdict
                axes.text(floor * 1.05, y + shift, f"{part}: {said}", va="center", fontsize=6.5)
    axes.set_yticks(range(len(layers)), [_short_layer(name) for name in layers], fontsize=7.5)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(floor, max(norms, default=1) * 1.5)
    axes.set_xlabel("norm of the gradient")
    keys = [
        Patch(color=COLOURS[tower], alpha=alpha, label=f"{tower} tower, {part}")
        for tower in ("image", "text")
        for part, alpha in (("B", 1.0), ("A", 0.45))
    ]
    axes.legend(handles=keys, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    _bare(axes)
    return figure


def _short_layer(name: str) -> str:
    return (
        name.removeprefix("visual.trunk.").removeprefix("text.transformer.").removeprefix("text.")
    )


# ----------------------------------------------------------------------------------------- graphs


def graph(dot_source: str) -> Svg:
    """Lay out a Graphviz source with the `dot` program, or with pygraphviz' own if there is none.

    RuntimeError, with what to install, where there is neither.
    """
    if shutil.which("dot"):
        command = ["dot", "-Tsvg"]
        done = subprocess.run(command, input=dot_source.encode(), capture_output=True, check=False)
        if done.returncode:
            raise ValueError(f"dot refused the graph: {done.stderr.decode()}")
        svg = done.stdout.decode()
    else:
        try:
            import pygraphviz
        except ImportError as error:
            raise RuntimeError(
                "drawing a graph needs Graphviz: install its `dot` program (apt, brew or conda "
                "install graphviz), or `pip install pygraphviz`, which carries one"
            ) from error
        svg = pygraphviz.AGraph(string=dot_source).draw(format="svg", prog="dot").decode()
    return Svg(svg[svg.index("<svg") :])
