"""The door to all pictures: what is public, and that each drawing shows itself."""

from __future__ import annotations

import inspect
import types

import matplotlib.pyplot as plt
import pytest
import torch
from shown import png, words, xml

import mclip_helpers as mh
from mclip_helpers import draw
from mclip_helpers.comparison import Comparison, Run
from mclip_helpers.display import picture_of
from mclip_helpers.export import Link, Trade

HISTORY = mh.History(
    steps=[{"loss": loss, "lr": 0.1} for loss in (3.0, 2.0, 1.5, 1.0)],
    epochs=[{"epoch": 1, "loss": 2.5, "new": 0.25}, {"epoch": 2, "loss": 1.25, "new": 0.75}],
)

RUN = Run(5, 1.0, [1, 2, 3], [1, 1, 2])
COMPARISON = Comparison(RUN, {"LoRA": [RUN, RUN]}, {"LoRA": (1e-3, 10)})

TRADE = Trade(tuple(Link("fp32", name, *[0.9] * 6, 10**6, 10**5) for name in ("fp16", "int8")))

# One call of each drawing function, with a dataset and with nano's adapters and their gradients.
EXAMPLES = {
    "pictures": lambda d, _: draw.pictures(d),
    "similarity": lambda d, _: draw.similarity(
        torch.eye(3), [p for p, _ in d][:3], d.captions[:3], title="t", credit="credit"
    ),
    "probabilities": lambda d, _: draw.probabilities(
        torch.tensor([[0.25, 0.75]]), [d[0][0]], ["yes", "no"], credit="credit"
    ),
    "ranking": lambda d, _: draw.ranking("query", torch.arange(len(d)) / 10, d, top=3),
    "answers": lambda d, _: draw.answers(d, [0, 2], {"before": torch.eye(len(d))}, top=2),
    "towers": lambda d, _: draw.towers(
        [("stem", 5, (1, 2))], [("pool", 0, (3,))], d[0][0], "caption", 0.5, credit="credit"
    ),
    "bars": lambda *_: draw.bars({"a": 1.0, "b": 2.0}, title="t", unit=" s"),
    "gains": lambda *_: draw.gains(COMPARISON),
    "trade": lambda *_: draw.trade(TRADE),
    "history": lambda *_: draw.history(HISTORY),
    "adapter_gradients": lambda _, model: draw.adapter_gradients(mh.gradients(model)),
    "matrices": lambda *_: draw.matrices({"B": torch.rand(4, 2), "A": torch.rand(2, 5)}, ("·",)),
    "curves": lambda *_: draw.curves([1, 2, 4], {"a": [1, 2, 3], "b": [3, 2, 1]}, log="xy"),
    "adapter_map": lambda _, model: draw.adapter_map(model),
    "tokens": lambda *_: draw.tokens({"a cat": [("a", 1, "known"), ("cat", 2, "unknown")]}),
}


def test_every_drawing_function_has_an_example_here():
    public = {name for name in draw.__all__ if inspect.isfunction(getattr(draw, name))}
    elsewhere = {"graph", "ways"}  # in the tests of their modules; `ways` is a table
    assert public == EXAMPLES.keys() | elsewhere


def test_what_is_public_is_listed_and_hides_no_module():
    """A function with the name of its module would take its place in the package."""
    here = {name: value for name, value in vars(draw).items() if not name.startswith("_")}
    modules = {name for name, value in here.items() if isinstance(value, types.ModuleType)}
    assert here.keys() - modules == set(draw.__all__)
    assert len(set(draw.__all__)) == len(draw.__all__)
    sources = {getattr(draw, name).__module__.split(".")[-1] for name in EXAMPLES}
    assert sources <= modules


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_drawing_shows_itself_as_a_valid_picture_with_something_on_it(name, twemoji, adapted):
    drawing = EXAMPLES[name](twemoji, adapted)
    if isinstance(drawing, draw.Html):
        assert words(xml(drawing._repr_html_()))
    else:
        picture = png(drawing)
        assert 100 < picture.width < 2000
        assert 50 < picture.height < 3000
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 10


def test_a_chart_shows_itself_once_and_not_through_pyplot_as_well(twemoji):
    chart = draw.pictures(twemoji)
    assert plt.get_fignums() == []
    assert chart._repr_html_() is None, "else a notebook would choose between two pictures"


def test_what_has_a_picture_is_drawn_by_its_own_function(adapted):
    gradients = mh.gradients(adapted)
    for thing, function in ((HISTORY, draw.history), (gradients, draw.adapter_gradients)):
        by_itself, by_hand = thing.plot(), function(thing)
        assert picture_of(thing)._repr_png_() == by_hand._repr_png_()
        assert by_itself._repr_png_() == by_hand._repr_png_()


def test_five_ways_to_store_a_model_have_five_colours_and_hide_none():
    ways = ("fp32", "fp16", "int8", "int8, 8 kept", "int8, 24 kept")
    links = tuple(Link("ONNX", way, *[0.9] * 6, 10**6, 10**5) for way in ways)
    _, agreement = draw.trade(Trade(links)).axes
    marks = agreement.get_lines()
    assert len({mark.get_color() for mark in marks}) == len(ways)
    assert {mark.get_markerfacecolor() for mark in marks} == {"none"}
