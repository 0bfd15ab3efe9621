"""Size against quality of an exported model: `trade`."""

from __future__ import annotations

from itertools import cycle

from matplotlib.axes import Axes

from ..colours import COLOURS, CYCLE
from ..display import Chart, picture_of
from ..export import Trade
from .captions import legend_name
from .charts import bare

MARKERS = "osD^vPX*<>"
ROOM = 5  # points of R@1 above and below: a picture more or less should not look like a cliff


@picture_of.register
def trade(measured: Trade) -> Chart:
    """R@1 over the size, and beside it the share of first answers that stayed.

    An open mark for each way to store the model, so that none hides another; the dashed line is
    R@1 before.
    """
    if not isinstance(measured, Trade):
        raise TypeError(
            f"this is a {type(measured).__name__}; pass the Trade of export.size_against_recall"
        )
    figure = Chart(figsize=(9.5, 3.3))
    left, right = figure.subplots(1, 2)
    before = 100 * measured.links[0].r1_before
    left.axhline(before, color=COLOURS["frozen"], lw=1, ls="--", label="R@1 before")
    for axes in (left, right):
        _marks(axes, measured, of_r1=axes is left)
    left.set(ylabel="R@1, picture → text (%)")
    low, high = left.get_ylim()
    left.set_ylim(min(low, before - ROOM), max(high, before + ROOM))
    right.set(ylabel="same first answer (%)")
    named = left.get_legend_handles_labels()
    right.legend(*named, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    return figure


def _marks(axes: Axes, measured: Trade, *, of_r1: bool) -> None:
    for link, marker, colour in zip(measured.links, cycle(MARKERS), cycle(CYCLE), strict=False):
        share = link.r1_after if of_r1 else link.agreement
        size = link.size_after / 1e6
        name = legend_name(link.after)
        axes.plot(size, 100 * share, marker, color=colour, mfc="none", ms=8, mew=1.8, label=name)
    axes.set(xlabel="size (MB)", xlim=(0, None))
    bare(axes)
