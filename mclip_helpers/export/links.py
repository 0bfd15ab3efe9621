"""What a link of the chain was measured to change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..display import Table


@dataclass(frozen=True)
class Link:
    """What was measured from one stage of a model, `before`, to the next, `after`.

    Cosines are between the old and the new feature of the same picture or caption: the smallest of
    each tower, and the mean of both. `agreement` is the share of pictures whose first answer
    stayed. R@1 is from picture to text (a share), the size is in bytes.
    """

    before: str
    after: str
    image_cosine: float
    text_cosine: float
    mean_cosine: float
    agreement: float
    r1_before: float
    r1_after: float
    size_before: int
    size_after: int

    @property
    def cosine(self) -> float:
        """The smallest cosine of both towers."""
        return min(self.image_cosine, self.text_cosine)


def table_of(links: Iterable[Link]) -> Table:
    """A row for each link; how far a cosine is from 1, where it is nearly that."""
    return Table(
        ["link", "smallest cosine", "mean cosine", "same first answer", "R@1", "size"],
        [
            [
                f"{link.before} → {link.after}",
                near_one(link.cosine),
                near_one(link.mean_cosine),
                f"{link.agreement:.1%}",
                f"{link.r1_before:.1%} → {link.r1_after:.1%}",
                f"{link.size_before / 1e6:.1f} → {link.size_after / 1e6:.1f} MB",
            ]
            for link in links
        ],
    )


def near_one(cosine: float) -> str:
    """ "1 − 2e-07" or "0.9876", whichever says more."""
    return f"1 − {1 - cosine:.0e}" if 0 < 1 - cosine < 1e-3 else f"{cosine:.4f}"
