"""Pictures in rows, by matplotlib or by the browser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from shown import pictures_in, png, texts, xml

from mclip_helpers import draw
from mclip_helpers.draw.arguments import to_picture


def test_to_picture_gives_the_colours_of_a_tensor_and_clips_what_is_no_colour():
    tensor = torch.tensor([[0.0, 1.0], [0.999, 2.0], [-1.0, 0.6]])[:, None, :].requires_grad_()
    picture = to_picture(tensor)
    assert (picture.mode, picture.size) == ("RGB", (2, 1))
    assert [picture.getpixel((x, 0)) for x in (0, 1)] == [(0, 255, 0), (255, 255, 153)]


def test_to_picture_gives_a_picture_back_as_it_is():
    picture = Image.new("L", (2, 2))
    assert to_picture(picture) is picture


def test_pictures_of_a_dataset_stand_above_its_credit_and_under_their_captions(twemoji):
    chart = draw.pictures(twemoji, columns=4)
    said = texts(chart)
    assert [text for text in said if text in twemoji.captions] == twemoji.captions
    assert twemoji.credit in said
    drawn = [axes.images[0].get_array() for axes in chart.axes if axes.images]
    assert len(chart.axes) == 12
    assert len(drawn) == len(twemoji)
    assert all(np.array_equal(a, np.asarray(p)) for a, (p, _) in zip(drawn, twemoji, strict=True))


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
