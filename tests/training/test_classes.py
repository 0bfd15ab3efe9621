"""Pictures of few classes: nothing is left out, and every right answer counts as one."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import fresh
from PIL import Image, ImageDraw

import mclip_helpers as mh
from mclip_helpers.data import Pair

NAMES = ("red circle", "blue square", "green line")


def draw(kind: int, i: int) -> Image.Image:
    """Picture i of a class; all differ in place and size, and in the pale blocks behind."""
    blocks = np.random.default_rng(3 * i + kind).integers(180, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST)
    pen, (x, y, r) = ImageDraw.Draw(picture), (8 + 3 * (i % 10), 8 + 4 * (i // 10), 8 + i % 7)
    box = (x, y, x + 2 * r, y + 2 * r)
    if kind == 0:
        pen.ellipse(box, fill="red")
    elif kind == 1:
        pen.rectangle(box, fill="blue")
    else:
        pen.line(box, fill="green", width=4)
    return picture


@pytest.fixture(scope="module")
def shapes() -> mh.PictureDataset:
    """Three classes, 24 pictures of each."""
    kinds = [(kind, i) for i in range(24) for kind in range(3)]
    return mh.PictureDataset(
        Pair(f"{kind}-{i}", (NAMES[kind],), f"{kind}-{i}", partial(draw, kind, i))
        for kind, i in kinds
    )


def features(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    made = (torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return tuple(made)


def test_with_all_classes_different_the_loss_and_its_gradient_are_those_without():
    (image, text), scale = features(6), torch.tensor(8.0, dtype=torch.float64)
    results = []
    for classes in (None, torch.tensor([4, 0, 9, 1, 7, 2])):
        loss = mh.contrastive_loss(image, text, scale, classes)
        results.append([loss, *torch.autograd.grad(loss, (image, text))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_the_loss_with_classes_is_the_mean_over_all_right_answers():
    (image, text), classes = features(5), [0, 1, 0, 2, 0]
    found = mh.contrastive_loss(image, text, 3.0, torch.tensor(classes))
    cosines = 3.0 * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
    total = 0.0
    for logits in (cosines, cosines.T):
        for i in range(5):
            right = [j for j in range(5) if classes[j] == classes[i]]
            log_p = logits[i].log_softmax(0)
            total += -sum(log_p[j] for j in right) / len(right) / 5
    torch.testing.assert_close(found, total / 2)


def test_the_least_loss_of_k_equal_answers_is_ln_k():
    one = torch.eye(2, dtype=torch.float64).repeat(3, 1)  # two classes, three pairs of each
    loss = mh.contrastive_loss(one, one, 100.0, torch.tensor([0, 1] * 3))
    assert loss.item() == pytest.approx(math.log(3))
    without = mh.contrastive_loss(one, one, 100.0)
    assert torch.equal(without.round(decimals=9), loss.round(decimals=9)), (
        "the same number, but without classes its gradient would push the equal ones apart"
    )


@pytest.mark.parametrize(
    ("classes", "error", "says"),
    [
        ([0, 1, 2], TypeError, "classes is a list"),
        (torch.tensor([0, 1]), ValueError, "each of the 3 pairs"),
        (torch.tensor([0.0, 1.0, 2.0]), ValueError, "whole number"),
        (torch.tensor([[0, 1, 2]]), ValueError, r"\(1, 3\)"),
        (torch.tensor([4, 4, 4]), ValueError, "all pairs of this batch are of one class"),
    ],
)
def test_classes_that_can_not_be_are_refused(classes, error, says):
    image, text = features(3)
    with pytest.raises(error, match=says):
        mh.contrastive_loss(image, text, 1.0, classes)


def test_no_picture_of_a_class_is_left_out_of_an_epoch(shapes, nano):
    batches = mh.loader(shapes, nano, 16, shuffle=True, classes=True)
    seen = [i for batch in batches.batch_sampler for i, _ in batch]
    assert len(seen) == len(set(seen)) == 64, "72, but for the last batch that is not filled"
    with pytest.raises(ValueError, match="at most 3, the number of pairs that differ"):
        mh.loader(shapes, nano, 16, shuffle=True)


def test_a_split_by_classes_has_every_picture_once_and_the_classes_on_both_sides(shapes):
    parts = mh.split(shapes, 0.1, 0.2, classes=True)
    names = sorted(pair.name for part in parts.values() for pair in part.pairs)
    assert names == sorted(pair.name for pair in shapes.pairs)
    assert all(set(part.captions) == set(NAMES) for part in parts.values())
    with pytest.raises(mh.DataError, match=r"links 24 of these.*classes=True"):
        mh.split(shapes, 0.1, 0.2)


def test_copies_stay_on_one_side_also_with_classes(shapes):
    copies = [replace(pair, name=f"copy of {pair.name}") for pair in shapes.pairs]
    both = shapes + mh.PictureDataset(copies)
    parts = mh.split(both, 0.2, 0.2, classes=True)
    digests = [{pair.digest for pair in part.pairs} for part in parts.values()]
    assert sum(map(len, digests)) == len(set().union(*digests))


def test_three_classes_are_learned_with_batches_of_sixteen(shapes):
    parts, clip = mh.split(shapes, 0.1, 0.3, classes=True), fresh("nano")
    before = mh.evaluate(clip, parts["test"], progress=False).image_to_text[1]
    torch.manual_seed(0)
    mh.inject_lora(clip.model, targets="image")
    settings = {"epochs": 4, "batch_size": 16, "lr": 3e-3, "progress": False}
    history = mh.train(clip, parts["train"], classes=True, **settings)
    after = mh.evaluate(clip, parts["test"], progress=False).image_to_text[1]
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    assert after > before
    with pytest.raises(ValueError, match="at most 3, the number of pairs that differ"):
        mh.train(clip, parts["train"], **settings)


def test_classes_are_yes_or_no(shapes, nano):
    with pytest.raises(ValueError, match="classes is 'yes'; it must be True or False"):
        mh.train(nano, shapes, classes="yes")
