"""The page's tokenizer gives the ids of open_clip's."""

from __future__ import annotations

import pytest
from browser import Browser

import mclip_helpers as mh

CAPTIONS = [
    "a photo of a cat",
    "  Several\tkinds\n of   white\u00a0space\u2003here  ",
    "UPPER and lower, ÀÉÎÕÜ, İstanbul, ΣΑΣ, straße",
    "it's we're I've he'd they'll I'm don't O'Neill'S 'tis",
    "it’s “curly” ‘quotes’ „low“",
    "3 cats, 42 dogs, 1,000.50 €; ½ ² ① ٣ Ⅷ",
    "🦊 👩‍🚀 🏳️‍🌈 ❤️‍🔥 👍🏽 🇰🇷 ‼️",
    "café cafe\u0301 naïve e\u0323\u0301 한국어 ภาษาไทย 日本語 العربية हिन्दी",
    "&lt;b&gt; &amp;amp; &eacute; &#233; &#x1F600; &copy 2024 &notit; &nbsp;x &amp;lt;",
    "a <b>tag</b> & an ampersand",
    "<start_of_text> inside <end_of_text>",
    "snake_case and-hyphens...!?!?((([[{{ ~~~ @@ #hashtag http://example.org/?q=1",
    "ﬁne ﬂuent oﬃce Ａｂｃ　１２３ ｶﾀｶﾅ",
    "zero\u200bwidth, soft\u00adhyphen, bom\ufeff, control\x07bell",
    "supercalifragilisticexpialidocious antidisestablishmentarianism aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "one two three four five six seven eight nine ten " * 4,
    "🤖" * 30,
    "''' '' ' 's 'S 'ſ",
    "K Å ſ ᾳ Ⓐ ŉ Ĳ",
    "",
    " ",
    "constructor __proto__ toString",
]


def page_tokens(page: Browser, texts: list[str]) -> list[list[int]]:
    flat = page.run("return [...model.tokenizer.batch(texts)]", texts=texts)
    width = len(flat) // len(texts)
    return [flat[at : at + width] for at in range(0, len(flat), width)]


@pytest.mark.parametrize("caption", CAPTIONS)
def test_tokens(page: Browser, caption: str) -> None:
    expected = mh.load_model("nano", device="cpu").tokenizer([caption]).tolist()
    assert page_tokens(page, [caption]) == expected


def test_tokens_of_all_names(page: Browser) -> None:
    names = [name for emoji in mh.emoji_catalogue() for name in (emoji.en, emoji.ko, emoji.char)]
    expected = mh.load_model("nano", device="cpu").tokenizer(names).tolist()
    assert page_tokens(page, names) == expected


def test_wrongly_decoded_text_is_not_repaired(page: Browser) -> None:
    """What the page says of itself: ftfy makes “café” of this, and the page does not."""
    expected = mh.load_model("nano", device="cpu").tokenizer(["cafÃ©"]).tolist()
    assert page_tokens(page, ["café"]) == expected
    assert page_tokens(page, ["cafÃ©"]) != expected
