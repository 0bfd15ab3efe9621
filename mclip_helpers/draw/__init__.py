"""All pictures: `mh.draw`. Colours mean the same thing everywhere."""

from ..display import Chart, Html, Svg, Table
from . import collapsed, gradient_charts, strip  # noqa: F401  they register their pictures
from .base import (
    adapter_gradients,
    adapter_map,
    answers,
    bare,
    bars,
    cards,
    curves,
    epoch_table,
    history,
    image_tag,
    matrices,
    pictures,
    probabilities,
    ranking,
    similarity,
    small_print,
    to_picture,
    tokens,
    towers,
)
from .colours import COLOURS
from .graphviz import graph

__all__ = [
    "COLOURS",
    "Chart",
    "Html",
    "Svg",
    "Table",
    "adapter_gradients",
    "adapter_map",
    "answers",
    "bare",
    "bars",
    "cards",
    "curves",
    "epoch_table",
    "graph",
    "history",
    "image_tag",
    "matrices",
    "pictures",
    "probabilities",
    "ranking",
    "similarity",
    "small_print",
    "to_picture",
    "tokens",
    "towers",
]
