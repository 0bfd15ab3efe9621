"""What is shown: pictures, tables, graphs and widgets; and the gradients that they are about."""

from __future__ import annotations

import base64
import dataclasses
import inspect
import io
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.text import Text
from PIL import Image
from torch import nn

import mclip_helpers as mh
from mclip_helpers import draw
from mclip_helpers.data import pairs as data
from mclip_helpers.draw import base

HOSTILE = "<b>&\"'</b> $\\frac{$5"


@pytest.fixture(scope="module")
def nano() -> mh.Clip:
    return mh.load_model("nano", device="cpu")


@pytest.fixture(scope="module")
def emoji() -> mh.PictureDataset:
    return mh.emoji_dataset("twemoji", "val").subset(range(10))


@pytest.fixture(scope="module")
def adapted() -> tuple[nn.Module, mh.Clip]:
    """nano with fresh adapters after one backward pass; the text tower took no part in it."""
    clip = mh.load_model("nano", device="cpu")
    torch.manual_seed(0)
    peft = mh.inject_lora(clip.model, rank=2, targets="default")
    clip.model.encode_image(torch.rand(2, 3, 64, 64)).square().sum().backward()
    return peft, clip


@pytest.fixture
def hostile() -> mh.PictureDataset:
    """One picture whose caption and credit would break careless HTML and matplotlib."""

    def load() -> Image.Image:
        return Image.new("RGB", (8, 8), "red")

    pairs = [data.Pair(str(i), (f"{HOSTILE}{i}",), str(i), load) for i in range(3)]
    return mh.PictureDataset(pairs, HOSTILE)


def png(chart: draw.Chart) -> Image.Image:
    """The chart as a notebook would show it, decoded."""
    picture = Image.open(io.BytesIO(chart._repr_png_()))
    picture.load()
    assert picture.format == "PNG"
    return picture


def texts(chart: draw.Chart) -> list[str]:
    """All that is written in a chart, line ends as spaces."""
    png(chart)  # ticks get their texts when drawn
    found = [text.get_text() for text in chart.findobj(Text) if text.get_visible()]
    return [text.replace("\n", " ").replace(r"\$", "$") for text in found if text]


def xml(source: str) -> ET.Element:
    """HTML or SVG that is well-formed XML too; HTML's `<br>` and `<img …>` are closed first."""
    return ET.fromstring(re.sub(r"<br>|<img ([^>]*)>", r"<img \1/>", source))


def words(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


# ------------------------------------------------------------------------------------------ charts

HISTORY = mh.History(
    steps=[{"loss": loss, "lr": 0.1} for loss in (3.0, 2.0, 1.5, 1.0)],
    epochs=[
        {"epoch": 1, "loss": 2.5, "new": 0.25, "old": 0.5},
        {"epoch": 2, "loss": 1.25, "new": 0.75, "old": 0.5},
    ],
)

# One call of each drawing function, with a dataset, nano with adapters, and its gradients.
EXAMPLES = {
    "pictures": lambda d, *_: draw.pictures(d),
    "similarity": lambda d, *_: draw.similarity(
        torch.eye(3), [p for p, _ in d][:3], d.captions[:3], title="t", credit="credit"
    ),
    "probabilities": lambda d, *_: draw.probabilities(
        torch.tensor([[0.25, 0.75]]), [d[0][0]], ["yes", "no"], credit="credit"
    ),
    "ranking": lambda d, *_: draw.ranking("query", torch.arange(len(d)) / 10, d, top=3),
    "answers": lambda d, *_: draw.answers(d, [0, 2], {"before": torch.eye(len(d))}, top=2),
    "towers": lambda d, *_: draw.towers(
        [("stem", 5, (1, 2))], [("pool", 0, (3,))], d[0][0], "caption", 0.5, credit="credit"
    ),
    "bars": lambda *_: draw.bars({"a": 1.0, "b": 2.0}, title="t", unit=" s"),
    "history": lambda *_: draw.history(HISTORY),
    "adapter_gradients": lambda d, model: draw.adapter_gradients(mh.gradients(model)),
    "matrices": lambda *_: draw.matrices({"B": torch.rand(4, 2), "A": torch.rand(2, 5)}, ("·",)),
    "curves": lambda *_: draw.curves([1, 2, 4], {"a": [1, 2, 3], "b": [3, 2, 1]}, log="xy"),
    "adapter_map": lambda d, model: draw.adapter_map(model),
    "tokens": lambda *_: draw.tokens({"a cat": [("a", 1, "known"), ("cat", 2, "unknown")]}),
}


def test_every_drawing_function_has_an_example_here():
    shown = {"Chart", "Html", "Chart | Html"}
    public = {
        name
        for name, function in vars(draw).items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and function.__annotations__.get("return") in shown
    }
    assert public == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_drawing_shows_itself_as_a_valid_picture_with_something_on_it(name, emoji, adapted):
    drawing = EXAMPLES[name](emoji, adapted[0])
    if isinstance(drawing, draw.Html):
        assert words(xml(drawing._repr_html_()))
    else:
        picture = png(drawing)
        assert 100 < picture.width < 2000
        assert 50 < picture.height < 3000
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 10


def test_a_chart_shows_itself_once_and_not_through_pyplot_as_well(emoji):
    chart = draw.pictures(emoji)
    assert plt.get_fignums() == []
    assert chart._repr_html_() is None, "else a notebook would choose between two pictures"


def test_to_picture_gives_the_colours_of_a_tensor_and_clips_what_is_no_colour():
    tensor = torch.tensor([[0.0, 1.0], [0.999, 2.0], [-1.0, 0.6]])[:, None, :].requires_grad_()
    picture = draw.to_picture(tensor)
    assert (picture.mode, picture.size) == ("RGB", (2, 1))
    assert [picture.getpixel((x, 0)) for x in (0, 1)] == [(0, 255, 0), (255, 255, 153)]


def test_to_picture_gives_a_picture_back_as_it_is():
    picture = Image.new("L", (2, 2))
    assert draw.to_picture(picture) is picture


def test_pictures_of_a_dataset_stand_above_its_credit_and_under_their_captions(emoji):
    chart = draw.pictures(emoji, columns=4)
    said = texts(chart)
    assert [text for text in said if text in emoji.captions] == emoji.captions
    assert emoji.credit in said
    drawn = [axes.images[0].get_array() for axes in chart.axes if axes.images]
    assert len(chart.axes) == 12
    assert len(drawn) == len(emoji)
    assert all(np.array_equal(a, np.asarray(p)) for a, (p, _) in zip(drawn, emoji, strict=True))


def test_pictures_takes_tensors_and_titles_of_ones_own_without_a_credit():
    chart = draw.pictures([torch.rand(3, 8, 8), Image.new("RGB", (4, 4))], ["one", "two"])
    assert [axes.get_title() for axes in chart.axes if axes.get_title()] == ["one", "two"]
    assert chart.texts == []


@pytest.mark.parametrize(
    ("caption", "by_the_browser"),
    [
        ("고양이가 잔다", True),
        ("猫が寝ている", True),
        ("قطة نائمة", True),
        ("בלת <b>ישן</b>", True),
        ("बिल्ली सो रही है", True),
        ("un café à 3 €, déjà $vu$", False),
        ("кошка спит", False),
    ],
)
def test_captions_in_any_script_can_be_read_and_matplotlib_misses_no_glyph(
    caption: str, by_the_browser: bool, recwarn: pytest.WarningsRecorder
):
    shown = [Image.new("RGB", (300, 200), colour) for colour in ("red", "blue")]
    drawing = draw.pictures(shown, [caption, "a cat"], columns=4, credit="somebody")
    assert isinstance(drawing, draw.Html) == by_the_browser
    if by_the_browser:
        page = xml(drawing._repr_html_())
        assert list(page.itertext()) == [caption, "a cat", "somebody"]
        colours = [picture.getpixel((0, 0)) for picture in pictures_in(drawing.source)]
        assert colours == [(255, 0, 0), (0, 0, 255)]
        assert repr(drawing).splitlines() == [caption, "a cat", "somebody"]
    else:
        png(drawing)
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_a_long_caption_is_wrapped_between_words():
    lines = base._wrap("a rather long caption of several words", 10).split("\n")
    assert 1 < len(lines) <= 3
    assert " ".join(lines) == "a rather long caption of"[: len(" ".join(lines))]
    assert all(len(line) <= 10 for line in lines)


def test_dollar_signs_and_markup_in_captions_are_drawn_as_they_are(hostile):
    pictures = [picture for picture, _ in hostile]
    hostile.credit = ""
    for chart in (
        draw.pictures(hostile),
        draw.ranking(HOSTILE, torch.rand(3), hostile),
        draw.probabilities(torch.rand(1, 2), pictures[:1], [HOSTILE, "b"]),
        draw.similarity(torch.rand(3, 3), pictures, hostile.captions),
    ):
        assert any("$\\frac{$5" in text for text in texts(chart))


def test_similarity_writes_every_number_in_its_place(emoji):
    matrix = torch.tensor([[0.5, -0.25, 0.125], [1.0, 0.0, -1.0]])
    chart = draw.similarity(
        matrix, [p for p, _ in emoji][:2], ["x", "y", "z"], number_format="{:.3f}", title="title"
    )
    heat = chart.axes[0]
    written = {t.get_position(): t.get_text() for t in heat.texts}
    assert written == {
        (column, row): f"{matrix[row, column]:.3f}" for row in range(2) for column in range(3)
    }
    assert {"x", "y", "z", "title"} <= set(texts(chart))
    assert np.array_equal(heat.images[0].get_array(), matrix.numpy())
    low, high = heat.images[0].get_clim()
    assert -low == high == 1, "white is zero"


def test_probabilities_draws_a_bar_as_long_as_each_share_and_marks_the_largest(emoji):
    shares = torch.tensor([[0.25, 0.75], [0.9, 0.1]])
    chart = draw.probabilities(shares, [p for p, _ in emoji][:2], ["yes", "no"])
    bars = [axes.patches for axes in chart.axes if axes.patches]
    widths = [[bar.get_width() for bar in row] for row in bars]
    assert widths == [pytest.approx(row) for row in shares.tolist()]
    marked = to_rgba(draw.COLOURS["text"])
    found = [[bar.get_facecolor() == marked for bar in row] for row in bars]
    assert found == [[False, True], [True, False]]
    assert [t for t in texts(chart) if "%" in t] == ["25.0%", "75.0%", "90.0%", "10.0%"]


def test_ranking_shows_the_most_similar_pictures_best_first(emoji):
    similarities = torch.linspace(0, 0.9, len(emoji))[torch.randperm(len(emoji))]
    best = similarities.argsort(descending=True)[:3].tolist()
    said = texts(draw.ranking("what I look for", similarities, emoji, top=3))
    expected = [f"{similarities[i]:.2f} {emoji.captions[i]}" for i in best]
    assert [text for text in said if re.match(r"\d\.\d\d ", text)] == expected
    assert "“what I look for”" in said
    assert emoji.credit in said


def test_ranking_of_fewer_pictures_than_asked_shows_them_all(emoji):
    few = emoji.subset([0, 1])
    said = texts(draw.ranking("q", torch.rand(2), few))
    assert all(any(caption in text for text in said) for caption in few.captions)


def test_bars_are_as_long_as_their_numbers_and_keep_their_order_and_colours():
    chart = draw.bars({"b": 10, "a": 2000}, title="t", unit=" ms", colours={"a": "#ff0000"})
    axes = chart.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [10, 2000]
    assert axes.patches[1].get_facecolor() == (1, 0, 0, 1)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["b", "a"]
    assert axes.yaxis_inverted(), "the first stands on top"
    assert {"10 ms", "2,000 ms", "t"} <= set(texts(chart))


@pytest.mark.filterwarnings("error::UserWarning")
def test_bars_of_nothing_but_zeros_can_be_drawn():
    png(draw.bars({"a": 0}))


def test_history_draws_every_loss_and_every_recall_in_percent():
    chart = HISTORY.plot()
    loss, recall = chart.axes
    [line] = loss.lines
    assert line.get_xdata().tolist() == [1, 2, 3, 4]
    assert list(line.get_ydata()) == [3, 2, 1.5, 1]
    assert {line.get_label(): list(line.get_ydata()) for line in recall.lines} == {
        "new": [25, 75],
        "old": [50, 50],
    }


def test_history_without_an_evaluation_is_the_loss_alone():
    run = mh.History(HISTORY.steps, [{"epoch": 1, "loss": 2.0}])
    assert len(draw.history(run).axes) == 1
    png(draw.history(run))
    png(draw.history(mh.History()))


# ------------------------------------------------------------------------------------------- table


def test_a_table_is_aligned_text_under_a_rule():
    table = draw.Table(["name", "n"], [["a", 1], ["longer name", None]])
    lines = str(table).split("\n")
    assert repr(table) == str(table)
    assert lines == [
        "name         n",
        "───────────  ────",
        "a            1",
        "longer name  None",
    ]


def test_a_table_in_html_has_every_cell_escaped_and_in_its_place():
    table = draw.Table(["a", HOSTILE], [["<script>x</script>", 1], [None, "가 & b"]])
    root = xml(table._repr_html_())
    assert root.tag == "table"
    assert [cell.text for cell in root.findall("thead/tr/th")] == ["a", HOSTILE]
    rows = [[cell.text for cell in row] for row in root.findall("tbody/tr")]
    assert rows == [["<script>x</script>", "1"], ["None", "가 & b"]]


def test_a_table_without_rows_shows_its_header():
    table = draw.Table(["only", "these"], [])
    assert str(table).split("\n")[0].split() == ["only", "these"]
    assert [cell.text for cell in xml(table._repr_html_()).iter("th")] == ["only", "these"]


def test_a_row_of_another_length_is_refused():
    with pytest.raises((ValueError, IndexError)):
        str(draw.Table(["a", "b"], [["1"]]))


def test_tokens_shows_every_piece_over_its_number_and_explains_the_kinds_that_occur():
    pieces = [("<start>", 49406, "mark"), ("cat", 2368, "known"), (HOSTILE, 7, "unknown")]
    found = draw.tokens({HOSTILE: pieces})
    said = words(xml(found._repr_html_()))
    assert all(piece in said and str(number) in said for piece, number, _ in pieces)
    assert "never seen in training" in said
    assert "padding" not in said
    assert repr(found) == f"{HOSTILE} | <start> 49406 | cat 2368 | {HOSTILE} 7"


# --------------------------------------------------------------------------------------- gradients


def test_the_drawing_of_gradients_has_a_bar_up_to_each_norm_and_names_the_others(adapted):
    found = mh.gradients(adapted[0])
    chart = found.plot()
    bars = chart.axes[0].patches
    ends = sorted(bar.get_x() + bar.get_width() for bar in bars)
    assert ends == pytest.approx(sorted(g.norm for g in found if g.norm))
    said = texts(chart)
    assert sum("A: exactly 0" in text for text in said) == found.count("exactly zero", "A") > 0
    assert sum("B: not reached" in text for text in said) == found.count("not reached", "B") > 0
    assert len(chart.axes[0].get_yticklabels()) == len(found.adapters)


def test_gradients_of_which_none_is_reached_can_be_drawn():
    clip = mh.load_model("nano", pretrained="random", device="cpu")
    chart = mh.gradients(mh.inject_lora(clip.model, targets="text")).plot()
    assert any("not reached" in text for text in texts(chart))


def test_the_adapter_map_has_a_filled_square_for_each_adapter(adapted):
    peft, _ = adapted
    green = to_rgba(draw.COLOURS["adapter"])
    squares = [patch for axes in draw.adapter_map(peft).axes for patch in axes.patches]
    filled = [s for s in squares if s.get_facecolor() == green]
    assert len(filled) == len(list(mh.lora_layers(peft)))
    plain = [
        m
        for m in mh.load_model("nano", device="cpu").model.modules()
        if isinstance(m, nn.Linear | nn.Conv2d)
    ]
    assert len(squares) >= len(plain)


# ----------------------------------------------------------------------------------------- widgets


def pictures_in(shown: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    return [Image.open(io.BytesIO(base64.b64decode(code, validate=True))) for code in found]


def captions_in(shown: str) -> list[str]:
    """What stands on the cards, in their order."""
    return re.findall(r"</b><br/?>([^<]*)</div>", shown)


def test_the_search_box_shows_the_pictures_that_fit_its_text_and_follows_it(nano, emoji):
    widget = mh.widgets.search_box(nano, emoji, query=emoji.captions[0], top=3)
    box, shown = widget.children
    features, _ = mh.embed(nano, emoji)
    seen = set()
    for query in (emoji.captions[0], *emoji.captions[1:5]):
        box.value = query
        cosines = features @ nano.encode_texts([query])[0]
        best = cosines.argsort(descending=True)[:3].tolist()
        assert captions_in(shown.value) == [emoji.captions[i] for i in best]
        assert re.findall(r"<b>(.*?)</b>", shown.value) == [f"{cosines[i]:.2f}" for i in best]
        assert len(pictures_in(shown.value)) == 3
        assert emoji.credit in words(xml(f"<div>{shown.value}</div>"))
        seen.add(shown.value)
    assert len(seen) > 1


def test_the_search_box_shows_a_result_before_anybody_typed(nano, emoji):
    _, shown = mh.widgets.search_box(nano, emoji, query="a cat", top=2).children
    assert len(pictures_in(shown.value)) == 2
    _, shown = mh.widgets.search_box(nano, emoji).children
    assert pictures_in(shown.value) == []
    assert "Type something" in shown.value


def test_the_search_box_asks_for_words_when_there_are_none(nano, emoji):
    box, shown = mh.widgets.search_box(nano, emoji, query="a cat").children
    box.value = "   "
    assert pictures_in(shown.value) == []
    assert "Type something" in shown.value


def test_the_search_box_names_the_words_that_the_model_has_never_seen(nano, emoji):
    box, shown = mh.widgets.search_box(nano, emoji, query="a cat").children
    assert "never seen" not in shown.value
    box.value = "a cat doing photosynthesis"
    unknown = nano.unknown_tokens(box.value)
    assert unknown
    said = words(xml(f"<div>{shown.value}</div>"))
    assert f"nano has never seen in training: {', '.join(unknown)}" in said


def test_the_search_box_of_a_small_dataset_shows_all_of_it(nano, emoji):
    _, shown = mh.widgets.search_box(nano, emoji.subset([1, 2]), query="a cat").children
    assert set(captions_in(shown.value)) == set(emoji.captions[1:3])


def test_the_search_box_escapes_captions_and_credit(nano, hostile):
    _, shown = mh.widgets.search_box(nano, hostile, query=HOSTILE).children
    said = words(xml(f"<div>{shown.value}</div>"))
    assert all(caption in said for caption in hostile.captions)
    assert said.endswith(HOSTILE)
    assert HOSTILE not in shown.value


def shares_in(shown: str) -> dict[str, str]:
    found = re.findall(r'text-align:right">(.*?)</span>.*?([\d.]+%)</div>', shown)
    return dict(found)


def test_the_classify_box_shows_the_probabilities_and_follows_picture_and_labels(nano, emoji):
    chooser, box, shown = mh.widgets.classify_box(nano, emoji, labels="a cat, a dog").children
    assert [index for _, index in chooser.options] == list(range(len(emoji)))
    assert all(c in name for c, (name, _) in zip(emoji.captions, chooser.options, strict=True))
    seen = set()
    for index, labels in ((0, "a cat, a dog"), (3, "a cat, a dog"), (3, "red ,, green,blue")):
        chooser.value, box.value = index, labels
        wanted = [label.strip() for label in labels.split(",") if label.strip()]
        shares = mh.zero_shot(nano, [emoji[index][0]], wanted)[0].tolist()
        assert shares_in(shown.value) == {
            label: f"{share:.1%}" for label, share in zip(wanted, shares, strict=True)
        }
        [picture] = pictures_in(shown.value)
        assert picture.convert("RGB").tobytes() == emoji[index][0].tobytes()
        seen.add(shown.value)
    assert len(seen) == 3


@pytest.mark.parametrize("labels", ["", "a cat", " , a cat,"])
def test_the_classify_box_asks_for_two_labels(nano, emoji, labels):
    _, box, shown = mh.widgets.classify_box(nano, emoji).children
    box.value = labels
    assert "Give two labels or more" in shown.value
    assert shares_in(shown.value) == {}
    assert len(pictures_in(shown.value)) == 1


def test_the_classify_box_escapes_labels(nano, hostile):
    _, box, shown = mh.widgets.classify_box(nano, hostile).children
    box.value = "<script>x</script>, b"
    assert "<script>" not in shown.value
    assert "<script>x</script>" in words(xml(f"<div>{shown.value}</div>"))


def test_widgets_leave_the_pictures_of_the_dataset_as_they_were(nano):
    large = Image.effect_noise((500, 300), 50).convert("RGB")
    before = large.tobytes()
    pairs = [data.Pair(name, (name,), name, lambda: large) for name in "ab"]
    _, shown = mh.widgets.search_box(nano, mh.PictureDataset(pairs), query="a").children
    assert all(max(picture.size) <= 128 for picture in pictures_in(shown.value))
    assert large.tobytes() == before


def test_answers_count_every_caption_of_a_picture(emoji):
    first, second = emoji.pairs[:2]
    first = dataclasses.replace(first, captions=("one", "another"))
    found = {"model": torch.tensor([[0.1, 0.9, 0.5], [0.9, 0.5, 0.1]])}
    chart = draw.answers(mh.PictureDataset([first, second]), [0, 1], found, top=1)
    said = [text.get_text() for text in chart.axes[0].texts]
    assert "✓ another" in said
    assert "3." in said, "two captions of another picture come before the second's own"


def test_answers_rank_what_is_not_a_number_as_wrong(emoji):
    nan = float("nan")
    found = {
        "good": torch.tensor([[nan, 0.9, 0.5], [0.1, 0.9, 0.5]]),
        "wrong": torch.tensor([[0.9, nan, 0.5], [0.1, 0.9, 0.5]]),
        "all": torch.full((2, 3), nan),
    }
    for name, rank in (("good", "3."), ("wrong", "2."), ("all", "3.")):
        chart = draw.answers(emoji.subset(range(3)), [0], {name: found[name]}, top=1)
        said = [text.get_text() for text in chart.axes[0].texts]
        assert rank in said
        if name == "good":
            assert not any(text.startswith("✓") for text in said), "NaN is no answer"


def test_any_object_with_the_parts_of_a_clip_will_do_for_a_search(emoji):
    """The widget needs no more of a model than Clip promises: a person may bring another one."""
    n, pieces = len(emoji), iter(range(10**6))
    clip = SimpleNamespace(
        model=torch.nn.Identity(),
        name="toy",
        encode_images=lambda images: torch.eye(n)[[next(pieces) for _ in images]],
        encode_texts=lambda texts: torch.eye(n)[[7]],
        unknown_tokens=lambda text: [],
    )
    _, shown = mh.widgets.search_box(clip, emoji, query="anything", top=1).children
    assert captions_in(shown.value) == [emoji.captions[7]]
