"""Size against quality of an exported model: `trade`."""

from __future__ import annotations

from ..display import Chart, picture_of
from ..export import Trade
from .captions import LONGEST_NAME, escaped
from .charts import bare
from .colours import COLOURS, GREY


@picture_of.register
def trade(measured: Trade) -> Chart:
    """A point for each way to store the model: R@1, and the share of first answers that stayed.

    The size is on a logarithmic scale; the smaller a file, the further left it is.
    """
    if not isinstance(measured, Trade):
        raise TypeError(
            f"this is a {type(measured).__name__}; pass the Trade of export.size_against_recall"
        )
    figure = Chart(figsize=(9.5, 3.4))
    left, right = figure.subplots(1, 2)
    sizes = [link.size_after / 1e6 for link in measured.links]
    for axes, label, shares, colour in (
        (left, "R@1, picture → text (%)", [link.r1_after for link in measured.links], "image"),
        (right, "same first answer (%)", [link.agreement for link in measured.links], "adapter"),
    ):
        heights = [100 * share for share in shares]
        axes.plot(sizes, heights, "o", color=COLOURS[colour], ms=6)
        for link, x, y in zip(measured.links, sizes, heights, strict=True):
            axes.annotate(
                escaped(link.after, LONGEST_NAME),
                (x, y),
                xytext=(6, 3),
                textcoords="offset points",
                fontsize=7.5,
                color=GREY,
            )
        axes.set_xscale("log", base=2)
        axes.set(xlabel="size (MB)", ylabel=label)
        axes.margins(x=0.25, y=0.15)
        bare(axes)
    left.axhline(100 * measured.links[0].r1_before, color=COLOURS["frozen"], lw=1, ls="--")
    figure.tight_layout()
    return figure
