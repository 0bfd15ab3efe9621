"""Pictures that are decoded once: the same for the model, and out of date when they should be."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
import torch
from fake_sources import write_csv
from PIL import Image
from torchvision import transforms

import mclip_helpers as mh


@pytest.fixture
def photographs(tmp_path) -> mh.PictureDataset:
    """Of several shapes and kinds."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    sizes = [(90, 70), (64, 64), (50, 130), (1100, 1040)]
    for i, size in enumerate(sizes):
        Image.effect_noise(size, 90).convert("RGB").save(folder / f"{i}.jpg")
    write_csv(folder, *((f"{i}.jpg", f"caption {i}") for i in range(len(sizes))))
    return mh.folder_dataset(folder)


def test_the_model_sees_the_same_to_the_last_bit(nano, photographs, tmp_path):
    ready = mh.decode_once(photographs, nano, tmp_path / "cache")
    assert [pair.load().size for pair in ready.pairs] == [(64, 64)] * len(photographs)
    for ours, theirs in zip(ready.pairs, photographs.pairs, strict=True):
        assert torch.equal(nano.preprocess(ours.load()), nano.preprocess(theirs.load()))


def test_it_stays_the_same_dataset(nano, photographs, tmp_path):
    ready = mh.decode_once(photographs, nano, tmp_path)
    assert ready.captions == photographs.captions and ready.groups == photographs.groups
    assert [p.digest for p in ready.pairs] == [p.digest for p in photographs.pairs]
    again = mh.decode_once(ready, nano, tmp_path)
    assert again[2][0].tobytes() == ready[2][0].tobytes()
    assert len(list(tmp_path.glob("pictures-*"))) == 1


def test_no_picture_is_opened_a_second_time(nano, photographs, tmp_path):
    mh.decode_once(photographs, nano, tmp_path / "cache")
    for path in (tmp_path / "photographs").glob("[1-3].jpg"):
        path.unlink()
    again = mh.decode_once(photographs, nano, tmp_path / "cache")  # it asks for the first, to try
    assert again[3][0].size == (64, 64)


def test_another_picture_or_transform_makes_another_file(nano, photographs, tmp_path):
    ready = mh.decode_once(photographs, nano, tmp_path)
    shifted = mh.decode_once(photographs.shifted(mh.thermal), nano, tmp_path)
    other = SimpleNamespace(
        preprocess=transforms.Compose(
            [transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize([0.5], [2.0])]
        ),
        tokenizer=nano.tokenizer,
    )
    small = mh.decode_once(photographs, other, tmp_path)
    assert len(list(tmp_path.glob("pictures-*.npy"))) == 3
    assert small[0][0].size == (32, 32)
    assert len({data[0][0].tobytes() for data in (ready, shifted, small)}) == 3


def test_workers_take_little_along(nano, photographs, tmp_path):
    ready = mh.decode_once(photographs, nano, tmp_path)
    assert len(pickle.dumps(ready.pairs[0])) < 1_000
    loaded = [
        torch.cat([images for images, _ in mh.loader(ready, nano, 2, workers=workers)])
        for workers in (0, 1)
    ]
    assert torch.equal(*loaded)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([transforms.Resize((9, 9)), transforms.ToTensor()], "the last two are ToTensor and Norm"),
        (
            [
                transforms.Resize((64, 64)),
                transforms.CenterCrop(32),
                transforms.ToTensor(),
                transforms.Normalize([0.0], [1.0]),
            ],
            "changes a picture that has the model",
        ),
    ],
)
def test_a_transform_that_can_not_be_divided_is_refused(
    nano, photographs, tmp_path, steps, message
):
    clip = SimpleNamespace(preprocess=transforms.Compose(steps), tokenizer=nano.tokenizer)
    with pytest.raises(ValueError, match=message):
        mh.decode_once(photographs, clip, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_picture_that_can_not_be_opened_leaves_no_file(nano, photographs, tmp_path):
    (tmp_path / "photographs" / "2.jpg").unlink()
    with pytest.raises(mh.DataError, match=r"2\.jpg was removed"):
        mh.decode_once(photographs, nano, tmp_path / "cache")
    assert list((tmp_path / "cache").glob("pictures-*")) == []
