"""Folders, Hugging Face datasets and shards of one's own, and what is wrong with them."""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import io
import json
import pickle
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import datasets
import pyarrow
import pytest
import webdataset
from conftest import partition
from huggingface_hub import constants as hub_constants
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

import mclip_helpers as mh
from mclip_helpers.data import sources
from mclip_helpers.data.images import digest, look, open_picture

PHOTOS = Path(__file__).parent.parent.parent.parent / "shared" / "photos"
SLOW_IS_FINE = settings(deadline=None)  # tests run on busy machines


# ---------------------------------------------------------------------------- a folder of one's own


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


def test_rows_with_the_same_file_are_one_picture_with_several_captions(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(sources, "open_picture", lambda p: opened.append(p) or open_picture(p))
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


def test_every_pair_knows_its_look_so_that_split_opens_nothing_again(tmp_path):
    save(tmp_path, "a.png")
    write_csv(tmp_path, ("a.png", "apple"))
    dataset = mh.folder_dataset(tmp_path)
    assert dataset.pairs[0].look == look(dataset[0][0])


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
            found[kind] = [(pair.name, pair.captions, pair.digest) for pair in dataset.pairs]
    assert found["csv"] == found["jsonl"]
    assert [caption for _, (caption,), _ in found["csv"]] == [c.strip() for c in captions]


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


# --------------------------------------------------------------------------- any kind of picture

KINDS = {
    "grey": (Image.new("L", (6, 4), 90), "png", {}),
    "RGBA": (Image.new("RGBA", (6, 4), (9, 9, 9, 99)), "png", {}),
    "CMYK": (Image.new("CMYK", (6, 4), (0, 99, 9, 0)), "jpeg", {}),
    "16 bits": (Image.new("I;16", (6, 4), 30000), "png", {}),
    "animated": (
        Image.new("RGB", (6, 4), "red"),
        "gif",
        {"save_all": True, "append_images": [Image.new("RGB", (6, 4), "blue")]},
    ),
    "turned": (Image.new("RGB", (4, 6), "green"), "jpeg", {"exif": b""}),
}


def encoded(kind: str) -> bytes:
    picture, file_format, options = KINDS[kind]
    if "exif" in options:
        exif = Image.Exif()
        exif[0x0112] = 6  # held upright: 4×6 is stored, 6×4 is shown
        options = {"exif": exif}
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def png(name: str) -> bytes:
    """The bytes of a small picture whose colour comes from its name."""
    buffer = io.BytesIO()
    colour = tuple(hashlib.sha256(name.encode()).digest()[:3])
    Image.new("RGB", (5, 4), colour).save(buffer, "png")
    return buffer.getvalue()


def from_folder(tmp_path: Path, pictures: dict[str, bytes]) -> mh.PictureDataset:
    for name, data in pictures.items():
        (tmp_path / f"{name}.png").write_bytes(data)  # Pillow goes by content, not by name
    write_csv(tmp_path, *((f"{name}.png", name) for name in pictures))
    return mh.folder_dataset(tmp_path)


def from_hub(tmp_path: Path, pictures: dict[str, bytes]) -> mh.PictureDataset:
    return mh.hub_dataset(table({"image": list(pictures.values()), "text": list(pictures)}))


def from_shard(tmp_path: Path, pictures: dict[str, bytes]) -> mh.PictureDataset:
    samples = [{"png": data, "txt": name} for name, data in pictures.items()]
    return mh.shard_dataset(write_shard(tmp_path / "a.tar", samples))


FROM = {"folder": from_folder, "hub": from_hub, "shard": from_shard}


@pytest.mark.parametrize("source", FROM)
def test_every_kind_of_picture_comes_from_every_source_as_open_picture_gives_it(tmp_path, source):
    pictures = {kind: encoded(kind) for kind in KINDS}
    dataset = FROM[source](tmp_path, pictures)
    assert dataset.captions == list(KINDS)
    for (picture, kind), pair in zip(dataset, dataset.pairs, strict=True):
        assert (picture.mode, picture.size) == ("RGB", (6, 4)), kind
        assert picture.tobytes() == open_picture(pictures[kind]).tobytes()
        assert (pair.digest, pair.look) == (digest(picture), look(picture))


@pytest.mark.parametrize("source", FROM)
def test_truncated_and_too_large_pictures_are_reported_from_every_source(
    tmp_path, source, monkeypatch
):
    noise, large = io.BytesIO(), io.BytesIO()
    Image.effect_noise((10, 9), 80).convert("RGB").save(noise, "png")
    Image.new("RGB", (25, 10)).save(large, "png")
    cut = noise.getvalue()[: len(noise.getvalue()) // 2]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(mh.DataError) as caught:
        FROM[source](tmp_path, {"good": png("a"), "cut": cut, "big": large.getvalue(), "": b"x"})
    where = {
        "folder": ("row 2: cut.png", "row 3: big.png", "row 4: .png", "row 4: .png"),
        "hub": ("row 1", "row 2", "row 3", "row 3"),
        "shard": tuple(f"a.tar, sample 00{n}" for n in "1233"),
    }[source]
    said = (
        "truncated|Truncated|broken",
        "too large",
        r"caption \(text\) is empty",
        "cannot identify",
    )
    problems = caught.value.problems
    assert len(problems) == 4, problems
    for problem, place, reason in zip(problems, where, said, strict=True):
        assert place in problem
        assert re.search(reason, problem), problem


@pytest.mark.parametrize("source", FROM)
def test_every_source_runs_through_split_batches_and_evaluation(tmp_path, source, nano):
    buffers = {f"number {i}": io.BytesIO() for i in range(40)}
    for buffer in buffers.values():
        Image.effect_noise((20, 20), 80).save(buffer, "png")
    dataset = FROM[source](tmp_path, {name: b.getvalue() for name, b in buffers.items()})
    assert pickle.loads(pickle.dumps(dataset))[7][0].tobytes() == dataset[7][0].tobytes()
    parts = mh.split(dataset, val=0.2, test=0.3)
    assert [len(part) for part in parts.values()] == [20, 8, 12]
    images, tokens = next(iter(mh.loader(parts["train"], nano, 4, shuffle=True)))
    assert (len(images), len(tokens)) == (4, 4)
    assert mh.evaluate(nano, parts["test"]).pictures == len(parts["test"])


# -------------------------------------------------------------------------- Hugging Face datasets


def table(columns: dict[str, list], image: str = "image") -> datasets.Dataset:
    """A dataset in memory, as the hub would give it: the column `image` holds pictures."""
    columns = {
        name: [{"bytes": cell, "path": None} if isinstance(cell, bytes) else cell for cell in cells]
        for name, cells in columns.items()
    }
    return datasets.Dataset.from_dict(columns).cast_column(image, datasets.Image())


def problems_in(source, **options) -> list[str]:
    with pytest.raises(mh.DataError) as caught:
        mh.hub_dataset(source, **options)
    return caught.value.problems


def test_a_hub_dataset_may_name_its_columns_as_it_likes_and_have_others():
    source = table({"id": [7, 8], "photo": [png("a"), png("b")], "said": [" x ", "y"]}, "photo")
    dataset = mh.hub_dataset(source, image="photo", text="said")
    assert dataset.captions == ["x", "y"]
    assert [picture.tobytes() for picture, _ in dataset] == [
        open_picture(png(name)).tobytes() for name in "ab"
    ]


def test_a_list_of_texts_is_several_captions_each_once():
    source = table({"image": [png("a"), png("b")], "text": [["x", "y", " x"], ["z"]]})
    dataset = mh.hub_dataset(source)
    assert [pair.captions for pair in dataset.pairs] == [("x", "y"), ("z",)]


def test_pictures_may_be_bytes_alone_or_files_on_the_disk(tmp_path):
    save(tmp_path, "a.png")
    path = str(tmp_path / "a.png")
    for source in (
        datasets.Dataset.from_dict({"image": [path], "text": ["x"]}),
        table({"image": [path], "text": ["x"]}),
        datasets.Dataset.from_dict({"image": [Path(path).read_bytes()], "text": ["x"]}),
    ):
        picture, _ = mh.hub_dataset(source)[0]
        assert picture.tobytes() == open_picture(Path(path)).tobytes()


def test_a_format_that_the_dataset_was_given_does_not_matter():
    source = table({"image": [png("a"), png("b")], "text": ["x", "y"]})
    assert mh.hub_dataset(source.with_format("numpy")).captions == ["x", "y"]
    assert mh.hub_dataset(source.with_transform(lambda rows: {})).captions == ["x", "y"]


def test_a_shuffled_or_selected_dataset_keeps_its_rows_together():
    source = table({"image": [png(n) for n in "abcd"], "text": list("abcd")})
    for picture, caption in mh.hub_dataset(source.select([3, 1])):
        assert picture.tobytes() == open_picture(png(caption)).tobytes()


def test_missing_columns_are_named_with_those_there_are():
    source = table({"photo": [png("a")], "caption": ["x"]}, "photo")
    assert problems_in(source) == ["column image and text missing (it has: photo, caption)"]
    assert problems_in(source, image="photo") == ["column text missing (it has: photo, caption)"]


def test_rows_with_other_things_than_pictures_and_texts_are_reported_by_number():
    source = table({"image": [png("a"), None, png("b")], "text": [["x"], ["y"], []]})
    assert problems_in(source) == [
        "row 1: not a readable picture (the cell is empty)",
        "row 2: the caption (text) is empty",
    ]
    numbers = table({"image": [png("a")], "text": [5]})
    assert problems_in(numbers) == ["row 0: the caption is 5, neither a text nor a list of texts"]
    [problem] = problems_in(datasets.Dataset.from_dict({"image": [1], "text": ["x"]}))
    assert "column image holds no pictures" in problem


def test_a_file_that_is_gone_is_reported_with_its_row():
    source = datasets.Dataset.from_dict({"image": ["/nowhere/a.png"], "text": ["x"]})
    assert problems_in(source) == ["row 0: there is no such file"]


def test_an_empty_dataset_is_refused():
    source = table({"image": [png("a")], "text": ["x"]}).select([])
    assert problems_in(source) == ["there is nothing in it"]


def test_a_name_on_the_hub_is_loaded_with_its_split(monkeypatch):
    asked = []
    source = table({"image": [png("a")], "text": ["x"]})
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, split: asked.append((name, split)) or source
    )
    assert mh.hub_dataset("owner/name", split="test").captions == ["x"]
    assert asked == [("owner/name", "test")]


def test_a_dataset_that_cannot_be_loaded_is_named_with_the_reason(monkeypatch):
    def refuse(name, split):
        raise ValueError("Unknown split 'train'. Should be one of ['test'].")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(mh.DataError, match=r"owner/name.*\n.*one of \['test'\]"):
        mh.hub_dataset("owner/name")


def test_all_splits_at_once_and_a_stream_are_refused_with_what_to_give_instead():
    source = table({"image": [png("a")], "text": ["x"]})
    with pytest.raises(TypeError, match=r"DatasetDict \(it has the splits train, test\)"):
        mh.hub_dataset(datasets.DatasetDict(train=source, test=source))
    with pytest.raises(TypeError, match="not streamed"):
        mh.hub_dataset(source.to_iterable_dataset())


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("datasets", lambda: mh.hub_dataset("owner/name")),
        ("datasets", lambda: mh.xm3600("ko")),
        ("webdataset", lambda: mh.shard_dataset("a.tar")),
    ],
)
def test_a_missing_package_says_how_to_install_it(package, call, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {package}"):
        call()


# ------------------------------------------------------------------------------------------ XM3600


def write_language(folder: Path, language: str) -> str:
    """A file as xm3600_1k has one for each language: its name and schema, with other pictures."""
    name = f"data/{language}-00000-of-00001.parquet"
    rows = {
        "image_id": ["i0", "i1"],
        "image_locale": ["ko", "en"],
        "captions": [[f"{language} a", f"{language} b"], [f"{language} c"]],
        "image": [{"bytes": png(n), "path": f"{n}.jpg"} for n in "ab"],
    }
    (folder / "data").mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(rows), folder / name)
    return name


@pytest.fixture
def hub(tmp_path, monkeypatch) -> list[str]:
    """A stand-in for the hub with xm3600_1k on it; gives the list of the files it was asked for."""
    downloaded = []
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")

    def snapshot_download(repo_id: str, *, repo_type: str, allow_patterns: str) -> str:
        assert (repo_id, repo_type) == ("floschne/xm3600_1k", "dataset")
        files = {f"data/{lang}-00000-of-00001.parquet": lang for lang in ("en", "fi", "fil", "ko")}
        for name in fnmatch.filter([*files, "README.md"], allow_patterns):
            downloaded.append(write_language(tmp_path, files[name]))
        return str(tmp_path)

    monkeypatch.setattr(sources, "snapshot_download", snapshot_download)
    return downloaded


@pytest.mark.parametrize("language", ["en", "ko", "fi"])
def test_xm3600_loads_the_file_of_one_language_and_no_other(hub, language):
    dataset = mh.xm3600(language)
    assert hub == [f"data/{language}-00000-of-00001.parquet"]
    assert [pair.captions for pair in dataset.pairs] == [
        (f"{language} a", f"{language} b"),
        (f"{language} c",),
    ]
    assert dataset[0][0].tobytes() == open_picture(png("a")).tobytes()
    for part in ("Crossmodal-3600", "Thapliyal et al. 2022", "Open Images", "CC-BY 4.0"):
        assert part in dataset.credit


def test_an_unknown_language_is_refused_before_anything_is_loaded(hub):
    with pytest.raises(ValueError, match=r"'kr' is not one of ar, .*ko, .*zh"):
        mh.xm3600("kr")
    assert hub == []
    assert len(sources.XM3600_LANGUAGES) == len(set(sources.XM3600_LANGUAGES)) == 36


def test_a_language_without_a_file_is_named(hub):
    with pytest.raises(mh.DataError, match=r"no file data/sw-\*\.parquet"):
        mh.xm3600("sw")


def test_a_language_that_is_in_the_cache_needs_no_network(monkeypatch, tmp_path):
    """The real download, offline, with a cache as it leaves one behind."""
    repo, commit = tmp_path / "hub/datasets--floschne--xm3600_1k", "0" * 40
    write_language(repo / "snapshots" / commit, "ko")
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(commit)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert mh.xm3600("ko").all_captions == ["ko a", "ko b", "ko c"]
    with pytest.raises(mh.DataError, match=r"data/en-\*\.parquet"):
        mh.xm3600("en")


def test_a_hub_that_is_not_reached_is_named_with_the_reason(monkeypatch, tmp_path):
    """The real download, offline, with an empty cache."""
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(mh.DataError, match=r"data/ko-\*\.parquet can't be loaded") as caught:
        mh.xm3600("ko")
    assert "floschne/xm3600_1k" in str(caught.value)


# ------------------------------------------------------------------------------------------ shards


def write_shard(path: Path, samples: list[dict], keys: list[str] | None = None) -> Path:
    keys = keys or [f"{i:03}" for i in range(len(samples))]
    with webdataset.TarWriter(str(path)) as writer:
        for key, sample in zip(keys, samples, strict=True):
            writer.write({"__key__": key, **sample})
    return path


def shard_problems(shards) -> list[str]:
    with pytest.raises(mh.DataError) as caught:
        mh.shard_dataset(shards)
    return caught.value.problems


def two_shards(folder: Path) -> list[Path]:
    return [
        write_shard(
            folder / f"s-{i}.tar", [{"png": png(f"{i}{n}"), "txt": f"{i}{n}"} for n in "ab"]
        )
        for i in range(2)
    ]


def test_shards_are_a_path_a_list_or_a_pattern_with_braces(tmp_path):
    paths = two_shards(tmp_path)
    every = ["0a", "0b", "1a", "1b"]
    for shards in (
        str(tmp_path / "s-{0..1}.tar"),
        paths,
        [str(paths[0]), tmp_path / "s-{1..1}.tar"],
    ):
        assert mh.shard_dataset(shards).captions == every
    one = mh.shard_dataset(paths[1])
    assert one.captions == every[2:]
    assert [pair.name for pair in one.pairs] == ["s-1.tar/000", "s-1.tar/001"]


@pytest.mark.parametrize(
    ("files", "captions"),
    [
        ({"txt": " an apple \n"}, ("an apple",)),
        ({"caption": b"an apple", "json": {"caption": "other"}}, ("an apple",)),
        ({"json": {"caption": "an apple", "text": "other"}}, ("an apple",)),
        ({"json": {"text": "an apple", "url": "x"}}, ("an apple",)),
        ({"json": {"caption": ["an apple", "fruit"]}}, ("an apple", "fruit")),
        ({"txt": "사과", "json": b"not JSON, and not needed"}, ("사과",)),
    ],
)
def test_the_caption_of_a_sample_is_in_a_text_file_or_in_its_json(tmp_path, files, captions):
    shard = write_shard(tmp_path / "a.tar", [{"jpg": png("a"), **files}])
    assert [pair.captions for pair in mh.shard_dataset(shard).pairs] == [captions]


def test_the_endings_of_pictures_and_captions_may_be_others(tmp_path):
    shard = write_shard(tmp_path / "a.tar", [{"photo.png": png("a"), "ko": "사과".encode()}])
    assert mh.shard_dataset(shard, image=["photo.png"], text=["ko"]).captions == ["사과"]


def test_bad_samples_are_reported_by_shard_and_name(tmp_path):
    samples = [
        {"txt": "no picture"},
        {"png": png("a")},
        {"png": png("b"), "json": b"{"},
        {"png": png("c"), "txt": b"\xff\xfe"},
        {"png": png("d"), "json": {"caption": 5}},
        {"png": b"nothing", "txt": "x"},
    ]
    problems = shard_problems(
        write_shard(tmp_path / "a.tar", samples, [f"k/{n}" for n in "uvwxyz"])
    )
    said = {
        "u": r"no picture \(it has txt; a picture would be one of jpg",
        "v": r"the caption \(text\) is empty",
        "w": "the caption can't be read",
        "x": "the caption can't be read",
        "y": "the caption is 5, neither",
        "z": "not a readable picture",
    }
    assert len(problems) == len(said)
    for problem, (key, reason) in zip(problems, said.items(), strict=True):
        assert re.search(f"^a.tar, sample k/{key}: {reason}", problem), problem


@pytest.mark.parametrize("content", [b"[1]", b'"a caption"'])
def test_json_that_is_no_object_is_reported(tmp_path, content):
    shard = write_shard(tmp_path / "a.tar", [{"png": png("a"), "json": content}])
    [problem] = shard_problems(shard)
    assert "sample 000: the caption can't be read" in problem


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_a_truncated_shard_is_reported_by_name_and_the_others_are_read_on(tmp_path, name, cut):
    noise = Image.effect_noise((40, 40), 80)
    buffer = io.BytesIO()
    noise.save(buffer, "png")
    samples = [{"png": buffer.getvalue(), "txt": str(i)} for i in range(20)]
    shard = write_shard(tmp_path / name, samples)
    whole = shard.read_bytes()
    assert len(mh.shard_dataset(shard)) == 20
    shard.write_bytes(whole[: int(cut * len(whole))])
    bad = write_shard(tmp_path / "b.tar", [{"png": png("a")}])
    problems = shard_problems([shard, bad])
    assert len(problems) == 2
    assert problems[0].startswith(f"{shard}: not a readable shard (")
    assert problems[1].startswith("b.tar, sample 000")


def test_a_shard_that_ends_between_two_files_is_truncated_too(tmp_path):
    shard = two_shards(tmp_path)[0]
    with tarfile.open(shard) as archive:
        ends = [member.offset for member in archive.getmembers()][1:]
    whole = shard.read_bytes()
    for end in ends:
        shard.write_bytes(whole[:end])
        assert "end mark" in shard_problems(shard)[0]


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    shard = two_shards(tmp_path)[0]
    with tarfile.open(shard) as archive:
        third = archive.getmembers()[2].offset
    damaged = bytearray(shard.read_bytes())
    damaged[third : third + 100] = b"\xaa" * 100
    shard.write_bytes(damaged)
    assert "end mark after 2 files" in shard_problems(shard)[0]


def test_what_is_no_shard_is_reported(tmp_path):
    (tmp_path / "text.tar").write_text("not a tar file\n" * 100)
    (tmp_path / "empty.tar").touch()
    (tmp_path / "folder.tar").mkdir()
    names = ("text", "empty", "folder", "gone")
    problems = shard_problems([tmp_path / f"{name}.tar" for name in names])
    assert len(problems) == 4
    for problem, name in zip(problems, names, strict=True):
        assert f"{name}.tar: " in problem
        assert "\n" not in problem
    assert problems[3].endswith("there is no such file")


def test_a_shard_without_samples_is_refused(tmp_path):
    assert shard_problems(write_shard(tmp_path / "a.tar", [])) == ["there is nothing in it"]


def test_a_name_that_is_a_command_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [problem] = shard_problems("pipe:touch ran.tar")
    assert "no such file" in problem
    assert list(tmp_path.iterdir()) == []
