"""`train` with its levers: the same steps, but for rounding."""

from __future__ import annotations

import pytest
import torch
from conftest import fresh
from short_runs import Stop, adapted, run, same_bits, stop_after, trainable

import mclip_helpers as mh
from mclip_helpers.speed import cache_prefix


def image_adapters() -> mh.Clip:
    clip = fresh("nano")
    torch.manual_seed(1)
    mh.inject_lora(clip.model, rank=4, targets="image")
    return clip


def apart(ours: mh.Clip, theirs: mh.Clip) -> float:
    a, b = (torch.cat([p.flatten() for p in trainable(c).values()]) for c in (ours, theirs))
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("options", [{"fast": True}, {"chunk": 3}, {"chunk": 100, "fast": True}])
def test_a_lever_changes_nothing_but_rounding(emoji: mh.PictureDataset, options: dict):
    plain, levered = image_adapters(), image_adapters()
    losses = []
    for clip, chosen in ((plain, {}), (levered, options)):
        history = run(clip, emoji, lr=1e-4, **{"fast": False} | chosen)
        losses.append([step["loss"] for step in history.steps])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert apart(levered, plain) < 1e-3


def test_the_losses_of_a_run_with_all_that_is_exact_are_those_of_the_plain_one(emoji, tmp_path):
    """Folded, captions and prefix once, pictures decoded once, in chunks; and nothing of it."""
    losses, thermal = [], emoji.shifted(mh.thermal)
    for levers in (False, True):
        clip, options = fresh("nano"), {"fast": False, "augment": None}
        if levers:
            mh.fold(clip.model)
        torch.manual_seed(1)
        mh.inject_lora(clip.model, rank=4, targets=mh.regions(clip.model)["block 3"])
        data = thermal
        if levers:
            data = mh.decode_once(thermal, clip, tmp_path)
            prefix = cache_prefix(clip, data, tmp_path, precision="float32")
            options = {"augment": None, "chunk": 5, "prefix": prefix}
        history = run(clip, data, epochs=8, lr=3e-3, **options)
        losses.append([step["loss"] for step in history.steps])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert sum(losses[0][-3:]) < 0.9 * sum(losses[0][:3])  # three steps an epoch: it learns


def test_batches_are_changed_in_training_and_only_there(emoji: mh.PictureDataset):
    shapes = []

    def changed(images: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(images.shape))
        return images.flip(-1)

    clip = image_adapters()
    run(clip, emoji, epochs=1, augment_batches=changed, evaluate_on={"val": emoji})
    assert shapes == 3 * [(8, 3, 64, 64)]
    plain = image_adapters()
    run(plain, emoji, epochs=1)
    assert apart(clip, plain) > 1e-3


def test_a_run_with_changed_batches_goes_on_with_the_same_bits(emoji, tmp_path):
    options = {"epochs": 2, "augment_batches": mh.Jitter().batch}
    whole, parts, resumed = image_adapters(), image_adapters(), image_adapters()
    run(whole, emoji, **options)
    with pytest.raises(Stop):
        run(parts, emoji, **options, checkpoint=tmp_path / "c", augment=stop_after(30))
    run(resumed, emoji, **options, checkpoint=tmp_path / "c")
    same_bits(trainable(resumed), trainable(whole))


def test_chunks_change_each_image_as_the_whole_batch_does_it_twice_alike(emoji):
    """A chunk is run twice: the second time it is changed as the first time."""
    seen = []

    def changed(images: torch.Tensor) -> torch.Tensor:
        seen.append(mh.Jitter().batch(images))
        return seen[-1]

    run(image_adapters(), emoji, epochs=1, chunk=4, augment_batches=changed)
    first, second = seen[:2], seen[2:4]  # of the first batch, in two chunks
    for ours, again in zip(first, second, strict=True):
        assert torch.equal(ours, again)
    assert not torch.equal(first[0], first[1])


def test_captions_of_a_frozen_text_tower_are_encoded_once(emoji: mh.PictureDataset, capsys):
    clip = image_adapters()
    calls = []
    clip.model.text.register_forward_hook(lambda *_: calls.append(1))
    run(clip, emoji, progress=True)
    assert len(calls) == 1
    assert "its 24 captions were encoded once" in capsys.readouterr().out
    run(clip, emoji, fast=False)
    assert len(calls) == 1 + 6


def test_captions_are_encoded_in_each_step_where_the_text_tower_learns(emoji, capsys):
    run(adapted(), emoji, epochs=1, progress=True)
    assert "encoded once" not in capsys.readouterr().out


def test_classes_work_in_chunks(emoji: mh.PictureDataset):
    plain, levered = image_adapters(), image_adapters()
    for clip, chunk in ((plain, None), (levered, 3)):
        run(clip, emoji, lr=1e-4, classes=True, chunk=chunk)
    assert apart(levered, plain) < 1e-3


def test_an_interrupted_run_in_chunks_ends_with_the_same_bits(emoji, tmp_path):
    whole, parts = image_adapters(), image_adapters()
    run(whole, emoji, epochs=2, chunk=3)
    settings = {"epochs": 2, "chunk": 3, "checkpoint": tmp_path / "c"}
    with pytest.raises(Stop):
        run(parts, emoji, **settings, augment=stop_after(30))  # in the second epoch
    resumed = image_adapters()
    run(resumed, emoji, **settings)
    same_bits(trainable(resumed), trainable(whole))


def test_batch_norm_that_moves_and_chunks_do_not_go_together(nano: mh.Clip, emoji):
    nano.model.requires_grad_(True)
    with pytest.raises(ValueError, match=r"batch norms .*chunk=4.*freeze_batch_norm"):
        run(nano, emoji, chunk=4)


@pytest.mark.parametrize(("options", "named"), [({"fast": False}, "fast"), ({"chunk": 4}, "chunk")])
def test_a_run_with_other_levers_is_another_run(emoji, tmp_path, options: dict, named: str):
    checkpoint = tmp_path / "c"
    run(adapted(), emoji, epochs=1, checkpoint=checkpoint)
    with pytest.raises(ValueError, match=f"is of another run: {named}"):
        run(adapted(), emoji, epochs=1, checkpoint=checkpoint, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"chunk": 0}, "chunk is 0"), ({"chunk": 2.5}, "chunk is 2.5"), ({"fast": 1}, "fast is 1")],
)
def test_what_can_not_work_is_refused(emoji, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        run(adapted(), emoji, **options)


def test_what_changes_batches_is_a_function(emoji):
    with pytest.raises(TypeError, match=r"augment_batches is a int; .*Jitter\(\)\.batch"):
        run(adapted(), emoji, augment_batches=3)
    with pytest.raises(TypeError, match=r"not a Tensor; .*there is Jitter\(\)\.batch"):
        run(adapted(), emoji, augment_batches=mh.Jitter())
