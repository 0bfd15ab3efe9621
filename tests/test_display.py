"""Tables, HTML, SVG and charts, as a notebook shows them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import matplotlib.pyplot as plt
import pytest
from IPython.core.formatters import DisplayFormatter
from shown import HOSTILE, png, xml

from mclip_helpers.display import (
    Chart,
    Drawable,
    Html,
    ShownAsPicture,
    Svg,
    Table,
    html_text,
    picture_of,
    readable,
)
from mclip_helpers.gradient import Verdict


class Thing(ShownAsPicture):
    """Something with a picture."""

    def __init__(self, picture: Chart | Svg | Html) -> None:
        self.picture = picture

    def __repr__(self) -> str:
        return "a thing"


@picture_of.register
def _(thing: Thing, border: int = 0) -> Chart | Svg | Html:
    if border:
        return Html(f"<p>{border}</p>", "")
    return thing.picture


def shown_by_ipython(value: object) -> dict[str, str | bytes]:
    """By MIME type, what IPython offers a notebook for the value of a cell."""
    bundle, _ = DisplayFormatter().format(value)
    return bundle


def chart_with_a_line() -> Chart:
    chart = Chart(figsize=(2, 1))
    chart.subplots().plot([1, 2], [3, 4])
    return chart


PICTURES = {
    "image/png": chart_with_a_line(),
    "image/svg+xml": Svg('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="4"><g/></svg>'),
    "text/html": Html("<p>here</p>", "elsewhere"),
}


# ------------------------------------------------------------------------------------ readable text


def test_what_no_page_may_hold_is_replaced_and_lines_stay():
    assert readable("a\0b\x1b[31m\ud800\uffff") == "a�b�[31m��"
    assert readable("one\n\ttwo\r\n") == "one\n\ttwo\r\n"
    assert readable("가 🐈 é") == "가 🐈 é"
    assert readable(None) == "None"


def test_a_long_text_is_cut():
    assert readable("abcdef", 4) == "abc…"
    assert len(readable("m" * 10**6)) == 1_000


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("a \u202eb", "\u202c"),
        ("a \u202eb\u202c", ""),
        ("\u2067a \u202bb", "\u202c\u2069"),
        ("\u2067a \u202bb\u2069", ""),
        ("\u202ba\u2069", "\u202c"),
        ("a\u202c\u2069", ""),
    ],
)
def test_a_change_of_direction_ends_with_the_text_that_began_it(text: str, ends: str):
    assert readable(text) == text + ends


def test_text_in_html_is_readable_and_escaped():
    assert html_text("<b>\0'\"&") == "&lt;b&gt;�&#x27;&quot;&amp;"


# ---------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_has_one_form_for_a_notebook_and_one_for_elsewhere(kind: str):
    assert shown_by_ipython(PICTURES[kind]).keys() == {kind, "text/plain"}


@pytest.mark.parametrize("kind", PICTURES)
def test_what_is_shown_as_its_picture_offers_what_the_picture_offers(kind: str):
    picture = PICTURES[kind]
    bundle = shown_by_ipython(Thing(picture))
    assert bundle == shown_by_ipython(picture) | {"text/plain": "a thing"}


def test_a_chart_is_shown_whole_with_what_stands_outside_its_edges_and_on_white():
    chart = chart_with_a_line()
    height = png(chart).height
    chart.text(0.5, 1.5, "above")
    picture = png(chart)
    assert picture.height > height + 20
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_a_chart_is_not_known_to_pyplot_which_would_show_it_again():
    before = plt.get_fignums()
    chart_with_a_line()
    assert plt.get_fignums() == before


def test_a_drawing_is_no_wider_than_the_page():
    drawing = PICTURES["image/svg+xml"]
    root = ET.fromstring(shown_by_ipython(drawing)["image/svg+xml"])
    assert root.get("style") == "max-width:100%;height:auto"
    assert (root.get("width"), root.get("height")) == ("8", "4")
    assert "style" not in drawing.source, "the source stays as it is"
    assert repr(drawing) == f"<Svg of {len(drawing.source)} characters>"


def test_html_is_its_text_where_there_is_no_browser():
    bundle = shown_by_ipython(PICTURES["text/html"])
    assert bundle == {"text/html": "<p>here</p>", "text/plain": "elsewhere"}


def test_plot_gives_the_picture_and_takes_the_arguments_of_its_function():
    picture = PICTURES["text/html"]
    assert Thing(picture).plot() is picture_of(Thing(picture)) is picture
    assert Thing(picture).plot(2).source == Thing(picture).plot(border=2).source == "<p>2</p>"


def test_a_subclass_has_the_picture_of_its_class():
    class Special(Thing):
        pass

    picture = PICTURES["text/html"]
    assert Special(picture).plot() is picture


def test_a_class_without_a_registered_function_has_no_picture():
    class Unknown(Drawable):
        pass

    for thing in (Unknown(), 3):
        with pytest.raises(TypeError, match=f"no picture of a {type(thing).__name__}"):
            picture_of(thing)
    with pytest.raises(TypeError, match="no picture of a Unknown"):
        Unknown().plot()


# ------------------------------------------------------------------------------------------ tables


def test_a_table_is_aligned_text_under_a_rule():
    table = Table(["name", "n"], [["a", 1], ["longer name", None]])
    lines = str(table).split("\n")
    assert repr(table) == str(table)
    assert lines == [
        "name         n",
        "───────────  ────",
        "a            1",
        "longer name  None",
    ]


def test_a_table_in_html_has_every_cell_escaped_and_in_its_place():
    table = Table(["a", HOSTILE], [["<script>x</script>", 1], [None, "가 & b"]])
    root = xml(table._repr_html_())
    assert root.tag == "table"
    assert [cell.text for cell in root.findall("thead/tr/th")] == ["a", HOSTILE]
    rows = [[cell.text for cell in row] for row in root.findall("tbody/tr")]
    assert rows == [["<script>x</script>", "1"], ["None", "가 & b"]]


def test_a_table_shows_each_cell_and_each_head_as_str_has_it():
    """Also where a `str` has another value than what is shown of it, as a verdict has."""
    table = Table([Verdict.ZERO], [[Verdict.ZERO]])
    head, _, row = str(table).split("\n")
    assert head == row == str(Verdict.ZERO)
    assert table._repr_html_().count(str(Verdict.ZERO)) == 2


def test_a_table_without_rows_shows_its_header():
    table = Table(["only", "these"], [])
    assert str(table).split("\n")[0].split() == ["only", "these"]
    assert [cell.text for cell in xml(table._repr_html_()).iter("th")] == ["only", "these"]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="row 1 of the table has 1 cells; its header has 2"):
        Table(["a", "b"], [["1"]])


def test_a_table_is_html_in_a_notebook_and_text_elsewhere():
    table = Table(["a"], [["b"]])
    bundle = {"text/html": table._repr_html_(), "text/plain": str(table)}
    assert shown_by_ipython(table) == bundle
