"""What a training run reported, as curves: `history`."""

from __future__ import annotations

from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..colours import COLOURS, CYCLE
from ..display import Chart, picture_of
from ..training.history import History
from .captions import legend_name
from .charts import bare


@picture_of.register
def history(run: History) -> Chart:
    """The loss over steps; beside it R@1 over epochs, if anything was evaluated."""
    if not isinstance(run, History):
        raise TypeError(f"this is a {type(run).__name__}; pass the History that mh.train returns")
    evaluated = run.evaluated
    figure = Chart(figsize=(9.5 if evaluated else 5.5, 3.1))
    left, *right = figure.subplots(1, 2 if evaluated else 1, squeeze=False)[0]
    losses = [step["loss"] for step in run.steps]
    left.plot(range(1, len(losses) + 1), losses, color=COLOURS["loss"], lw=1.2)
    left.set(xlabel="step", ylabel="contrastive loss", ylim=(0, None))
    bare(left)
    for axes in right:
        _recall(axes, run, evaluated)
    figure.tight_layout()
    return figure


def _recall(axes: Axes, run: History, evaluated: list[str]) -> None:
    epochs = [epoch["epoch"] for epoch in run.epochs]
    for name, colour in zip(evaluated, cycle(CYCLE), strict=False):
        shares = [100 * epoch[name] for epoch in run.epochs]
        axes.plot(epochs, shares, "o-", color=colour, label=legend_name(name))
    axes.set(xlabel="epoch", ylabel="R@1, picture → text (%)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.legend(frameon=False, fontsize=8)
    bare(axes)
