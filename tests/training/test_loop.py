"""The training loop: it learns, repeats itself, stops when it must, and says how it goes."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import pytest
import torch
from short_runs import State, Stop, adapted, run, same_bits, stop_after, stored, trainable
from torch.optim.optimizer import register_optimizer_step_post_hook

import mclip_helpers as mh
from mclip_helpers.data import DataError
from mclip_helpers.loss import MAX_LOGIT_SCALE
from mclip_helpers.model import Compute


@pytest.fixture
def lora(nano: mh.Clip) -> mh.Clip:
    """`nano` with adapters and dropout."""
    torch.manual_seed(1)
    mh.inject_lora(nano.model, rank=4, dropout=0.2)
    return nano


# ---- it learns, and repeats itself --------------------------------------------------------------


def test_a_run_lowers_the_loss(emoji: mh.PictureDataset):
    clip = adapted(dropout=0.0)

    def loss() -> float:
        features = mh.embed(clip, emoji)
        return mh.contrastive_loss(*features, clip.model.logit_scale.exp()).item()

    before = loss()
    history = run(clip, emoji, epochs=8, augment=None)
    assert loss() < 0.9 * before
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]


def test_two_runs_with_the_same_seed_are_bit_equal_and_another_seed_is_not(emoji):
    clips, histories = [], []
    for seed in (3, 3, 4):
        clip = adapted()
        torch.manual_seed(len(clips))  # what happened before must not matter
        random.seed(len(clips))
        histories.append(run(clip, emoji, seed=seed))
        clips.append(trainable(clip))
    same_bits(clips[1], clips[0])
    assert histories[1] == histories[0]
    assert histories[2] != histories[0]
    assert not any(torch.equal(clips[2][name], clips[0][name]) for name in clips[0])


def test_the_history_notes_every_step_and_every_epoch(lora: mh.Clip, emoji: mh.PictureDataset):
    history = run(lora, emoji, epochs=3, lr=2e-3, warmup=0.4)
    assert len(history.steps) == 9
    assert [record["epoch"] for record in history.epochs] == [1, 2, 3]
    for i, record in enumerate(history.epochs):
        losses = [step["loss"] for step in history.steps[3 * i : 3 * i + 3]]
        assert record["loss"] == pytest.approx(sum(losses) / 3)
    rates = [step["lr"] for step in history.steps]
    assert rates == pytest.approx([2e-3 * mh.warmup_cosine(i, 9, 0.4) for i in range(9)])


def test_the_loss_of_the_first_step_is_that_of_the_batch(lora: mh.Clip, emoji):
    """Same pictures, same captions, the model's own scale: nothing is lost on the way."""
    batches = mh.loader(emoji, lora, 8, shuffle=True, seed=5)
    images, tokens = next(iter(batches))
    with torch.no_grad():
        expected = mh.contrastive_loss(
            lora.model.encode_image(images),
            lora.model.encode_text(tokens),
            lora.model.logit_scale.exp(),
        )
    history = run(lora, emoji, epochs=1, seed=5, augment=None)
    assert history.steps[0]["loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_every_epoch_has_batches_of_its_own(lora: mh.Clip, emoji: mh.PictureDataset, monkeypatch):
    seen = []
    encode = lora.model.encode_text
    monkeypatch.setattr(lora.model, "encode_text", lambda t, **k: seen.append(t) or encode(t, **k))
    run(lora, emoji, epochs=2)
    assert len(seen) == 6
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(seen, 2))
    for epoch in (seen[:3], seen[3:]):
        captions = {tuple(row) for batch in epoch for row in batch.tolist()}
        assert captions == {tuple(row) for row in lora.tokenizer(emoji.captions).tolist()}


def test_evaluate_on_is_recorded_each_epoch(lora: mh.Clip, emoji: mh.PictureDataset):
    sets = {"seen": emoji.subset(range(12)), "unseen": emoji.subset(range(12, 24))}
    history = run(lora, emoji.subset(range(12)), batch_size=6, evaluate_on=sets)
    assert [list(record) for record in history.epochs] == [["epoch", "loss", "seen", "unseen"]] * 2
    for name, dataset in sets.items():
        assert history.epochs[-1][name] == mh.evaluate(lora, dataset).image_to_text[1]


def test_evaluating_on_the_way_changes_no_bit_of_the_result(emoji: mh.PictureDataset):
    plain, watched = adapted(), adapted()
    run(plain, emoji, augment=None)
    run(watched, emoji, augment=None, evaluate_on={"seen": emoji.subset(range(4))})
    same_bits(trainable(watched), trainable(plain))


def test_logit_scale_stays_as_it_is_unless_asked_for(emoji: mh.PictureDataset):
    still, moving = adapted(), adapted()
    before = still.model.logit_scale.detach().clone()
    run(still, emoji)
    run(moving, emoji, train_logit_scale=True)
    assert torch.equal(still.model.logit_scale, before)
    assert not torch.equal(moving.model.logit_scale, before)


@pytest.mark.parametrize(
    ("start", "bound"),
    [(math.log(MAX_LOGIT_SCALE) + 1, math.log(MAX_LOGIT_SCALE)), (-1.0, 0.0)],
    ids=["100", "1"],
)
def test_a_trained_logit_scale_keeps_within_its_bounds(lora: mh.Clip, emoji, start, bound):
    with torch.no_grad():
        lora.model.logit_scale.fill_(start)
    run(lora, emoji.subset(range(8)), epochs=1, train_logit_scale=True)
    assert lora.model.logit_scale.item() == pytest.approx(bound, abs=1e-6)


def test_the_model_comes_back_in_eval(lora: mh.Clip, emoji: mh.PictureDataset):
    run(lora, emoji, epochs=1)
    assert not any(module.training for module in lora.model.modules())


def test_a_run_that_is_interrupted_leaves_the_model_in_eval(lora: mh.Clip, emoji):
    with pytest.raises(Stop):
        run(lora, emoji, epochs=1, augment=stop_after(12))
    assert not any(module.training for module in lora.model.modules())


def vanishing(dataset: mh.PictureDataset, at: int) -> mh.PictureDataset:
    """`dataset`, of which one picture can't be read any more."""

    def load():
        raise DataError("my-pictures", ["lost.png: not there any more"])

    pairs = list(dataset.pairs)
    pairs[at] = dataclasses.replace(pairs[at], load=load)
    return mh.PictureDataset(pairs)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_vanishes_is_named_and_ends_the_run_cleanly(lora: mh.Clip, emoji, workers):
    """A loader's worker reports the error of its process as text: the name must be in it."""
    with pytest.raises((DataError, RuntimeError), match=r"lost\.png: not there any more") as error:
        run(in_precision(lora, torch.float32, workers), vanishing(emoji, 5), augment=None)
    assert "the model is as the last of them left it" in error.value.__notes__[0]
    assert not any(module.training for module in lora.model.modules())
    assert all(p.grad is None for p in lora.model.parameters())


def test_after_an_interruption_the_flag_of_logit_scale_is_what_it_was(lora: mh.Clip, emoji):
    for flag in (True, False):
        lora.model.logit_scale.requires_grad_(flag)
        with pytest.raises(Stop):
            run(lora, emoji, train_logit_scale=not flag, augment=stop_after(12))
        assert lora.model.logit_scale.requires_grad is flag


def test_weights_that_break_in_the_last_step_of_an_epoch_are_not_saved(
    lora: mh.Clip, emoji: mh.PictureDataset, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    """The next step would tell; there may be none, and the checkpoint would hold them."""
    steps = itertools.count(1)

    def breaks(optimizer, *_):
        if next(steps) == 6:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].fill_(math.nan)

    handle = register_optimizer_step_post_hook(breaks)
    with pytest.raises(mh.TrainingDiverged, match="the end of epoch 2"):
        run(lora, emoji, checkpoint=tmp_path / "checkpoint")
    handle.remove()
    _, notes = stored(tmp_path / "checkpoint")
    assert len(notes["history"]["epochs"]) == 1


# ---- diverging ----------------------------------------------------------------------------------


def poison_at(clip: mh.Clip, step: int, monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """Make the model give NaN at this step (from 1); the list gets the adapters as it starts."""
    encode, count, seen = clip.model.encode_image, itertools.count(1), []

    def encode_image(images, **options):
        if next(count) == step:
            seen.append(trainable(clip))
            return encode(images, **options) * math.nan
        return encode(images, **options)

    monkeypatch.setattr(clip.model, "encode_image", encode_image)
    return seen


def test_a_loss_that_is_no_number_stops_the_run_and_that_step_is_not_taken(
    lora: mh.Clip, emoji: mh.PictureDataset, monkeypatch: pytest.MonkeyPatch
):
    seen = poison_at(lora, 5, monkeypatch)
    with pytest.raises(mh.TrainingDiverged) as error:
        run(lora, emoji, epochs=2, lr=1e-3, warmup=0.0)
    same_bits(trainable(lora), seen[0])
    rate = 1e-3 * mh.warmup_cosine(4, 6, 0.0)
    message = str(error.value)
    assert f"stopped at step 2 of epoch 2, learning rate {rate:.2e}" in message
    assert "image_features has NaN" in message


def test_a_poisoned_weight_stops_the_first_step(lora: mh.Clip, emoji: mh.PictureDataset):
    name, first = next(iter(mh.trainable_parameters(lora.model).items()))
    with torch.no_grad():
        first[0, 0] = math.nan
    before = trainable(lora)
    with pytest.raises(mh.TrainingDiverged, match=r"step 1 of epoch 1.*has NaN or infinite values"):
        run(lora, emoji)
    after = trainable(lora)
    assert after.pop(name).isnan().sum() == before.pop(name).isnan().sum() == 1
    same_bits(after, before)


def test_a_gradient_that_is_no_number_is_named_and_that_step_is_not_taken(
    lora: mh.Clip, emoji: mh.PictureDataset
):
    """The loss is fine; on the way back one parameter's gradient breaks."""
    parameters = mh.trainable_parameters(lora.model)
    name = list(parameters)[3]
    parameters[name].register_hook(lambda gradient: gradient * math.inf)
    before = trainable(lora)
    words = "gradient is not finite in 1 parameters, first: " + name.replace(".", r"\.")
    with pytest.raises(mh.TrainingDiverged, match=words):
        run(lora, emoji)
    same_bits(trainable(lora), before)


def test_a_learning_rate_beyond_reason_diverges_and_says_so(lora: mh.Clip, emoji):
    with pytest.raises(mh.TrainingDiverged, match=r"learning rate \d\.\d\de\+\d\d"):
        run(lora, emoji, lr=1e30, epochs=4)
    assert all(value.isfinite().all() for value in trainable(lora).values())


# ---- precision and memory -----------------------------------------------------------------------


def in_precision(clip: mh.Clip, precision: torch.dtype, workers: int = 0) -> mh.Clip:
    compute = Compute(torch.device("cpu"), precision, workers, "a pretended device")
    return dataclasses.replace(clip, compute=compute)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_learns_as_fp32_does_and_leaves_the_adapters_in_fp32(
    precision: torch.dtype, emoji: mh.PictureDataset
):
    whole = run(adapted(dropout=0.0), emoji, epochs=4, lr=1e-2, augment=None)
    clip = in_precision(adapted(dropout=0.0), precision)
    dtypes = []
    clip.model.visual.register_forward_hook(lambda *given: dtypes.append(given[2].dtype))
    half = run(clip, emoji, epochs=4, lr=1e-2, augment=None)
    assert set(dtypes) == {precision}  # it really ran in it
    assert all(p.dtype == torch.float32 for p in clip.model.parameters())
    # Means of an epoch: the loss of one small batch differs by up to 7 % in bf16 (8 bits).
    assert half.epochs[0]["loss"] == pytest.approx(whole.epochs[0]["loss"], rel=0.05)
    assert half.epochs[-1]["loss"] == pytest.approx(whole.epochs[-1]["loss"], rel=0.1)
    assert half.epochs[-1]["loss"] < 0.8 * half.epochs[0]["loss"]


def test_workers_change_no_bit(emoji: mh.PictureDataset):
    """Without augmentation: each worker draws from a random state of its own."""
    runs = [in_precision(adapted(), torch.float32, workers) for workers in (0, 2)]
    for clip in runs:
        run(clip, emoji, epochs=1, augment=None)
    same_bits(trainable(runs[0]), trainable(runs[1]))


def test_a_scaled_gradient_that_overflows_leaves_the_step_out_and_lowers_the_scale(
    emoji: mh.PictureDataset, monkeypatch: pytest.MonkeyPatch
):
    def far_too_high(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=2.0**40)

    monkeypatch.setattr(Compute, "scaler", far_too_high)
    clip = in_precision(adapted(), torch.float16)
    before = trainable(clip)
    with pytest.warns(UserWarning, match="lr_scheduler.step"):  # PyTorch sees no step before it
        history = run(clip, emoji, epochs=1)
    assert all(math.isfinite(step["loss"]) for step in history.steps)
    same_bits(trainable(clip), before)


def test_in_fp16_a_gradient_that_is_no_number_at_any_scale_stops_the_run(
    emoji: mh.PictureDataset, monkeypatch: pytest.MonkeyPatch
):
    def lowest(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=0.5)

    monkeypatch.setattr(Compute, "scaler", lowest)
    clip = in_precision(adapted(), torch.float16)
    with pytest.raises(mh.TrainingDiverged, match="overflows in fp16"):
        run(clip, emoji, epochs=1)


def test_out_of_memory_keeps_what_was_learned_and_a_smaller_batch_goes_on(
    emoji: mh.PictureDataset, monkeypatch: pytest.MonkeyPatch
):
    """The third step does not fit: the weights are those of a run that ended after two."""
    two, clip = adapted(), adapted()
    seen: list[State] = []
    encode = clip.model.encode_text

    def full_at_the_third(tokens: torch.Tensor) -> torch.Tensor:
        seen.append(trainable(clip))
        if len(seen) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return encode(tokens)

    monkeypatch.setattr(clip.model, "encode_text", full_at_the_third)
    with pytest.raises(mh.OutOfMemory, match="batch_size=4"):
        run(clip, emoji, batch_size=8, epochs=1)
    same_bits(trainable(clip), seen[2])
    moved = [name for name, p in seen[2].items() if not torch.equal(p, trainable(two)[name])]
    assert moved  # two steps had been taken
    assert not clip.model.training
    assert all(p.grad is None for p in clip.model.parameters())
    history = run(clip, emoji, batch_size=4, epochs=1)
    assert len(history.steps) == 6


# ---- progress -----------------------------------------------------------------------------------


def test_without_progress_it_is_silent(lora: mh.Clip, emoji: mh.PictureDataset, capfd):
    run(lora, emoji, epochs=1, progress=False, evaluate_on={"seen": emoji.subset(range(4))})
    assert capfd.readouterr() == ("", "")


def test_with_progress_it_tells_epoch_loss_and_speed(lora: mh.Clip, emoji, capsys):
    run(lora, emoji, epochs=2, progress=True)
    shown = capsys.readouterr()
    assert "epoch 1/2" in shown.out and "epoch 2/2" in shown.out
    assert "loss" in shown.out and "pairs/s" in shown.out
    assert shown.err == ""
