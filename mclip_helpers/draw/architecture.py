"""The two towers of a model, step by step: `towers`."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from ..checks import finite_number
from ..colours import COLOURS, QUIET
from ..display import Chart
from .arguments import pictures_of
from .captions import credit_line, escaped, wrapped
from .image_rows import thumbnail

Step = tuple[str, int, Sequence[int]]  # name, number of parameters, shape of the result

# The layout, in inches; y points downwards.
WIDTH, IMAGE_X, TEXT_X, MIDDLE = 7.8, 1.9, 5.9, 3.9
FIRST, STEP = 1.5, 0.72  # the middle of the first box, and from one box to the next
BOX_WIDTH, BOX_HEIGHT = 3.3, 0.36


def towers(
    image_steps: Sequence[Step],
    text_steps: Sequence[Step],
    picture: Image.Image,
    caption: str,
    cosine: float,
    *,
    credit: str = "",
) -> Chart:
    """The two towers side by side, from the picture and the caption down to their cosine.

    Each step is a box with its number of parameters; below it stands the shape of its result. A
    box without parameters has a dashed outline. ValueError for a cosine that is not a number.
    """
    finite_number("cosine", cosine)
    [picture] = pictures_of([picture])
    end = FIRST + STEP * max(len(image_steps), len(text_steps))
    height = end + 0.6
    figure = Chart(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    thumbnail(axes, picture, IMAGE_X, 0.62, 0.5)
    axes.text(TEXT_X, 0.62, f"“{wrapped(caption, 30)}”", fontsize=11, ha="center", va="center")
    _tower(axes, "image", image_steps, IMAGE_X, end)
    _tower(axes, "text", text_steps, TEXT_X, end)
    _box(axes, MIDDLE, end, 1.6, COLOURS["loss"])
    axes.text(MIDDLE, end, f"cosine {cosine:.2f}", fontsize=10, ha="center", va="center")
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, -0.1)
    credit_line(figure, credit, 0.0)
    return figure


def _tower(axes: Axes, tower: str, steps: Sequence[Step], x: float, end: float) -> None:
    """The steps of one tower, centred at `x`, and the line from the last one to the cosine."""
    colour = COLOURS[tower]
    axes.text(x, 0.03, f"{tower} tower", fontsize=10, weight="bold", color=colour, ha="center")
    top = 1.15  # where the next arrow begins
    for i, (name, parameters, shape) in enumerate(steps):
        y = FIRST + STEP * i
        _arrow(axes, (x, top), (x, y - BOX_HEIGHT / 2))
        _box(axes, x, y, BOX_WIDTH, colour, learned=parameters > 0)
        axes.text(
            x - BOX_WIDTH / 2 + 0.1, y, escaped(name, 40), fontsize=9, weight="bold", va="center"
        )
        count = f"{parameters:,}" if parameters else "nothing learned"
        axes.text(x + BOX_WIDTH / 2 - 0.1, y, count, fontsize=9, ha="right", va="center")
        size = " × ".join(str(n) for n in shape)
        axes.text(x + 0.1, y + STEP / 2, size, fontsize=8, color=QUIET, va="center")
        top = y + BOX_HEIGHT / 2
    axes.plot([x, x], [top, end], color=QUIET, lw=1.1)
    _arrow(axes, (x, end), (MIDDLE + (0.8 if x > MIDDLE else -0.8), end))


def _box(axes: Axes, x: float, y: float, width: float, colour: str, learned: bool = True) -> None:
    box = FancyBboxPatch(
        (x - width / 2, y - BOX_HEIGHT / 2),
        width,
        BOX_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.07",
        facecolor=f"{colour}22" if learned else "none",
        edgecolor=colour,
        linestyle="-" if learned else "--",
    )
    axes.add_patch(box)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": QUIET, "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style)
