"""The frozen layers before the first adapter: found, computed once, and the same as before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import fresh
from small_batches import with_adapters

import mclip_helpers as mh
from mclip_helpers.speed import cache_prefix, plain_encoders
from mclip_helpers.speed.prefix import NoPrefix, find_cut

LATE = r"visual\.trunk\.stages\.3\.blocks\.\d+\.mlp\.fc1"


def of_pictures(clip: mh.Clip, data: mh.PictureDataset) -> torch.Tensor:
    images, _ = next(iter(mh.loader(data, clip, len(data))))
    return plain_encoders(clip).image(images)


def test_behind_the_cut_features_and_gradients_are_the_same(
    nano: mh.Clip, twemoji: mh.PictureDataset, tmp_path: Path
):
    clip = with_adapters(nano)
    cache = cache_prefix(clip, twemoji, tmp_path, precision="float32")
    stack = torch.stack([cache[i] for i in range(len(cache))])
    found = []
    for features in (lambda: cache.encode(stack), lambda: of_pictures(clip, twemoji)):
        clip.model.zero_grad()
        with mh.trace(clip.model, keep_gradients=True) as tape:
            value = features()
            value.square().mean().backward()
        found.append((value.detach(), tape.graph))
    (ours, tape), (theirs, its_tape) = found
    assert (ours - theirs).norm() / theirs.norm() < 1e-5
    assert tape.diff(its_tape).total < 1e-4


def test_the_cut_is_as_late_as_can_be(nano: mh.Clip, twemoji: mh.PictureDataset):
    assert find_cut(with_adapters(nano), twemoji).module == "visual.trunk.stages.3.blocks.0"


def test_the_first_layers_of_apples_architecture_are_cut_off(twemoji: mh.PictureDataset):
    clip = with_adapters(fresh("MobileCLIP2-S0"), LATE)
    cut = find_cut(clip, twemoji)
    assert cut.module.startswith("visual.trunk.stages.3")
    assert "visual.trunk.stages.2" in cut.before


@pytest.mark.parametrize("targets", ["first", "image"])
def test_there_is_no_prefix_before_an_adapter_in_the_stem(
    nano: mh.Clip, twemoji: mh.PictureDataset, tmp_path: Path, targets: str
):
    with pytest.raises(NoPrefix, match="targets='default'"):
        cache_prefix(with_adapters(nano, targets), twemoji, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_anything_trained_in_the_image_tower_there_is_no_cut(nano, twemoji, tmp_path):
    with pytest.raises(NoPrefix, match="compute its features once"):
        cache_prefix(with_adapters(nano, "text"), twemoji, tmp_path)


def test_batch_norm_that_moves_is_no_prefix(nano: mh.Clip, twemoji: mh.PictureDataset, tmp_path):
    nano.model.requires_grad_(False)
    nano.model.visual.trunk.head.requires_grad_(True)
    with pytest.raises(NoPrefix, match="move in training"):
        cache_prefix(nano, twemoji, tmp_path)
    mh.freeze_batch_norm(nano.model)
    assert len(cache_prefix(nano, twemoji, tmp_path)) == len(twemoji)


def test_half_precision_rounds_and_takes_half(nano, twemoji, tmp_path):
    clip = with_adapters(nano)
    half, single = (
        cache_prefix(clip, twemoji, tmp_path, precision=p) for p in ("float16", "float32")
    )
    assert half.activations.nbytes * 2 == single.activations.nbytes
    apart = (half[0] - single[0]).norm() / single[0].norm()
    assert 0 < apart < 1e-3


def test_what_is_there_is_taken_and_what_has_changed_is_computed_anew(
    nano, twemoji, tmp_path, monkeypatch
):
    clip = with_adapters(nano)
    first = cache_prefix(clip, twemoji, tmp_path)
    written = first.path.stat().st_mtime_ns
    assert cache_prefix(clip, twemoji, tmp_path).path.stat().st_mtime_ns == written
    others = [
        cache_prefix(clip, twemoji.head(9), tmp_path),
        cache_prefix(clip, twemoji.shifted(mh.thermal), tmp_path),
        cache_prefix(clip, twemoji, tmp_path, views=2, augment=mh.Jitter()),
        cache_prefix(clip, twemoji, tmp_path, views=2, augment=mh.Jitter(20)),
        cache_prefix(clip, twemoji, tmp_path, views=2, augment=mh.Jitter(), seed=1),
        cache_prefix(clip, twemoji, tmp_path, precision="float32"),
    ]
    with torch.no_grad():
        next(clip.model.visual.trunk.stem.parameters()).add_(0.01)
    others.append(cache_prefix(clip, twemoji, tmp_path))
    assert len({first.key, *(other.key for other in others)}) == 1 + len(others)


def test_views_differ_and_are_drawn(nano, twemoji, tmp_path):
    clip = with_adapters(nano)
    state = torch.get_rng_state()
    cache = cache_prefix(clip, twemoji, tmp_path, views=3, augment=mh.Jitter())
    assert torch.equal(torch.get_rng_state(), state), "it has a generator of its own"
    assert cache.views == 3
    assert len({cache.activations[0, v].tobytes() for v in range(3)}) == 3
    drawn = {cache[0].numpy().tobytes() for _ in range(40)}
    assert len(drawn) == 3


def test_a_cache_is_trained_with(nano, emoji, tmp_path):
    clip = with_adapters(nano)
    cache = cache_prefix(clip, emoji, tmp_path)
    history = mh.train(clip, emoji, epochs=3, batch_size=8, lr=3e-3, prefix=cache, progress=False)
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]


def test_a_cache_of_other_pictures_and_an_augment_beside_it_are_refused(
    nano, emoji, twemoji, tmp_path
):
    clip = with_adapters(nano)
    cache = cache_prefix(clip, twemoji, tmp_path)
    with pytest.raises(ValueError, match="of 10 pictures, and these 24 are not the same"):
        mh.train(clip, emoji, batch_size=8, prefix=cache, progress=False)
    with pytest.raises(ValueError, match="these 10 are not the same in the same order"):
        mh.train(clip, emoji.head(10), batch_size=4, prefix=cache, progress=False)
    with pytest.raises(ValueError, match="by another clip"):
        mh.train(with_adapters(fresh("nano")), twemoji, batch_size=4, prefix=cache, progress=False)
    with pytest.raises(ValueError, match="give augment to cache_prefix"):
        mh.train(
            clip,
            twemoji,
            batch_size=4,
            prefix=cache,
            augment_batches=mh.Jitter().batch,
            progress=False,
        )
    with pytest.raises(ValueError, match="leave augment out"):
        mh.train(clip, twemoji, batch_size=4, prefix=cache, augment=mh.Jitter(), progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"views": 0}, "views is 0"),
        ({"views": 2}, "without augment"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_arguments_that_can_not_work_are_refused(nano, twemoji, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        cache_prefix(with_adapters(nano), twemoji, tmp_path, **arguments)


def test_a_run_that_is_stopped_leaves_no_file(nano, twemoji, tmp_path):
    def broken(picture):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_prefix(with_adapters(nano), twemoji, tmp_path, augment=broken)
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
