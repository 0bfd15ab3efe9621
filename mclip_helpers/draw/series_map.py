"""The map of the series: a trail through the notebooks, with what a learner has solved."""

from __future__ import annotations

import itertools
import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, PathPatch, Wedge
from matplotlib.path import Path

from ..colours import COLOURS, INK, LINE, QUIET, VACANT, tint
from ..display import Chart, picture_of
from ..exercises import EXERCISES, NOTEBOOKS, Progress
from .captions import escaped

SOLVED, TRIED = COLOURS["adapter"], COLOURS["weights"]
IN_A_ROW, APART, ROW = 3, 3.6, 2.5  # stations in a row; their distance, and that of the rows
RADIUS, DOT = 0.52, 0.105


@picture_of.register
def series_map(progress: Progress) -> Chart:
    """The notebooks along a trail. A ring closes as exercises are solved; a dot is an exercise."""
    places = [_place(i) for i in range(len(NOTEBOOKS))]
    rows = math.ceil(len(NOTEBOOKS) / IN_A_ROW)
    width, height = APART * (IN_A_ROW - 1) + 3.6, ROW * (rows - 1) + 2.75
    figure = Chart(figsize=(0.92 * width, 0.92 * height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(-1.8, width - 1.8)
    axes.set_ylim(-ROW * (rows - 1) - 1.35, 1.4)

    _trail(axes, places, VACANT, 7)
    done = [_complete(progress, notebook) for notebook in NOTEBOOKS]
    walked = next((i for i, complete in enumerate(done) if not complete), len(done) - 1)
    if walked:
        _trail(axes, places[: walked + 1], tint(SOLVED, 0.55), 7)
    for (notebook, title), (x, y) in zip(NOTEBOOKS.items(), places, strict=True):
        _station(axes, progress, notebook, title, x, y)
    solved, all_of_them = len(progress.solved), len(EXERCISES)
    top = f"{solved} of {all_of_them} exercises are solved"
    axes.text(-1.45, 1.12, top, fontsize=12.5, weight="bold", color=INK, va="center")
    _key(axes, width - 2.15, 1.12)
    below, ink = progress.trouble, COLOURS["text"]
    if not below and progress.next is not None:
        below, ink = f"Next: {progress.next.id} · {progress.next.title}", QUIET
    axes.text(-1.45, 0.84, escaped(below), fontsize=8.5, color=ink, va="center")
    return figure


def _place(i: int) -> tuple[float, float]:
    """The middle of station i; every other row runs back, as a trail up a hill does."""
    row, column = divmod(i, IN_A_ROW)
    column = IN_A_ROW - 1 - column if row % 2 else column
    return APART * column, -ROW * row


def _complete(progress: Progress, notebook: str) -> bool:
    solved, there_are = progress.of(notebook)
    return solved == there_are


def _trail(axes: Axes, places: list[tuple[float, float]], colour: str, wide: float) -> None:
    """A smooth line through the stations, with a bend where a row ends."""
    points, codes = [places[0]], [Path.MOVETO]
    for (x, y), (to_x, to_y) in itertools.pairwise(places):
        if y == to_y:
            middle = (x + to_x) / 2
            points += [(middle, y + 0.22), (middle, y - 0.22), (to_x, to_y)]
        else:
            out = 1.95 if x > APART else -1.95
            points += [(x + out, y - 0.1), (to_x + out, to_y + 0.1), (to_x, to_y)]
        codes += [Path.CURVE4] * 3
    line = Path(points, codes)
    axes.add_patch(
        PathPatch(line, fill=False, edgecolor=colour, lw=wide, capstyle="round", zorder=1)
    )


def _station(axes: Axes, progress: Progress, notebook: str, title: str, x: float, y: float) -> None:
    """A ring with the notebook's number, its name, and a dot for each exercise."""
    solved, there_are = progress.of(notebook)
    share = solved / there_are if there_are else 0.0
    complete = share == 1.0
    axes.add_patch(Circle((x, y), RADIUS + 0.1, facecolor="white", edgecolor="none", zorder=2))
    inside = tint(SOLVED, 0.85) if complete else "white"
    axes.add_patch(Circle((x, y), RADIUS, facecolor=inside, edgecolor=LINE, lw=1, zorder=3))
    axes.add_patch(
        Wedge((x, y), RADIUS, 0, 360, width=0.13, facecolor="#E9EBEE", edgecolor="none", zorder=4)
    )
    if share:
        ends = 90 - 360 * share
        ring = Wedge((x, y), RADIUS, ends, 90, width=0.13, facecolor=SOLVED, lw=0, zorder=5)
        axes.add_patch(ring)
    ink = "white" if complete else INK
    axes.text(
        x, y, notebook, ha="center", va="center", fontsize=13, weight="bold", color=ink, zorder=6
    )
    axes.text(
        x, y - RADIUS - 0.24, title, ha="center", va="center", fontsize=9.5, color=INK, zorder=6
    )
    ids = [e.id for e in EXERCISES.values() if e.notebook == notebook]
    for dx, id in zip(_spread(len(ids)), ids, strict=True):
        _dot(axes, x + dx, y - RADIUS - 0.56, id in progress.solved, id in progress.tried)


def _spread(count: int) -> list[float]:
    return [float(x) for x in (np.arange(count) - (count - 1) / 2) * 0.3]


def _dot(axes: Axes, x: float, y: float, solved: bool, tried: bool) -> None:
    """An exercise: full if it is solved, half if it was tried, hollow if not."""
    edge = SOLVED if solved else TRIED if tried else LINE
    face = SOLVED if solved else "white"
    axes.add_patch(Circle((x, y), DOT, facecolor=face, edgecolor=edge, lw=1.3, zorder=6))
    if tried and not solved:
        axes.add_patch(Wedge((x, y), DOT, 90, 270, facecolor=TRIED, lw=0, zorder=7))


def _key(axes: Axes, right: float, y: float) -> None:
    """What the dots mean."""
    x = right - 3.05
    for words, solved, tried in (
        ("solved", True, False),
        ("tried", False, True),
        ("still to come", False, False),
    ):
        _dot(axes, x, y, solved, tried)
        axes.text(x + 0.2, y, words, fontsize=8.5, va="center", color=QUIET)
        x += 0.42 + 0.125 * len(words)
