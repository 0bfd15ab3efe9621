"""WebDataset shards, whole and damaged."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
from pathlib import Path

import pytest
import torch
from fake_sources import png, write_shard
from PIL import Image

import mclip_helpers as mh
from mclip_helpers.data.images import open_picture


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
    reasons = {
        "u": r"no picture \(it has txt; a picture would be one of jpg",
        "v": r"the caption \(text\) is empty",
        "w": "the caption can't be read",
        "x": "the caption can't be read",
        "y": "the caption is 5, neither",
        "z": "not a readable picture",
    }
    assert len(problems) == len(reasons)
    for problem, (key, reason) in zip(problems, reasons.items(), strict=True):
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


# ------------------------------------------------------------------------------ where pictures stay


def many(tmp_path: Path, name: str) -> mh.PictureDataset:
    samples = [{"png": png(f"{i}"), "txt": f"caption {i}"} for i in range(40)]
    return mh.shard_dataset(write_shard(tmp_path / name, samples))


def test_a_plain_shard_keeps_its_pictures_and_gives_each_when_it_is_asked_for(tmp_path):
    dataset = many(tmp_path, "a.tar")
    assert len(pickle.dumps(dataset.pairs[0].load)) < 1_000
    for i in (39, 0, 17):
        assert dataset[i][0].tobytes() == open_picture(png(f"{i}")).tobytes()


def test_a_compressed_shard_has_no_places_and_its_pictures_are_kept(tmp_path):
    dataset = many(tmp_path, "a.tar.gz")
    (tmp_path / "a.tar.gz").unlink()
    assert dataset[17][0].tobytes() == open_picture(png("17")).tobytes()


def test_another_shard_of_the_same_name_is_not_read_in_its_place(tmp_path):
    dataset = many(tmp_path, "a.tar")
    write_shard(tmp_path / "a.tar", [{"png": png("other"), "txt": "other"}])
    with pytest.raises(mh.DataError, match=r"a\.tar was changed since it was read; call shard_d"):
        dataset[3]
    (tmp_path / "a.tar").unlink()
    with pytest.raises(mh.DataError, match=r"a\.tar was removed"):
        dataset[3]


def test_an_epoch_of_shards_is_shared_by_processes_and_goes_on_where_it_stopped(tmp_path):
    """As from any other dataset: the order depends on seed and epoch alone."""
    dataset, clip = many(tmp_path, "a.tar"), mh.load_model("nano")
    whole = list(mh.loader(dataset, clip, 8, shuffle=True, seed=3))
    parts = [
        list(mh.loader(many(tmp_path, "a.tar"), clip, 8, shuffle=True, seed=3, share=(r, 2)))
        for r in range(2)
    ]
    for (images, tokens), *own in zip(whole, *parts, strict=True):
        assert torch.equal(images, torch.cat([part[0] for part in own]))
        assert torch.equal(tokens, torch.cat([part[1] for part in own]))
