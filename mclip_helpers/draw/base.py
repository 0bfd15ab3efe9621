"""Pictures and tables for the notebooks. Colours mean the same thing everywhere."""

from __future__ import annotations

import base64
import functools
import html
import io
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle
from PIL import Image
from torch import nn

from ..display import Chart, Html, Table
from ..lora import lora_layers, why_not
from ..names import block_of, clean_name, short_name, tower_of

if TYPE_CHECKING:
    from ..data.pairs import PictureDataset
    from ..gradient.graph import Gradients
    from ..training.loop import History

# Distinct for colour-blind readers as well (after Okabe and Ito).
COLOURS = {
    "image": "#0072B2",
    "text": "#D55E00",
    "loss": "#CC79A7",
    "adapter": "#009E73",
    "frozen": "#8A8F98",
    "model": "#56B4E9",  # of no tower
    "weights": "#E69F00",  # trained, and no adapter
}


def bare(axes) -> None:
    """Leave only the axes on the left and below."""
    axes.spines[["top", "right"]].set_visible(False)


def _credit(figure: Figure, credit: str, y: float) -> None:
    """The attribution line, small and centred, its upper edge at the height `y` of the figure."""
    if credit:
        figure.text(0.5, y, credit, ha="center", va="top", fontsize=7, color="#555555")


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
) -> Chart | Html:
    """Pictures in rows, each under its title; a dataset brings its captions and its credit.

    Titles in a script that matplotlib can't write (Korean, Arabic, Hindi, …) go to the browser.
    """
    if titles is None and hasattr(images, "captions"):
        titles = images.captions
    credit = getattr(images, "credit", "") if credit is None else credit
    shown = [to_picture(image[0] if isinstance(image, tuple) else image) for image in images]
    if titles is not None and not all(_can_write(str(title)) for title in titles[: len(shown)]):
        said = [str(title) for title in titles[: len(shown)]]
        source = f"<div>{cards(shown, said, width=736 // columns)}{small_print(credit)}</div>"
        return Html(source, "\n".join([*said, credit]))
    rows = -(-len(shown) // columns)
    size, gap = 1.2, 0.12 if titles is None else 0.55  # inches: a picture, and between two rows
    figure = Chart(figsize=(1.15 * size * columns, size * rows + gap * (rows - 1)))
    space = {"left": 0, "right": 1, "bottom": 0, "top": 1, "hspace": gap / size}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=space)
    for axes in grid.flat:
        axes.axis("off")
    for i, (axes, picture) in enumerate(zip(grid.flat, shown, strict=False)):
        axes.imshow(picture, interpolation="lanczos")
        if titles is not None:
            axes.set_title(_wrap(titles[i], 17), fontsize=8)
    _credit(figure, credit, -0.1 / rows)
    return figure


@functools.cache
def _letters() -> frozenset[int]:
    """The characters in the font that matplotlib writes with."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _can_write(text: str) -> bool:
    """Whether matplotlib has all its letters. What runs from right to left it would reverse."""
    letters = "".join(text.split())
    reversed_ = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in letters)
    return not reversed_ and _letters().issuperset(map(ord, letters))


def image_tag(picture: Image.Image, side: int = 64) -> str:
    """HTML that shows the picture, whole, in a square of so many pixels."""
    buffer = io.BytesIO()
    shown = picture.copy()
    shown.thumbnail((2 * side, 2 * side))  # twice as many: for finer screens
    shown.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    style = f"width:{side}px;height:{side}px;object-fit:contain"
    return f'<img src="data:image/png;base64,{data}" style="{style}">'


def cards(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    heads: Sequence[str] | None = None,
    width: int = 92,
) -> str:
    """HTML: pictures in rows, each above its caption, with its head in bold between them."""
    heads = heads or [""] * len(images)
    found = [
        f'<div dir="auto" style="width:{width - 6}px;text-align:center;font-size:11px">'
        f"{image_tag(image, min(160, width - 28))}<br>"
        f"{f'<b>{html.escape(head)}</b><br>' if head else ''}{html.escape(caption)}</div>"
        for image, caption, head in zip(images, captions, heads, strict=True)
    ]
    style = "display:flex;flex-wrap:wrap;gap:6px;max-width:760px"
    return f'<div style="{style}">{"".join(found)}</div>'


def small_print(text: str) -> str:
    """HTML: a small line below pictures, for their credit."""
    return f'<p style="font-size:10px;opacity:.7">{html.escape(text)}</p>' if text else ""


def _wrap(text: str, width: int) -> str:
    lines = [""]
    for word in str(text).split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return _plain("\n".join(lines[:3]))


def _plain(text: str) -> str:
    """A caption as it is: two dollar signs in it are prices, and not matplotlib's mathematics."""
    return text.replace("$", r"\$")


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
        look = {"ha": "center", "va": "top", "fontsize": 7, "color": "#555555"}
        axes.text(0.5, -0.015, credit, transform=axes.transAxes, **look)
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
    # The layout leaves room for labels of any length beside the pictures.
    figure = Chart(figsize=(7.5, (0.23 * len(labels) + 0.3) * n), layout="constrained")
    grid = figure.subplots(n, 2, squeeze=False, width_ratios=[1, 5])
    for row, image, shares in zip(grid, images, values.tolist(), strict=True):
        row[0].imshow(to_picture(image))
        row[0].axis("off")
        best = max(shares)
        colours = [COLOURS["text"] if s == best else COLOURS["frozen"] for s in shares]
        row[1].barh(range(len(labels)), shares, color=colours)
        row[1].set_yticks(range(len(labels)), [_plain(label) for label in labels], fontsize=8)
        row[1].invert_yaxis()
        row[1].set_xlim(0, 1.12)
        row[1].set_xticks([])
        for y, share in enumerate(shares):
            row[1].text(share + 0.01, y, f"{share:.1%}", va="center", fontsize=8)
        bare(row[1])
    _credit(figure, credit, -0.02)
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
    chart.suptitle(f"“{_plain(query)}”", fontsize=11, color=COLOURS["text"], y=1.5, va="bottom")
    return chart


def answers(
    dataset: PictureDataset,
    chosen: Sequence[int],
    found: Mapping[str, torch.Tensor],
    *,
    top: int = 3,
) -> Chart:
    """For each chosen picture, what each model answers: its `top` captions, the right ones marked.

    `found` gives by a model's name the similarity (pictures, all captions) of the dataset. Beside
    the captions stands the place of the best right one; equally similar wrong ones come before it.
    """
    captions, groups = dataset.all_captions, torch.as_tensor(dataset.caption_groups)
    high, first, wide = 0.24 * top + 0.2, 2.55, 3.2
    width, height = first + wide * len(found), 0.35 + high * len(chosen)
    figure = Chart(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for column, name in enumerate(found):
        axes.text(first + wide * column, 0.15, name, fontsize=11, weight="bold", va="center")
    for row, index in enumerate(chosen):
        middle = 0.35 + high * (row + 0.5)
        picture, caption = dataset[index]
        axes.axhline(middle - high / 2, color="#dddddd", lw=0.8)
        _thumbnail(axes, picture, 0.45, middle, 0.4)
        axes.text(1.0, middle, _wrap(caption, 19), fontsize=9, weight="bold", va="center")
        good = groups == dataset.groups[index]
        for column, similarity in enumerate(found.values()):
            x, own = first + wide * column, similarity[index].cpu()
            place = 1 + int(((own >= own[good].max()) & ~good).sum())
            colour = COLOURS["adapter"] if place == 1 else COLOURS["frozen"]
            axes.text(x, middle, f"{place}.", fontsize=11, weight="bold", color=colour, va="center")
            for line, answer in enumerate(own.topk(top).indices.tolist()):
                right = bool(good[answer])
                said = captions[answer]
                said = said if len(said) <= 31 else f"{said[:30]}…"
                axes.text(
                    x + 0.5,
                    middle + 0.24 * (line - (top - 1) / 2),
                    _plain(f"✓ {said}" if right else said),
                    fontsize=9,
                    weight="bold" if right else "normal",
                    color=COLOURS["adapter"] if right else "#555555",
                    va="center",
                )
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    _credit(figure, dataset.credit, -0.02)
    return figure


Step = tuple[str, int, Sequence[int]]  # its name, its parameters, the shape of what it gives


def towers(
    image_steps: Sequence[Step],
    text_steps: Sequence[Step],
    picture: Image.Image,
    caption: str,
    cosine: float,
    *,
    credit: str = "",
) -> Chart:
    """The two towers side by side, each step a box with its parameters and, below, its shape."""
    step, box, wide, centres = 0.72, 0.36, 3.3, (1.9, 5.9)
    rows = max(len(image_steps), len(text_steps))
    height = 1.55 + step * rows + 0.55
    figure = Chart(figsize=(7.8, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")

    def arrow(x0: float, y0: float, x1: float, y1: float) -> None:
        look = {"arrowstyle": "-|>", "color": "#555555", "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (x1, y1), (x0, y0), arrowprops=look)

    def block(x: float, y: float, width: float, colour: str, learned: bool = True) -> None:
        shape = FancyBboxPatch(
            (x - width / 2, y - box / 2),
            width,
            box,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor=f"{colour}22" if learned else "none",
            edgecolor=colour,
            linestyle="-" if learned else "--",
        )
        axes.add_patch(shape)

    _thumbnail(axes, picture, centres[0], 0.62, 0.5)
    axes.text(centres[1], 0.62, f"“{_wrap(caption, 30)}”", fontsize=11, ha="center", va="center")
    end = 1.5 + step * rows
    for tower, steps, x in (("image", image_steps, centres[0]), ("text", text_steps, centres[1])):
        colour = COLOURS[tower]
        axes.text(x, 0.03, f"{tower} tower", fontsize=10, weight="bold", color=colour, ha="center")
        top = 1.15
        for i, (name, parameters, shape) in enumerate(steps):
            y = 1.5 + step * i
            arrow(x, top, x, y - box / 2)
            block(x, y, wide, colour, learned=parameters > 0)
            axes.text(x - wide / 2 + 0.1, y, name, fontsize=9, weight="bold", va="center")
            said = f"{parameters:,}" if parameters else "nothing learned"
            axes.text(x + wide / 2 - 0.1, y, said, fontsize=9, ha="right", va="center")
            size = " × ".join(str(n) for n in shape)
            axes.text(x + 0.1, y + step / 2, size, fontsize=8, color="#555555", va="center")
            top = y + box / 2
        middle = sum(centres) / 2
        axes.plot([x, x], [top, end], color="#555555", lw=1.1)
        arrow(x, end, middle + (0.8 if x > middle else -0.8), end)
    block(sum(centres) / 2, end, 1.6, COLOURS["loss"])
    axes.text(sum(centres) / 2, end, f"cosine {cosine:.2f}", fontsize=10, ha="center", va="center")
    axes.set_xlim(0, 7.8)
    axes.set_ylim(height, -0.1)
    _credit(figure, credit, 0.0)
    return figure


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
    bare(axes)
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
        bare(axes)
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
    """For each adapter the norms of A's and B's gradient, on a log axis; zeros are named.

    More than 30 adapters stand in two columns; their rows get narrower, so that all fit a screen.
    """
    layers = list(found.adapters.items())
    columns = 2 if len(layers) > 30 else 1
    rows = max(1, -(-len(layers) // columns))
    high = min(0.27, max(0.14, 9 / rows))  # of a row, in inches
    small = max(5.0, 7.5 * high / 0.27)
    figure = Chart(figsize=(7.5 if columns == 1 else 10.5, high * rows + 0.8))
    grid = figure.subplots(1, columns, sharex=True, squeeze=False)[0]
    norms = [g.norm for _, pair in layers for g in pair.values() if g.norm]
    floor = min(norms, default=1e-3) / 3
    for column, axes in enumerate(grid):
        shown = layers[column * rows : (column + 1) * rows]
        for y, (_, pair) in enumerate(shown):
            for part, shift in (("B", -0.19), ("A", 0.19)):
                g = pair[part]
                colour = COLOURS[g.tower or "frozen"]
                if g.norm:
                    alpha = 1.0 if part == "B" else 0.45
                    axes.barh(
                        y + shift, g.norm - floor, 0.36, left=floor, color=colour, alpha=alpha
                    )
                else:
                    said = f"{part}: {'exactly 0' if g.norm == 0 else g.verdict}"
                    axes.text(floor * 1.05, y + shift, said, va="center", fontsize=small - 1)
        axes.set_yticks(range(len(shown)), [short_name(name) for name, _ in shown])
        axes.tick_params(axis="y", labelsize=small)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_xscale("log")
        axes.set_xlim(floor, max(norms, default=1) * 1.5)
        axes.set_xlabel("norm of the gradient", fontsize=9)
        bare(axes)
    keys = [
        Patch(color=COLOURS[tower], alpha=alpha, label=f"{tower} tower, {part}")
        for tower in ("image", "text")
        for part, alpha in (("B", 1.0), ("A", 0.45))
    ]
    figure.tight_layout(w_pad=2)
    look = {"frameon": False, "fontsize": 8, "ncols": 4}
    figure.legend(handles=keys, loc="lower center", bbox_to_anchor=(0.5, 1), **look)
    return figure


# ------------------------------------------------------------------------------------------ tokens

TOKEN_KINDS = {
    "mark": ("#D9DCE1", "start or end"),
    "known": ("#BFE3F7", "seen in training"),
    "unknown": ("#F9C6A0", "never seen in training"),
    "padding": ("transparent", "padding"),
}


def tokens(texts: Mapping[str, Sequence[tuple[str, int, str]]]) -> Html:
    """Texts cut into tokens, each a coloured chip over its number.

    `texts` gives for each text `(piece, number, kind)` of its tokens; the kinds are the keys of
    TOKEN_KINDS.
    """

    def chip(piece: str, below: str, kind: str) -> str:
        ink = "#111" if kind != "padding" else "inherit;opacity:.45"
        return (
            f'<span style="display:inline-block;margin:2px;padding:1px 6px;border-radius:5px;'
            f"border:1px solid #8A8F98;text-align:center;line-height:1.25;"
            f'background:{TOKEN_KINDS[kind][0]};color:{ink}">'
            f"<b>{html.escape(piece)}</b><br>"
            f'<span style="font-size:10px">{html.escape(below)}</span></span>'
        )

    blocks, lines = [], []
    for text, pieces in texts.items():
        chips = "".join(chip(piece, str(number), kind) for piece, number, kind in pieces)
        blocks.append(f'<div style="margin-top:8px">{html.escape(text)}<br>{chips}</div>')
        lines.append(" | ".join([text, *(f"{piece} {number}" for piece, number, _ in pieces)]))
    kinds = dict.fromkeys(kind for pieces in texts.values() for _, _, kind in pieces)
    legend = "".join(chip("…", TOKEN_KINDS[kind][1], kind) for kind in TOKEN_KINDS if kind in kinds)
    return Html(
        f'<div>{"".join(blocks)}<div style="margin-top:8px">{legend}</div></div>', "\n".join(lines)
    )


# --------------------------------------------------------------------------------------- adapters


def matrices(
    shown: Mapping[str, torch.Tensor],
    signs: Sequence[str] = (),
    *,
    colours: Mapping[str, str] | None = None,
) -> Chart:
    """Matrices in a row, all to one scale: red and blue are their values, white is zero.

    `signs` stand between them ("+", "·", "="); `colours` gives a frame to some by name. A kernel
    with more than two dimensions is drawn as (out, all the rest).
    """
    colours = colours or {}
    values = {name: m.detach().float().cpu().flatten(1).numpy() for name, m in shown.items()}
    size = max(max(m.shape) for m in values.values())
    slots = [max(m.shape[1], 0.25 * size) for m in values.values()]
    gap = (0.07 + 0.021 * max(map(len, signs), default=0)) * size
    total, high = sum(slots) + gap * (len(slots) - 1), max(m.shape[0] for m in values.values())
    inches = min(9.5 / total, 3.4 / high)  # of one number
    figure = Chart(figsize=(total * inches, high * inches + 0.75))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    left, below = 0.0, high / 2 + 0.1 / inches
    for i, ((name, matrix), slot) in enumerate(zip(values.items(), slots, strict=True)):
        rows, columns = matrix.shape
        x, limit = left + slot / 2, np.quantile(np.abs(matrix), 0.99) or 1
        box = (x - columns / 2, x + columns / 2, rows / 2, -rows / 2)
        smooth = "nearest" if inches * 110 >= 1 else "antialiased"
        axes.imshow(matrix, "RdBu_r", vmin=-limit, vmax=limit, extent=box, interpolation=smooth)
        frame = Rectangle((box[0], box[3]), columns, rows, fill=False, lw=1.4)
        frame.set(edgecolor=colours.get(name, COLOURS["frozen"]), clip_on=False)
        axes.add_patch(frame)
        said = f"{rows} × {columns} = {rows * columns:,}"
        axes.text(x, below, name, ha="center", va="top", fontsize=10, weight="bold")
        axes.text(x, below + 0.24 / inches, said, ha="center", va="top", fontsize=8.5)
        if i < len(signs):
            middle = left + slot + gap / 2
            axes.text(middle, 0, signs[i], ha="center", va="center", fontsize=13)
        left += slot + gap
    axes.set_xlim(0, total)
    axes.set_ylim(high / 2 + 0.7 / inches, -high / 2 - 0.05 / inches)
    return figure


def curves(
    x: Sequence[float],
    values: Mapping[str, Sequence[float]],
    *,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    log: str = "",
    marker: str = "o",
    colours: Mapping[str, str] | None = None,
    at: Mapping[str, float] | None = None,
) -> Chart:
    """One curve a name. `log`: the axes with a log scale ("x", "y", "xy"); `at`: upright lines."""
    figure = Chart(figsize=(7.5, 3.1))
    axes = figure.subplots()
    tints = (COLOURS["adapter"], COLOURS["frozen"], COLOURS["image"], COLOURS["text"])
    for i, (name, curve) in enumerate(values.items()):
        colour = (colours or {}).get(name, tints[i % len(tints)])
        axes.plot(x, curve, marker=marker, ms=4, lw=1.4, color=colour, label=name)
    for name, place in (at or {}).items():
        axes.axvline(place, color="#999999", lw=1, ls="--")
        axes.text(place, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", fontsize=8)
    if "x" in log:
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [f"{number:g}" for number in x])
        axes.minorticks_off()
    if "y" in log:
        axes.set_yscale("log")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, fontsize=10, loc="left", pad=14 if at else 6)
    if len(values) > 1:
        axes.legend(frameon=False, fontsize=8)
    bare(axes)
    return figure


def adapter_map(model: nn.Module) -> Chart:
    """A row for each block of each tower, a square for each Linear and each convolution in it.

    Filled: it carries an adapter. Grey: it could. Hollow: it can't (`why_not`).
    """
    adapted = {id(layer) for _, layer in lora_layers(model)}
    rows: dict[str, dict[str, list[str]]] = {"image": {}, "text": {}}
    for name, layer in model.named_modules():
        if ".base_layer" in name or ".lora_" in name:
            continue
        if id(layer) in adapted or isinstance(layer, nn.Linear | nn.Conv2d):
            kind = (
                "adapter"
                if id(layer) in adapted
                else "could"
                if why_not(layer) is None
                else "can't"
            )
            name = clean_name(name)
            rows[tower_of(name) or "text"].setdefault(block_of(name), []).append(kind)
    high = max(len(blocks) for blocks in rows.values())
    figure = Chart(figsize=(9.5, 0.25 * high + 0.9))
    wide = [max((len(kinds) for kinds in blocks.values()), default=1) for blocks in rows.values()]
    wide = [max(number, 8) for number in wide]
    grid = figure.subplots(1, 2, width_ratios=wide)
    looks = {
        "adapter": {"facecolor": COLOURS["adapter"], "edgecolor": COLOURS["adapter"]},
        "could": {"facecolor": "#C9CCD1", "edgecolor": "#C9CCD1"},
        "can't": {"facecolor": "none", "edgecolor": "#C9CCD1"},
    }
    for axes, width, (tower, blocks) in zip(grid, wide, rows.items(), strict=True):
        for y, kinds in enumerate(blocks.values()):
            for x, kind in enumerate(kinds):
                axes.add_patch(Rectangle((x, y - 0.36), 0.72, 0.72, **looks[kind]))
        axes.set_yticks(range(len(blocks)), list(blocks), fontsize=8)
        axes.set_title(f"{tower} tower", fontsize=10, loc="left", color=COLOURS[tower])
        axes.set_xlim(-0.3, width)
        axes.set_ylim(high - 0.4, -0.6)
        axes.set_aspect("equal", anchor="NW")
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    said = {"adapter": "has an adapter", "could": "could have one", "can't": "can't have one"}
    keys = [Patch(**looks[kind], label=text) for kind, text in said.items()]
    figure.legend(handles=keys, frameon=False, fontsize=8.5, ncols=3, loc="upper center")
    figure.subplots_adjust(wspace=0.3, top=1 - 0.62 / figure.get_figheight())
    return figure
