"""What all three sources of one's own pictures have in common."""

from __future__ import annotations

import functools
import io
import pickle
import re
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from fake_sources import png, table, write_csv, write_shard
from PIL import Image

import mclip_helpers as mh
from mclip_helpers.data.duplicates import perceptual_hash
from mclip_helpers.data.images import digest, open_picture
from mclip_helpers.data.reader import AHEAD, THREADS, Entry, Reader, missing_columns
from mclip_helpers.packages import optional_package

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
        assert (pair.digest, pair.perceptual_hash) == (digest(picture), perceptual_hash(picture))


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
    reasons = (
        "truncated|Truncated|broken",
        "too large",
        r"caption \(text\) is empty",
        "what it holds is text",
    )
    problems = caught.value.problems
    assert len(problems) == 4, problems
    for problem, place, reason in zip(problems, where, reasons, strict=True):
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


def test_a_package_that_lacks_one_of_its_own_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_source.py").write_text("import gone_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        optional_package("broken_source")
    assert caught.value.name == "gone_dependency"
    assert "pip install" not in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        (" an apple\n", ("an apple",)),
        (["apple", " apple ", "", None, "fruit"], ("apple", "fruit")),
        ("  ", ()),
        (None, ()),
        ([], ()),
        ([None, " "], ()),
        (5, ()),
        (["apple", 5], ()),
    ],
)
def test_a_cell_gives_its_captions_or_one_problem_with_its_place(cell, captions):
    reader = Reader("here")
    assert reader.captions("row 7", cell) == captions
    assert len(reader.problems) == (0 if captions else 1)
    assert all(problem.startswith("row 7: the caption ") for problem in reader.problems)


def test_missing_columns_are_named_with_those_present():
    assert missing_columns(["a", "b"], ["b", "c", "a"]) is None
    assert missing_columns(["a", "b", "c"], ["b"]) == "column a and c missing (it has: b)"
    assert missing_columns(["a"], []) == "column a missing (it has: nothing)"


def test_problems_come_in_the_order_of_the_rows_although_pictures_are_opened_ahead(tmp_path):
    rows = [("slow.png", "nan")]
    noise = Image.effect_noise((1500, 1500), 90)
    noise.save(tmp_path / "slow.png")
    (tmp_path / "slow.png").write_bytes((tmp_path / "slow.png").read_bytes()[:-200_000])
    for i in range(60):
        rows += [(f"{i}.png", "x"), (f"gone{i}.png", "x"), (f"{i}.png", "nan")]
        (tmp_path / f"{i}.png").write_bytes(b"no picture")
    write_csv(tmp_path, *rows)
    with pytest.raises(mh.DataError) as caught:
        mh.folder_dataset(tmp_path)
    said = [problem.partition("row ")[2] for problem in caught.value.problems]
    numbers = [int(problem.partition(":")[0]) for problem in said]
    assert len(said) == 2 + 3 * 60
    assert said[0].startswith("1: slow.png: the caption")
    assert said[1].startswith("1: slow.png: not a readable picture")
    assert numbers == sorted(numbers)


def test_pictures_are_opened_by_several_threads_and_by_no_more_than_that(tmp_path):
    opened, most, lock = [0], [0], threading.Lock()

    def load() -> Image.Image:
        with lock:
            opened[0] += 1
            most[0] = max(most[0], opened[0])
        time.sleep(0.01)
        with lock:
            opened[0] -= 1
        return Image.new("RGB", (4, 4))

    reader = Reader("here")
    entries = (Entry(str(i), str(i), f"caption {i}", load) for i in range(50))
    names = [pair.name for pair in reader.pairs(entries)]
    assert names == [str(i) for i in range(50)]
    assert 1 < most[0] <= THREADS


def test_a_source_is_read_only_a_little_ahead(tmp_path):
    taken = []

    def entries():
        for i in range(1_000):
            taken.append(i)
            yield Entry(str(i), str(i), "x", lambda: Image.new("RGB", (4, 4)))

    pairs = Reader("here").pairs(entries())
    next(pairs)
    assert len(taken) <= AHEAD + 2
    pairs.close()


def test_many_threads_leave_pythons_filters_of_warnings_as_they_were(tmp_path):
    filters = list(warnings.filters)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    entries = (
        Entry(str(i), str(i), f"{i}", functools.partial(open_picture, tmp_path / "a.png"))
        for i in range(200)
    )
    assert len(list(Reader("here").pairs(entries))) == 200
    assert list(warnings.filters) == filters
