"""All pictures: `mh.draw`. A colour has one meaning in all of them (`COLOURS`).

Objects of the package that have a picture give it by `plot()`; importing this package tells
`display.picture_of` how to draw them.
"""

from ..colours import COLOURS
from ..display import Chart, Html, Svg, Table
from . import collapsed, gradient_charts, gradient_diffs, series_map, strip  # noqa: F401  they register their pictures
from .adapter_norms import adapter_gradients
from .architecture import towers
from .charts import bars, curves
from .compared import gains, ways
from .graphviz import graph
from .image_rows import pictures
from .layer_map import adapter_map
from .matrix_rows import matrices
from .retrieval import answers, probabilities, ranking, similarity
from .size_chart import trade
from .token_chips import tokens
from .training_curves import history

__all__ = [  # noqa: RUF022 (grouped as the notebooks meet them)
    # What a drawing is, and the colours
    "Chart",
    "Html",
    "Svg",
    "Table",
    "COLOURS",
    # 00 start: pictures, and what a model answers
    "pictures",
    "answers",
    # 01 load: the towers, the tokens, and what is similar to what
    "towers",
    "bars",
    "tokens",
    "similarity",
    "probabilities",
    "ranking",
    # 02 inject: matrices and layers
    "matrices",
    "curves",
    "adapter_map",
    # 04 follow the gradient
    "graph",
    "adapter_gradients",
    # 05 train
    "history",
    "ways",
    "gains",
    # 08 ship it
    "trade",
]
