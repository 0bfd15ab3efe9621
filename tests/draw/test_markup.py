"""Pictures and captions as HTML."""

from __future__ import annotations

import pytest
from PIL import Image
from shown import HOSTILE, pictures_in, words, xml

from mclip_helpers.draw.markup import cards, image_tag, small_print


def test_an_image_tag_holds_the_whole_picture_at_most_twice_as_large_as_it_is_shown():
    wide = Image.new("RGB", (400, 100), "red")
    [picture] = pictures_in(image_tag(wide, 50))
    assert picture.size == (100, 25)
    assert wide.size == (400, 100), "the picture itself stays as it is"
    [picture] = pictures_in(image_tag(Image.new("RGB", (8, 8)), 50))
    assert picture.size == (8, 8)


def test_cards_show_each_picture_with_its_head_and_caption_escaped():
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    root = xml(cards(images, [HOSTILE, "b"], ["<0.50>", "0.25"]))
    assert [words(card) for card in root] == [f"<0.50>{HOSTILE}", "0.25b"]
    assert [card.findtext("b") for card in root] == ["<0.50>", "0.25"]
    colours = [picture.getpixel((0, 0)) for picture in pictures_in(cards(images, ["a", "b"]))]
    assert colours == [(255, 0, 0), (0, 0, 255)]


def test_cards_want_a_caption_for_each_picture():
    with pytest.raises(ValueError):
        cards([Image.new("RGB", (8, 8))], [])


def test_small_print_is_escaped_and_nothing_where_there_is_nothing_to_say():
    assert words(xml(small_print(HOSTILE))) == HOSTILE
    assert small_print("") == ""
