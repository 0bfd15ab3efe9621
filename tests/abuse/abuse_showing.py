"""What is shown: any text is shown as text, and what can't be drawn is refused in one sentence."""

from __future__ import annotations

import functools
import inspect
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import torch
from cases import Case
from conftest import fresh
from matplotlib.text import Text
from PIL import Image
from torch import nn
from torchviz import make_dot

import mclip_helpers as mh
from mclip_helpers import draw, widgets
from mclip_helpers.comparison import Comparison, Run
from mclip_helpers.data import Pair
from mclip_helpers.export import Link, Trade

# ---------------------------------------------------------------------------- texts by bad people

TEXTS = {
    "a script": "<script>alert(1)</script>",
    "a tag in an attribute": "\"><img src=x onerror='alert(1)'>",
    "a link that runs a script": '<a href="javascript:alert(1)">here</a>',
    "the end of CDATA": "]]> <![CDATA[ &lt; <!-- -->",
    "a letter by its number": "&#x3c;b&#62; &amp; &nbsp;",
    "mathematics that is none": r"$\frac{$5 and $x$ \$",
    "Graphviz' escapes": r'\N \G \n \l "quoted" \\',
    "Python's and CSS's braces": "{0} {name} %s </style> :root{}",
    "control characters": "a\0b\x0bc\x1b[31md\x7fe\x85f\ufffeg\uffff",
    "a change of direction without an end": "abc \u202egpj.exe \u2067def",
    "an end of direction that was not begun": "abc \u202c\u2069 def",
    "half of a surrogate pair": "abc \ud83d def \udc00",
    "a million letters": "word " * 200_000,
    "a million letters in one word": "m" * 1_000_000,
    "lines": "first\nsecond\r\nthird\tfourth",
    "only white space": " \t\n ",
    "nothing": "",
    "letters without width": "\u200b\u200d\ufeff",
    "an emoji of several": "a 👩‍👩‍👧‍👦 and 🏴‍☠️ and 🇰🇷",
    "letters from right to left": "قطة נאה",
    "marks on one letter": "Z" + "\u0351" * 200,
    "a beginning that legends leave out": "_hidden",
}


def red() -> Image.Image:
    return Image.new("RGB", (8, 8), "red")


def dataset(text: str) -> mh.PictureDataset:
    """Three pairs, and a credit."""
    pairs = [Pair(f"{i} {text}", (f"{text}{i}",), f"{i}", red) for i in range(3)]
    return mh.PictureDataset(pairs, text)


def model_of(text: str) -> nn.Module:
    """Two towers with modules of that name. (A module's name has no dot and is not empty.)"""
    name = text[:5_000].replace(".", "·") or " "
    model = nn.Module()
    model.visual = nn.Sequential()
    model.visual.add_module(name, nn.Linear(2, 2))
    model.add_module(f"text {name}", nn.Linear(2, 2))
    return model


@functools.cache
def recorded(text: str) -> object:
    """The graph of a step of `model_of`; its loss carries the text as a label."""
    model = model_of(text)
    with mh.trace(model) as tape:
        x = torch.ones(1, 2)
        for tower in model.children():
            x = tower(x)
        loss = x.sum()
        tape.label(**{text: loss})
        loss.backward()
    return tape.graph


def clip_for(pictures: int) -> SimpleNamespace:
    """All that the boxes need of a Clip."""
    model = nn.Identity()
    model.logit_scale = torch.zeros(())
    features = torch.eye(pictures, 4)
    return SimpleNamespace(
        model=model,
        name="a <model>",
        encode_images=lambda images: features[: len(images)],
        encode_texts=lambda texts: torch.eye(max(4, len(texts)))[: len(texts), :4],
        unknown_tokens=lambda text: [text[:50]],
    )


def history(text: str) -> mh.History:
    epochs = [{"epoch": i + 1, "loss": 1.0, text: 0.5} for i in range(2)]
    return mh.History(steps=[{"loss": 1.0, "lr": 0.1}] * 2, epochs=epochs)


def compared(text: str) -> Comparison:
    run = Run(5, 1.0, [1, 2, 3], [1, 1, 2])
    return Comparison(run, {text: [run, run]}, {text: (1e-3, 10)})


def search(text: str) -> list:
    found = widgets.search_box(clip_for(3), dataset(text), query=text or "a")
    return [found.children[1].value]


def classify(text: str) -> list:
    found = widgets.classify_box(clip_for(3), dataset(text), labels=f"{text[:500]}, b, c")
    names = [name for name, _ in found.children[0].options]
    return [found.children[2].value, *map(Plain, names)]


def play(text: str) -> list:
    graph = recorded(text)
    box = widgets.player(graph)
    controls, buttons, shown = box.children
    slider = controls.children[-1]
    pages = [shown.children[0].value]
    for step in (1, slider.max):
        slider.value = step
        pages.append(shown.children[1].value)
    return [*pages, *(Plain(b.description) for b in buttons.children if hasattr(b, "tooltip"))]


class Plain(str):
    """Text that a page shows as it is."""


VECTOR, SQUARE = torch.tensor([0.5, 0.25, 0.1]), torch.rand(3, 3)

# Each place at which a text is shown. A drawing function that is missing here fails a test.
PAGES: dict[str, Callable[[str], list]] = {
    "pictures with captions in other scripts": lambda t: [
        draw.pictures([red(), red()], [f"고양이 {t}", t], credit=t)
    ],
    "tokens": lambda t: [draw.tokens({t: [(t, 1, "known")]})],
    "graph": lambda t: [draw.graph(dot_of(t))],
    "a graph by torchviz": lambda t: [draw.graph(torchviz_of(t))],
    "Html": lambda t: [Plain(repr(draw.Html("<p>here</p>", t)))],
    "Table": lambda t: [draw.Table([t, "b"], [[t, 1], [None, t]])],
    "ways": lambda t: [draw.ways(compared(t))],
    "the graph in blocks": lambda t: [recorded(t).collapse("blocks")],
    "the graph in operations": lambda t: [recorded(t).collapse("operations")],
    "a path": lambda t: [
        recorded(t).path(first_weight(t)),
        recorded(t).path(first_weight(t)).table(),
    ],
    "the gradients": lambda t: [recorded(t).gradients.table()],
    "search_box": search,
    "classify_box": classify,
    "player": play,
}
CHARTS: dict[str, Callable[[str], list]] = {
    "pictures": lambda t: [draw.pictures([red(), red()], [t, "b"], credit=t)],
    "pictures of a dataset": lambda t: [draw.pictures(dataset(t))],
    "answers": lambda t: [draw.answers(dataset(t), [0], {t: SQUARE})],
    "towers": lambda t: [draw.towers([(t, 1, (2,))], [("b", 0, (3,))], red(), t, 0.5, credit=t)],
    "bars": lambda t: [draw.bars({t: 1.0, "b": 2.0}, title=t, unit=t[:50])],
    "similarity": lambda t: [
        draw.similarity(SQUARE, [red()] * 3, [t, "b", "c"], title=t, credit=t)
    ],
    "probabilities": lambda t: [draw.probabilities(SQUARE[:1], [red()], [t, "b", "c"], credit=t)],
    "ranking": lambda t: [draw.ranking(t, VECTOR, dataset(t))],
    "matrices": lambda t: [draw.matrices({t: SQUARE, "b": SQUARE}, [t[:50]])],
    "curves": lambda t: [
        draw.curves([1, 2], {t: [1, 2], "b": [2, 1]}, xlabel=t, ylabel=t, title=t, at={t: 1})
    ],
    "adapter_map": lambda t: [draw.adapter_map(model_of(t))],
    "adapter_gradients": lambda t: [draw.adapter_gradients(adapter_called(t))],
    "history": lambda t: [draw.history(history(t))],
    "gains": lambda t: [draw.gains(compared(t))],
    "trade": lambda t: [draw.trade(traded(t))],
    "frames": lambda t: [recorded(t).frames()],
    "the norms": lambda t: [recorded(t).norms()],
    "the saved bytes": lambda t: [recorded(t).saved, recorded(t).saved.plot(t)],
}


def traded(text: str) -> Trade:
    return Trade(tuple(Link("fp32", name, *[0.9] * 6, 10**6, 10**5) for name in (text, "b")))


def first_weight(text: str) -> str:
    return next(iter(recorded(text).leaves))


def adapter_called(text: str) -> object:
    model = model_of(text)
    layer = next(model.visual.children())
    layer.lora_A = nn.ModuleDict({"default": nn.Linear(2, 2)})
    layer.lora_B = nn.ModuleDict({"default": nn.Linear(2, 2)})
    return mh.gradients(model)


def dot_quoted(text: str) -> str:
    return text[:5_000].replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


def dot_of(text: str) -> str:
    quoted = dot_quoted(text)
    link = "javascript:alert(1)"
    return f'digraph {{ a [label="{quoted}", tooltip="{quoted}", URL="{link}"]; a -> b }}'


def torchviz_of(text: str) -> str:
    w = torch.ones(1, requires_grad=True)
    return make_dot((w * 2).sum(), params={text[:5_000]: w}).source


# ----------------------------------------------------------------------------- what must hold then

TAGS = re.compile(
    "a|b|br|div|ellipse|g|i|img|p|path|polygon|pre|rect|span|svg|table|tbody|td|text|th|thead|title"
    "|tr|wbr"
)
OPENED, CLOSED = re.compile("[\u202a\u202b\u202d\u202e\u2066-\u2068]"), re.compile("[\u202c\u2069]")
UNFIT = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def can_be_shown(text: str, shown: list) -> bool:
    """Whether nothing breaks, nothing has a tag of the text's, and no direction changes."""
    _words_of(shown)
    return True


def is_text(text: str, shown: list) -> bool:
    """The same, and the beginning of the text can be read."""
    return _bare(UNFIT.sub("�", text))[:6] in _bare(_words_of(shown))


def _words_of(shown: list) -> str:
    """All that can be read in what is shown, after a look at whether it can be."""
    said = ""
    for thing in shown:
        for source in _pages(thing):
            said += _words_of_page(source)
        for words in _plain(thing):
            assert not UNFIT.search(words), "a terminal can't show it, or obeys it"
            assert len(OPENED.findall(words)) <= len(CLOSED.findall(words)), "reorders the rest"
            words.encode()
            said += words
    return said


def _bare(text: str) -> str:
    """The text without white space; a module's name had no dots."""
    return re.sub(r"\s", "", text.replace(r"\$", "$").replace(".", "·"))


def _pages(thing: object) -> Iterator[str]:
    """The HTML and SVG that a notebook would put into its page; a chart is drawn."""
    if isinstance(thing, draw.Chart):
        box = thing.get_tightbbox()
        assert max(box.width, box.height) < 60, "inches: too large to look at"
        return
    if isinstance(thing, str):
        if not isinstance(thing, Plain):
            yield thing
        return
    if hasattr(thing, "plot"):
        yield from _pages(thing.plot())
    for method in ("_repr_html_", "_repr_svg_"):
        if hasattr(thing, method):
            yield getattr(thing, method)()


def _words_of_page(source: str) -> str:
    """The text of a page, which must be a page, and have no tag and no script of a text's own."""
    source.encode()
    style = r"<style>[^<]*</style>"  # ours: the rules of the player
    closed = re.sub(r"<(br|wbr|img [^>]*)>", r"<\1/>", re.sub(style, "", source))
    page = ET.fromstring(f"<div>{closed}</div>")
    for element in page.iter():
        assert TAGS.fullmatch(element.tag.rpartition("}")[2]), f"a strange tag: {element.tag}"
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on"), "a script"
            assert "javascript:" not in value or "href" not in name, "a script"
        words = element.text or ""
        if not element.tag.startswith("{"):  # in SVG, each text stands alone
            assert len(OPENED.findall(words)) <= len(CLOSED.findall(words)), "reorders the rest"
    return "".join(page.itertext())


def _plain(thing: object) -> list[str]:
    if isinstance(thing, Plain):
        return [str(thing)]
    if isinstance(thing, str):
        return []
    if isinstance(thing, draw.Chart):
        return [text.get_text() for text in thing.findobj(Text)]
    return [repr(thing)]


# Charts take these for what they are not; what is only dangerous on a page is left out there.
HARD_TO_DRAW = (
    "a script",
    "mathematics that is none",
    "control characters",
    "a change of direction without an end",
    "half of a surrogate pair",
    "a million letters",
    "a million letters in one word",
    "lines",
    "nothing",
    "a beginning that legends leave out",
)
ONLY_SAFE = ("frames", "a graph by torchviz")  # where a text is cut, or is part of a program


def shown_as_text() -> Iterator[Case]:
    for table, texts in ((PAGES, TEXTS), (CHARTS, HARD_TO_DRAW)):
        for place, show in table.items():
            for text in texts:
                yield Case(
                    f"{text} is shown as it is, or visibly replaced, by {place}",
                    prepare=lambda folder, text=text: TEXTS[text],
                    does=show,
                    holds=can_be_shown if place in ONLY_SAFE else is_text,
                )


# ----------------------------------------------------------------------- arguments that can't be


def refused(name: str, does: Callable, says: str, error: type = ValueError) -> Case:
    return Case(
        name,
        prepare=lambda folder: dataset("a"),
        does=does,
        refused=error,
        says=(says,),
    )


NAN = torch.tensor([[0.5, float("nan")]])
EMPTY = mh.PictureDataset([])

NOT_A_DATASET = {
    "answers": lambda value: draw.answers(value, [0], {"a": SQUARE}),
    "ranking": lambda value: draw.ranking("a", VECTOR, value),
    "search_box": lambda value: widgets.search_box(clip_for(3), value),
    "classify_box": lambda value: widgets.classify_box(clip_for(3), value),
}
WRONG_DATASETS = {
    "a list": ([red()], "is a list; pass a dataset", TypeError),
    "a folder": ("my-pictures", "is a str; pass a dataset", TypeError),
    "None": (None, "is a NoneType; pass a dataset", TypeError),
    "an empty dataset": (EMPTY, "dataset is empty", ValueError),
}
NOT_PICTURES = {
    "pictures": draw.pictures,
    "similarity": lambda value: draw.similarity(SQUARE, value, ["a", "b", "c"]),
    "probabilities": lambda value: draw.probabilities(SQUARE, value, ["a", "b", "c"]),
}
WRONG_PICTURES = {
    "no picture": ([], "the list is empty", ValueError),
    "one picture without a list": (red(), "pass a list of pictures", TypeError),
    "the name of a file": ("a.png", "pass a list of pictures", TypeError),
    "names of files": (["a.png"] * 3, "picture 0 is a str", TypeError),
    "a tensor of one colour": ([torch.rand(1, 8, 8)] * 3, "must be (3, H, W)", ValueError),
    "a tensor with its colours last": ([torch.rand(8, 8, 3)] * 3, "must be (3, H, W)", ValueError),
    "an empty tensor": ([torch.rand(3, 0, 8)] * 3, "must be (3, H, W)", ValueError),
    "None among pictures": ([red(), None, red()], "picture 1 is a NoneType", TypeError),
}
COUNTS = {
    "pictures(columns=…)": lambda value: draw.pictures([red()], columns=value),
    "ranking(top=…)": lambda value: draw.ranking("a", VECTOR, dataset("a"), top=value),
    "answers(top=…)": lambda value: draw.answers(dataset("a"), [0], {"a": SQUARE}, top=value),
    "search_box(top=…)": lambda value: widgets.search_box(clip_for(3), dataset("a"), top=value),
}
MATRICES = {
    "similarity": lambda value: draw.similarity(value, [red()], ["a", "b"]),
    "probabilities": lambda value: draw.probabilities(value, [red()], ["a", "b"]),
    "matrices": lambda value: draw.matrices({"a": value}),
}
WRONG_MATRICES = {
    "NaN": (NAN, "NaN or infinite", ValueError),
    "an infinite number": (NAN.nan_to_num(float("inf")) / 0, "NaN or infinite", ValueError),
    "a vector": (NAN[0], "it must be a matrix", ValueError),
    "an empty matrix": (torch.rand(0, 2), "it must be a matrix", ValueError),
    "a list": ([[0.5, 0.5]], "is a list; pass a tensor", TypeError),
}
NOT_A_MODEL = {
    "a Clip": (fresh("nano"), "pass its model: clip.model"),
    "a dict": ({}, "pass clip.model"),
    "None": (None, "pass clip.model"),
}

REFUSED = [
    *(
        refused(
            f"{name} for a dataset is refused by {where}", lambda _, d=does, v=value: d(v), s, e
        )
        for where, does in NOT_A_DATASET.items()
        for name, (value, s, e) in WRONG_DATASETS.items()
    ),
    *(
        refused(f"{name} is refused by {where}", lambda _, d=does, v=value: d(v), s, e)
        for where, does in NOT_PICTURES.items()
        for name, (value, s, e) in WRONG_PICTURES.items()
    ),
    *(
        refused(f"{value!r} is refused as {where}", lambda _, d=does, v=value: d(v), "whole number")
        for where, does in COUNTS.items()
        for value in (0, -1, 2.5, "3", True, None)
    ),
    *(
        refused(f"{name} is refused by {where}", lambda _, d=does, v=value: d(v), s, e)
        for where, does in MATRICES.items()
        for name, (value, s, e) in WRONG_MATRICES.items()
    ),
    *(
        refused(
            f"{name} for a model is refused by adapter_map",
            lambda _, v=value: draw.adapter_map(v),
            says,
            TypeError,
        )
        for name, (value, says) in NOT_A_MODEL.items()
    ),
    refused("an empty dataset is refused by pictures", lambda _: draw.pictures(EMPTY), "empty"),
    refused(
        "more titles than pictures are refused",
        lambda d: draw.pictures(d, ["a"] * 9),
        "there are 9 titles for 3 pictures",
    ),
    refused(
        "fewer titles than pictures are refused",
        lambda d: draw.pictures(d, ["a"]),
        "there are 1 titles for 3 pictures",
    ),
    refused(
        "one title for a list of titles is refused",
        lambda d: draw.pictures(d, "abc"),
        "titles is a str; pass a list of texts",
        TypeError,
    ),
    refused(
        "more captions than columns are refused",
        lambda _: draw.similarity(SQUARE, [red()] * 3, ["a"] * 4),
        "there are 4 captions for 3 columns of the matrix",
    ),
    refused(
        "fewer pictures than rows are refused",
        lambda _: draw.similarity(SQUARE, [red()] * 2, ["a"] * 3),
        "there are 2 pictures for 3 rows of the matrix",
    ),
    refused(
        "more labels than columns are refused",
        lambda _: draw.probabilities(SQUARE, [red()] * 3, ["a"] * 4),
        "there are 4 labels for 3 columns of probabilities",
    ),
    refused(
        "one label for a list of labels is refused",
        lambda _: draw.probabilities(SQUARE, [red()] * 3, "abc"),
        "labels is a str; pass a list of texts",
        TypeError,
    ),
    refused(
        "fewer similarities than pictures are refused",
        lambda d: draw.ranking("a", VECTOR[:2], d),
        "there are 2 similarities for 3 pictures",
    ),
    refused(
        "a similarity of NaN is refused by ranking",
        lambda d: draw.ranking("a", VECTOR / 0 * 0, d),
        "NaN or infinite",
    ),
    refused(
        "a matrix of another dataset is refused by answers",
        lambda d: draw.answers(d, [0], {"model": torch.rand(2, 2)}),
        "the matrix of 'model' has the shape (2, 2); the dataset has 3 pictures and 3 captions",
    ),
    refused(
        "a matrix without a name is refused by answers",
        lambda d: draw.answers(d, [0], SQUARE),
        "similarities is a Tensor; pass a dict",
        TypeError,
    ),
    *(
        refused(
            f"the index {index!r} of a picture is refused by answers",
            lambda d, i=index: draw.answers(d, [i], {"a": SQUARE}),
            "whole number, at least 0 and at most 2",
        )
        for index in (3, -1, 1.5, "0")
    ),
    refused("no index at all is refused", lambda d: draw.answers(d, [], {"a": SQUARE}), "is empty"),
    *(
        refused(f"a bar of {value!r} is refused", lambda _, v=value: draw.bars({"a": v}), "finite")
        for value in (float("nan"), float("inf"), "3", None)
    ),
    refused("no bar at all is refused", lambda _: draw.bars({}), "nothing to draw"),
    refused("bars without names are refused", lambda _: draw.bars([1]), "pass a dict", TypeError),
    refused("no curve at all is refused", lambda _: draw.curves([1], {}), "nothing to draw"),
    refused(
        "a curve of another length than x is refused",
        lambda _: draw.curves([1, 2], {"a": [1]}),
        "there are 1 values of 'a' for 2 values of x",
    ),
    refused("no matrix at all is refused", lambda _: draw.matrices({}), "nothing to draw"),
    refused(
        "a list of matrices is refused",
        lambda _: draw.matrices([SQUARE]),
        "pass a dict, with a name for each",
        TypeError,
    ),
    *(
        refused(
            f"a cosine of {value!r} is refused",
            lambda _, v=value: draw.towers([], [], red(), "a", v),
            "cosine is",
        )
        for value in (float("nan"), "0.5", None)
    ),
    refused(
        "a file for the picture of the towers is refused",
        lambda _: draw.towers([], [], "a.png", "a", 0.5),
        "picture 0 is a str",
        TypeError,
    ),
    refused(
        "a kind of token that does not exist is refused",
        lambda _: draw.tokens({"a": [("a", 1, "odd")]}),
        "no kind of token is called 'odd'",
    ),
    refused("no text at all is refused by tokens", lambda _: draw.tokens({}), "nothing to draw"),
    refused(
        "a model without layers has no map",
        lambda _: draw.adapter_map(nn.Identity()),
        "no Linear and no convolution",
    ),
    refused(
        "gradients without adapters are refused by adapter_gradients",
        lambda _: draw.adapter_gradients(mh.gradients(nn.Linear(2, 2))),
        "call mh.inject_lora first",
    ),
    refused(
        "a model is refused by adapter_gradients",
        lambda _: draw.adapter_gradients(nn.Linear(2, 2)),
        "pass mh.gradients(model)",
        TypeError,
    ),
    refused(
        "a list of losses is refused by history",
        lambda _: draw.history([1.0]),
        "pass the History that mh.train returns",
        TypeError,
    ),
    refused(
        "a row of another length than its header is refused by a table",
        lambda _: draw.Table(["a", "b"], [["1", "2"], ["1"]]),
        "row 2 of the table has 1 cells; its header has 2",
    ),
    *(
        refused(
            f"{name} is refused by player", lambda _, v=value: widgets.player(v), says, TypeError
        )
        for name, value, says in (
            ("a model", nn.Linear(2, 2), "pass the graph of a recording: tape.graph"),
            ("a recording itself", mh.trace(nn.Linear(2, 2)), "tape.graph"),
            ("None", None, "tape.graph"),
        )
    ),
    *(
        refused(f"the graph {source!r} is refused", lambda _, s=source: draw.graph(s), "refused")
        for source in ("digraph { a -> ", "not a graph", "digraph { a [label=<<b>] }", "\0")
    ),
]

# ---------------------------------------------------------------------------- half precision, zeros

HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
IN_HALF = {
    "similarity": lambda half: draw.similarity(torch.zeros(1, 2).to(half), [red()], ["a", "b"]),
    "probabilities": lambda half: draw.probabilities(
        torch.zeros(1, 2).to(half), [red()], ["a", "b"]
    ),
    "ranking": lambda half: draw.ranking("a", torch.zeros(3).to(half), dataset("a")),
    "answers": lambda half: draw.answers(dataset("a"), [0], {"a": torch.zeros(3, 3).to(half)}),
    "matrices": lambda half: draw.matrices({"a": torch.zeros(3, 3).to(half)}),
    "pictures": lambda half: draw.pictures([torch.zeros(3, 8, 8).to(half)]),
}


def without_nan(_: object, chart: draw.Chart) -> bool:
    chart.canvas.draw()
    return not any("nan" in text.get_text() for text in chart.findobj(Text))


def not_in_the_table(_: object = None) -> set[str]:
    functions = {
        name
        for door in (draw, widgets)
        for name in door.__all__
        if inspect.isfunction(getattr(door, name))
    }
    return functions - PAGES.keys() - CHARTS.keys()


CASES = [
    Case(
        "every drawing function and every widget is in this table",
        prepare=lambda folder: None,
        does=not_in_the_table,
        holds=lambda _, missing: missing == set(),
    ),
    *shown_as_text(),
    *REFUSED,
    *(
        Case(
            f"zeros in {name} are drawn by {where} without NaN",
            prepare=lambda folder, h=half: h,
            does=does,
            holds=without_nan,
        )
        for where, does in IN_HALF.items()
        for name, half in HALVES.items()
    ),
]
