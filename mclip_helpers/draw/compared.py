"""Ways to adapt a model side by side: what each gains, forgets and costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from ..colours import COLOURS, GREY
from ..comparison import WAYS, Comparison, difference
from ..comparison.runs import Run, recall
from ..display import Chart, Table, picture_of
from .captions import LONGEST_NAME, escaped
from .charts import bare

TINTS = {"heads": "text", "LoRA": "adapter", "full": "weights"}  # by method


def ways(comparison: Comparison) -> Table:
    """A row for the base and for each way: R@1 and R@5 of the new pictures, R@1 of the kept ones.

    The last column is R@1 more than the base has, with an interval of 95 % over the test pictures
    and the seeds.
    """
    _require_comparison(comparison)
    has_kept = bool(comparison.base.kept)
    rows = [["base", "–", "–", *_shares([comparison.base], has_kept), "–"]]
    for way, runs in comparison.runs.items():
        setting = comparison.settings[way]
        trained = f"{runs[0].trained:,}" if runs[0].trained else "0"
        chosen = "–" if setting is None else "{:g} × {}".format(*setting)
        gain = str(comparison.gain(way))
        rows.append([way, trained, chosen, *_shares(runs, has_kept), gain])
    kept = ["R@1 kept"] if has_kept else []
    header = ["", "trained", "rate × epochs", "R@1", "R@5", *kept, "R@1 more than the base (95 %)"]
    return Table(header, rows)


def _require_comparison(value: object) -> None:
    """TypeError for anything but a comparison of at least one way, ValueError without any."""
    if not isinstance(value, Comparison):
        raise TypeError(
            f"this is a {type(value).__name__}; pass a Comparison, which study.compared and "
            f"comparison.compare return"
        )
    if not value.runs:
        raise ValueError("this Comparison holds no way that could be shown")


def _shares(runs: Sequence[Run], has_kept: bool) -> list[str]:
    columns = [[run.recall() for run in runs], [run.recall(5) for run in runs]]
    if has_kept:
        columns.append([run.recall_kept() for run in runs])
    return [f"{sum(column) / len(column):.1%}" for column in columns]


@picture_of.register
def gains(comparison: Comparison) -> Chart:
    """R@1 of each way: a dot for each seed, the mean, its interval of 95 %; a line for the base.

    Beside it the same for the pictures that were not to be forgotten, if there are any.
    """
    _require_comparison(comparison)
    panels: list[tuple[str, Callable[[Run], list[int]]]] = [
        ("R@1 of the new pictures (%)", lambda run: run.new)
    ]
    if comparison.base.kept:
        panels.append(("R@1 of the pictures that it knew (%)", lambda run: run.kept))
    names = [escaped(way, LONGEST_NAME) for way in comparison.runs]
    figure = Chart(figsize=(1 + 4.2 * len(panels), 0.42 * len(comparison.runs) + 1.2))
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (label, ranks) in zip(row, panels, strict=True):
        _panel(axes, comparison, ranks)
        axes.set_xlabel(label)
    row[0].set_yticks(range(len(comparison.runs)), names)
    row[0].invert_yaxis()
    figure.tight_layout()
    return figure


def _panel(axes: Axes, comparison: Comparison, ranks: Callable[[Run], list[int]]) -> None:
    base = ranks(comparison.base)
    nothing = [[len(base) + 1] * len(base)]  # no hit: what is "more" than this is the share itself
    start = 100 * recall(base)
    axes.axvline(start, color=GREY, lw=1, ls="--")
    axes.annotate("base", (start, 1), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    for y, (way, runs) in enumerate(comparison.runs.items()):
        method = WAYS[way].method if way in WAYS else ""
        colour = COLOURS[TINTS[method]] if method in TINTS else GREY
        share = difference([ranks(run) for run in runs], nothing)
        axes.plot([100 * share.low, 100 * share.high], [y, y], color=colour, lw=6, alpha=0.3)
        seeds = [100 * recall(ranks(run)) for run in runs]
        axes.plot(seeds, [y] * len(seeds), "o", color=colour, ms=3)
        axes.plot(100 * share.mean, y, "|", color=colour, ms=14, mew=2)
    bare(axes)
