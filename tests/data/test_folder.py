"""A folder of one's own pictures, and every problem that its metadata can have."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from conftest import partition
from fake_sources import record, save, write_csv, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

import mclip_helpers as mh
from mclip_helpers import progress_bar
from mclip_helpers.data import folder as folder_module
from mclip_helpers.data.duplicates import perceptual_hash
from mclip_helpers.data.images import open_picture

PHOTOS = Path(__file__).parent.parent.parent.parent / "shared" / "photos"
SLOW_IS_FINE = settings(deadline=None)  # tests run on busy machines


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


def test_rows_with_the_same_file_are_one_picture_with_several_captions(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(
        folder_module, "open_picture", lambda p: opened.append(p) or open_picture(p)
    )
    save(tmp_path, "a.png", "b.png")
    rows = [("a.png", "apple"), ("b.png", "pear"), ("./a.png", "a red fruit"), ("a.png", "apple ")]
    write_csv(tmp_path, *rows)
    dataset = mh.folder_dataset(tmp_path)
    assert [pair.captions for pair in dataset.pairs] == [("apple", "a red fruit"), ("pear",)]
    assert dataset.captions == ["apple", "pear"]
    assert dataset[0, 1][1] == "a red fruit"
    assert len(opened) == 2 + 1, "each file is opened once, and again for dataset[0, 1]"


def test_a_later_row_of_the_same_file_is_reported_by_its_own_number(tmp_path):
    save(tmp_path, "a.png")
    write_csv(tmp_path, ("a.png", "apple"), ("a.png", " "))
    assert problems_of(tmp_path) == ["metadata.csv, row 2: a.png: the caption (text) is empty"]


def test_a_line_of_jsonl_may_hold_a_list_of_captions(tmp_path):
    save(tmp_path, "a.png", "b.png")
    lists = [{"file_name": "a.png", "text": ["apple", " fruit ", "apple"]}, record("b.png", "pear")]
    write_jsonl(tmp_path, *lists)
    dataset = mh.folder_dataset(tmp_path)
    assert [pair.captions for pair in dataset.pairs] == [("apple", "fruit"), ("pear",)]


def test_the_same_file_under_two_names_is_two_pairs_of_one_group(tmp_path):
    save(tmp_path, "a.png", "c.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    write_csv(tmp_path, ("a.png", "apple"), ("b.png", "fruit"), ("c.png", "pear"))
    assert partition(mh.folder_dataset(tmp_path).groups) == {frozenset({0, 1}), frozenset({2})}


def test_a_picture_beyond_pillows_limit_is_reported_with_its_row_and_size(tmp_path, monkeypatch):
    save(tmp_path, "a.png")
    Image.new("RGB", (25, 10)).save(tmp_path / "large.png")
    write_csv(tmp_path, ("a.png", "apple"), ("large.png", "pear"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    [problem] = problems_of(tmp_path)
    assert re.search(r"row 2: large\.png: .*too large: .*250 pixels", problem)


def test_every_pair_has_its_perceptual_hash_so_that_split_opens_nothing_again(tmp_path):
    save(tmp_path, "a.png")
    write_csv(tmp_path, ("a.png", "apple"))
    dataset = mh.folder_dataset(tmp_path)
    assert dataset.pairs[0].perceptual_hash == perceptual_hash(dataset[0][0])


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


# The x is visible whatever stands around it.
CAPTIONS = st.text(st.characters(exclude_categories=("Cs", "Cc"))).map(lambda t: f"{t}x{t}")


@SLOW_IS_FINE
@given(st.lists(CAPTIONS, min_size=1, max_size=5), st.booleans())
def test_csv_and_jsonl_give_the_same_dataset(captions, bom):
    captions = [*captions, "line\u2028separator", 'quote " comma , brace }']
    with tempfile.TemporaryDirectory() as temporary:
        datasets = {}
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
            datasets[kind] = [(pair.name, pair.captions, pair.digest) for pair in dataset.pairs]
    assert datasets["csv"] == datasets["jsonl"]
    assert [caption for _, (caption,), _ in datasets["csv"]] == [c.strip() for c in captions]


# Pieces of metadata, good and bad, in any order: what comes of them is a dataset or a DataError.
PIECES = (
    *("file_name", "text", "a.png", "apple", ",", ";", '"', "\n", "\r", "{", "}", "[", "]", ":"),
    *('{"file_name": "a.png", "text": "apple"}', "file_name,text\n", "a.png,apple\n", "\ufeff"),
    *("\0", "\u200b", "..", "/", "\\", "nan", "7", "null", "<", "PK\x03\x04", "\x1b[2J"),
)


@SLOW_IS_FINE
@given(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join).map(str.encode) | st.binary(),
    st.sampled_from(["csv", "jsonl"]),
)
def test_metadata_of_any_bytes_gives_a_dataset_or_a_data_error(data, suffix):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(folder, "a.png")
        (folder / f"metadata.{suffix}").write_bytes(data)
        try:
            dataset = mh.folder_dataset(folder)
        except mh.DataError as error:
            assert all(line.isprintable() for line in str(error).split("\n"))
        else:
            assert [pair.name.strip("./\\") for pair in dataset.pairs] == ["a.png"]


def test_line_ends_of_windows_change_nothing(tmp_path):
    save(tmp_path, "a.png", "b.png")
    lines = [json.dumps(record(name, name[0])) for name in ("a.png", "b.png")]
    (tmp_path / "metadata.jsonl").write_bytes("\r\n".join(lines).encode())
    assert mh.folder_dataset(tmp_path).captions == ["a", "b"]


def test_a_file_that_changes_is_a_data_error_in_a_worker_of_the_loader_too(tmp_path):
    save(tmp_path, "a.png")
    write_csv(tmp_path, ("a.png", "apple"))
    batches = DataLoader(mh.folder_dataset(tmp_path), collate_fn=list, num_workers=1)
    (tmp_path / "a.png").unlink()
    with pytest.raises(mh.DataError, match=r"a\.png was removed since it was read"):
        next(iter(batches))


def test_a_long_scan_shows_how_far_it_is_and_stops_with_ctrl_c(tmp_path, monkeypatch, capsys):
    save(tmp_path, "a.png", "b.png")
    write_csv(tmp_path, ("a.png", "apple"), ("b.png", "pear"))
    monkeypatch.setattr(progress_bar, "QUIET", 0)
    mh.folder_dataset(tmp_path)
    assert "Reading pictures" in capsys.readouterr().out

    def interrupted(path: Path) -> Image.Image:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_module, "open_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mh.folder_dataset(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_what_may_not_be_read_is_named(tmp_path):
    save(tmp_path, "a.png", "sub/b.png")
    write_csv(tmp_path, ("a.png", "apple"), ("sub/b.png", "pear"))
    (tmp_path / "a.png").chmod(0)
    (tmp_path / "sub").chmod(0)
    try:
        first, second, third = problems_of(tmp_path)
    finally:
        (tmp_path / "sub").chmod(0o700)
    assert re.search(r"^sub: this folder can't be read \(Permission denied\)", first)
    assert re.search(r"row 1: a\.png: .*Permission denied", second)
    assert re.search(r"row 2: sub/b\.png: .*Permission denied", third)


# Each: the rows of the metadata (of the good picture "ok.png" there is always one, the first), and
# what the one problem must say.
PROBLEMS_IN_ROWS = {
    "missing file": (("gone.png", "x"), r"row 2: gone\.png: there is no such file"),
    "truncated picture": (("cut.jpg", "x"), r"row 2: cut\.jpg: not a readable picture"),
    "text called a picture": (("fake.png", "x"), r"row 2: fake\.png: not a readable picture"),
    "empty file": (("empty.png", "x"), r"row 2: empty\.png: not a readable picture"),
    "folder called a picture": (
        ("sub", "x"),
        r"row 2: sub: not a readable picture \(it is a folder",
    ),
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
    row, pattern = PROBLEMS_IN_ROWS[kind]
    save(tmp_path, "ok.png")
    spoil(tmp_path, row[0])
    write_csv(tmp_path, ("ok.png", "fine"), row)
    [problem] = problems_of(tmp_path)
    assert re.search(f"^metadata\\.csv, {pattern}", problem), problem


def test_everything_that_is_wrong_is_reported_at_once(tmp_path):
    rows, patterns = zip(*PROBLEMS_IN_ROWS.values(), strict=True)
    save(tmp_path, "ok.png", "sub/forgotten.jpeg")
    for row in rows:
        spoil(tmp_path, row[0])
    write_csv(tmp_path, *rows, ("ok.png", "fine"))
    expected = [s.replace("row 2", f"row {i}") for i, s in enumerate(patterns, start=1)]
    expected.append(r"^sub/forgotten\.jpeg: this picture has no row in metadata\.csv")
    problems = [problem.replace("\\", "/") for problem in problems_of(tmp_path)]
    assert len(problems) == len(expected)
    for problem, pattern in zip(problems, expected, strict=True):
        assert re.search(pattern, problem)


def test_one_row_with_two_faults_is_reported_with_both(tmp_path):
    write_csv(tmp_path, ("gone.png", ""))
    assert len(problems_of(tmp_path)) == 2


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ('{"file_name": "ok.png", "text": ', "row 2: not valid JSON"),
        ('{"file_name": "ok.png"}', "row 2: text missing"),
        ('{"text": "x"}', "row 2: file_name missing"),
        ('["ok.png", "x"]', "row 2: file_name and text missing"),
        ('{"file_name": "ok.png", "text": null}', r"row 2: ok\.png: the caption \(text\) is empty"),
        ('{"file_name": 7, "text": "x"}', "row 2: file_name is 7, which is no text"),
    ],
)
def test_a_bad_line_of_jsonl_is_the_one_problem_with_its_row(tmp_path, line, pattern):
    save(tmp_path, "ok.png")
    write_jsonl(tmp_path, record("ok.png", "fine"), line, "", record("ok.png", "fine again"))
    [problem] = problems_of(tmp_path)
    assert re.search(rf"^metadata\.jsonl, {pattern}", problem), problem


@pytest.mark.parametrize(
    ("header", "pattern"),
    [
        (("file_name", "caption"), r"column text missing \(it has: file_name, caption\)"),
        (("image", "caption"), r"column file_name and text missing \(it has: image, caption\)"),
    ],
)
def test_a_missing_column_is_the_one_problem_and_the_columns_there_are_named(
    tmp_path, header, pattern
):
    save(tmp_path, "a.png")
    write_csv(tmp_path, ("a.png", "apple"), header=header)
    [problem] = problems_of(tmp_path)
    assert re.search(pattern, problem)


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("metadata.csv", "", "it has: nothing"),
        ("metadata.csv", "file_name,text\n", r"metadata\.csv: it has no rows"),
        ("metadata.jsonl", "", r"metadata\.jsonl: it has no rows"),
        ("metadata.jsonl", "\n \n", r"metadata\.jsonl: it has no rows"),
    ],
)
def test_empty_metadata_is_the_one_problem(tmp_path, name, content, pattern):
    save(tmp_path, "a.png", "b.png")
    (tmp_path / name).write_text(content)
    [problem] = problems_of(tmp_path)
    assert re.search(pattern, problem)


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
