"""Hugging Face datasets, from memory and from the hub, and Crossmodal-3600."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import datasets
import pyarrow
import pytest
from fake_sources import png, save, table
from huggingface_hub import constants as hub_constants
from pyarrow import parquet

import mclip_helpers as mh
from mclip_helpers.data import hub as hub_module
from mclip_helpers.data.images import open_picture


def problems_in(source, **options) -> list[str]:
    with pytest.raises(mh.DataError) as caught:
        mh.hub_dataset(source, **options)
    return caught.value.problems


def test_a_hub_dataset_may_name_its_columns_as_it_likes_and_have_others():
    source = table({"id": [7, 8], "photo": [png("a"), png("b")], "title": [" x ", "y"]}, "photo")
    dataset = mh.hub_dataset(source, image="photo", text="title")
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

    monkeypatch.setattr(hub_module, "snapshot_download", snapshot_download)
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
    assert len(hub_module.XM3600_LANGUAGES) == len(set(hub_module.XM3600_LANGUAGES)) == 36


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
    with pytest.raises(mh.DataError, match=r"data/ko-\*\.parquet is not in the cache") as caught:
        mh.xm3600("ko")
    assert "floschne/xm3600_1k" in str(caught.value)
