"""What several test files share: models, each loaded or built once, and handed out as copies."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections import defaultdict
from collections.abc import Iterable

import pytest
import torch
from open_page import address, opened, page  # noqa: F401 (fixtures of tests/demo)
from PIL import Image
from shown import HOSTILE

import mclip_helpers as mh
from mclip_helpers.data import Pair

# Every claim about LoRA and attention must hold for all of these. The last is no MobileCLIP: its
# image tower has fused attention, too, and the text tower's names are the ends of its names.
CASES = ("nano", "MobileCLIP2-S0", "MobileCLIP-B", "ViT-B-32")


@pytest.fixture(autouse=True)
def no_progress(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests check is not written into the progress of whoever runs them."""
    place = tmp_path_factory.getbasetemp() / "progress.json"
    monkeypatch.setenv("MCLIP_PROGRESS", str(place))


@functools.cache
def load_once(name: str) -> mh.Clip:
    """`nano` with its weights, any other at random. On the CPU, where sums keep their order."""
    return mh.load_model(name, pretrained=None if name == "nano" else "random", device="cpu")


def fresh(name: str) -> mh.Clip:
    """A `Clip` whose model may be changed."""
    clip = load_once(name)
    return dataclasses.replace(clip, model=copy.deepcopy(clip.model))


@functools.cache
def _on_meta(name: str) -> torch.nn.Module:
    return fresh(name).model.to("meta")


def skeleton(name: str) -> mh.Clip:
    """A `Clip` whose model may be changed: names, classes and shapes, but no numbers. Costs little.

    `nano` comes with its numbers, which cost little.
    """
    if name == "nano":
        return fresh(name)
    return dataclasses.replace(load_once(name), model=copy.deepcopy(_on_meta(name)))


@pytest.fixture
def nano() -> mh.Clip:
    """`nano`, loaded once and copied for each test."""
    return fresh("nano")


@pytest.fixture(params=CASES)
def clip(request: pytest.FixtureRequest) -> mh.Clip:
    """Each of CASES in turn, a copy for each test."""
    return fresh(request.param)


def emoji_pairs() -> mh.PictureDataset:
    """24 pairs that all differ, in the style that `nano` does not know."""
    dataset = mh.emoji_dataset("openmoji", "train")
    first = {group: i for i, group in reversed(list(enumerate(dataset.groups)))}
    return dataset.subset(sorted(first.values())[:24])


@pytest.fixture(scope="session")
def adapted() -> torch.nn.Module:
    """`nano` with fresh adapters after a backward pass that the text tower took no part in."""
    model = fresh("nano").model
    torch.manual_seed(0)
    lora_model = mh.inject_lora(model, rank=2, targets="default")
    model.encode_image(torch.rand(2, 3, 64, 64)).square().sum().backward()
    return lora_model


@pytest.fixture(scope="session")
def twemoji() -> mh.PictureDataset:
    """Ten pairs in the style that `nano` knows."""
    return mh.emoji_dataset("twemoji", "val").head(10)


@pytest.fixture
def hostile() -> mh.PictureDataset:
    """Three pairs whose captions and credit would break careless HTML and matplotlib."""

    def load() -> Image.Image:
        return Image.new("RGB", (8, 8), "red")

    return mh.PictureDataset([Pair(x, (HOSTILE + x,), x, load) for x in "012"], HOSTILE)


@pytest.fixture(scope="session")
def emoji() -> mh.PictureDataset:
    """`emoji_pairs`, made once."""
    return emoji_pairs()


def partition(labels: Iterable) -> set[frozenset[int]]:
    """Which positions have the same label, whatever the labels are."""
    classes = defaultdict(set)
    for position, label in enumerate(labels):
        classes[label].add(position)
    return {frozenset(positions) for positions in classes.values()}
