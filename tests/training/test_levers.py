"""`train` with its levers: the same steps, but for rounding."""

from __future__ import annotations

import pytest
import torch
from conftest import fresh
from short_runs import Stop, adapted, run, same_bits, stop_after, trainable

import mclip_helpers as mh


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


def test_captions_of_a_frozen_text_tower_are_encoded_once(emoji: mh.PictureDataset, capsys):
    clip = image_adapters()
    calls = []
    clip.model.text.register_forward_hook(lambda *_: calls.append(1))
    run(clip, emoji, progress=True)
    assert len(calls) == 1
    assert "its 24 captions are encoded once" in capsys.readouterr().out
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
