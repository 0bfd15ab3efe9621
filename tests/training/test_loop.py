"""The training loop: it learns, repeats itself, survives being killed, and stops when it must."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import fresh
from PIL import Image
from safetensors import safe_open

import mclip_helpers as mh
from mclip_helpers.training.loop import MAX_LOG_SCALE

train_module = importlib.import_module("mclip_helpers.training.loop")  # `mh.train` is the function
State = dict[str, torch.Tensor]


def trainable(clip: mh.Clip) -> State:
    return {n: p.detach().clone() for n, p in clip.model.named_parameters() if p.requires_grad}


def everything(clip: mh.Clip) -> State:
    tensors = [*clip.model.named_parameters(), *clip.model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in tensors}


def same_bits(state: State, before: State) -> None:
    assert list(state) == list(before)
    different = [name for name in state if not torch.equal(state[name], before[name])]
    assert different == []


def tilt(picture: Image.Image) -> Image.Image:
    """An augmentation that draws from both of the random states that a checkpoint keeps."""
    degrees = random.uniform(-20, 20)
    size = int(torch.randint(56, 73, ()))
    return picture.rotate(degrees, fillcolor="white").resize((size, size))


def adapted(**lora) -> mh.Clip:
    """`nano` with adapters that are the same in every process."""
    clip = fresh("nano")
    torch.manual_seed(1)
    mh.inject_lora(clip.model, **{"rank": 4, "dropout": 0.2} | lora)
    return clip


def run(clip: mh.Clip, dataset: mh.PictureDataset, **options) -> mh.History:
    """A short run: 3 steps an epoch on 24 pairs."""
    return mh.train(
        clip,
        dataset,
        **{"epochs": 2, "batch_size": 8, "augment": tilt, "progress": False} | options,
    )


def stored(checkpoint: Path) -> tuple[State, dict]:
    """The tensors and the notes of a checkpoint."""
    with safe_open(checkpoint, framework="pt") as file:
        notes = json.loads(file.metadata()["notes"])
        return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118


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


def test_the_model_comes_back_in_eval(lora: mh.Clip, emoji: mh.PictureDataset):
    run(lora, emoji, epochs=1)
    assert not any(module.training for module in lora.model.modules())


# ---- what is trained ----------------------------------------------------------------------------


class Spy(torch.optim.AdamW):
    """Remembers what it was given."""

    given: list[torch.nn.Parameter]

    def __init__(self, params, **options):
        Spy.given = list(params)
        super().__init__(Spy.given, **options)


@pytest.mark.parametrize("train_logit_scale", [False, True])
def test_only_adapters_are_in_the_optimizer_and_the_scale_if_asked(
    lora: mh.Clip, emoji: mh.PictureDataset, monkeypatch, train_logit_scale: bool
):
    monkeypatch.setattr(torch.optim, "AdamW", Spy)
    run(lora, emoji, epochs=1, train_logit_scale=train_logit_scale)
    names = {id(p): name for name, p in lora.model.named_parameters()}
    given = [names[id(p)] for p in Spy.given]
    adapters = [name for name in names.values() if ".lora_" in name]
    assert len(adapters) == 2 * len(list(mh.lora_layers(lora.model)))
    assert sorted(given) == sorted(adapters + ["logit_scale"] * train_logit_scale)


def test_logit_scale_stays_as_it_is_unless_asked_for(emoji: mh.PictureDataset):
    still, moving = adapted(), adapted()
    before = still.model.logit_scale.detach().clone()
    run(still, emoji)
    run(moving, emoji, train_logit_scale=True)
    assert torch.equal(still.model.logit_scale, before)
    assert not torch.equal(moving.model.logit_scale, before)


@pytest.mark.parametrize(
    ("start", "bound"), [(MAX_LOG_SCALE + 1, MAX_LOG_SCALE), (-1.0, 0.0)], ids=["100", "1"]
)
def test_a_trained_logit_scale_keeps_within_its_bounds(lora: mh.Clip, emoji, start, bound):
    with torch.no_grad():
        lora.model.logit_scale.fill_(start)
    run(lora, emoji.subset(range(8)), epochs=1, train_logit_scale=True)
    assert lora.model.logit_scale.item() == pytest.approx(bound, abs=1e-6)


def test_the_bound_is_clips_own():
    assert math.exp(MAX_LOG_SCALE) == pytest.approx(100)


def test_a_model_without_anything_to_train_is_refused(nano: mh.Clip, emoji: mh.PictureDataset):
    nano.model.requires_grad_(False)
    with pytest.raises(ValueError, match="call inject_lora"):
        run(nano, emoji)


def test_weight_decay_reaches_the_optimizer(emoji: mh.PictureDataset):
    norms = []
    for weight_decay in (0.0, 50.0):
        clip = adapted()
        run(clip, emoji, weight_decay=weight_decay)
        norms.append(sum(v.norm() for name, v in trainable(clip).items() if ".lora_A." in name))
    assert norms[1] < 0.95 * norms[0]


# ---- the schedule -------------------------------------------------------------------------------


def test_warmup_cosine_has_the_values_computed_on_paper():
    """10 steps, the first 2 rising; then a cosine over 8: 1 at its start, ½ half-way."""
    rising = [0.5, 1.0]
    falling = [(1 + math.cos(math.pi * i / 8)) / 2 for i in range(8)]
    assert [mh.warmup_cosine(i, 10, 0.2) for i in range(10)] == pytest.approx(rising + falling)
    assert mh.warmup_cosine(6, 10, 0.2) == pytest.approx(0.5)
    assert mh.warmup_cosine(10, 10, 0.2) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("total", [1, 2, 3, 10, 997])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
def test_warmup_cosine_rises_to_1_and_falls_and_is_never_0_in_a_run(total: int, warmup: float):
    factors = [mh.warmup_cosine(i, total, warmup) for i in range(total)]
    top = factors.index(max(factors))
    assert max(factors) == pytest.approx(1)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert min(factors) > 0


# ---- killed, and resumed ------------------------------------------------------------------------

# Two steps into the second of three epochs.
VICTIM_STOPS_AT = 24 + 12
RUN = {"epochs": 3, "train_logit_scale": True, "weight_decay": 0.01}


def whole_run(checkpoint: Path, dataset: mh.PictureDataset, augment: Callable) -> mh.History:
    """The run that is killed, resumed, and compared: the same in every process."""
    clip = adapted()
    return run(
        clip,
        dataset,
        **RUN,
        augment=augment,
        evaluate_on={"seen": dataset.subset(range(6))},
        checkpoint=checkpoint,
    )


# What a process of its own does: `sys.argv` is where the tests lie, the checkpoint, and, for the
# one to be killed, a file to write once it is in the middle of its second epoch, waiting.
PROCESS = """
import sys, time
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/training"]
from pathlib import Path
import conftest, test_loop
calls = 0
def augment(picture):
    global calls
    calls += 1
    if len(sys.argv) > 3 and calls > test_loop.VICTIM_STOPS_AT:
        Path(sys.argv[3]).touch()
        time.sleep(600)
    return test_loop.tilt(picture)
test_loop.whole_run(Path(sys.argv[2]), conftest.emoji_pairs(), augment)
"""


def start(*arguments: Path) -> subprocess.Popen:
    here = Path(__file__).parent.parent
    return subprocess.Popen([sys.executable, "-c", PROCESS, here, *arguments])


def test_a_killed_run_that_is_resumed_ends_with_the_bits_of_one_that_was_not(
    emoji: mh.PictureDataset, tmp_path: Path
):
    killed, whole, ready = (tmp_path / name for name in ("killed", "whole", "ready"))
    victim = start(killed, ready)
    try:
        history = whole_run(whole, emoji, tilt)
        deadline = time.monotonic() + 180
        while not ready.exists():
            assert victim.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline, "it never came to its second epoch"
            time.sleep(0.1)
    finally:
        victim.kill()  # SIGKILL: no clean-up, no last words
        victim.wait()

    _, notes = stored(killed)
    assert notes["epoch"] == 1 and len(notes["history"]["steps"]) == 3
    assert start(killed).wait(timeout=180) == 0

    (tensors, notes), (expected, expected_notes) = stored(killed), stored(whole)
    same_bits(tensors, expected)
    assert notes == expected_notes
    assert notes["epoch"] == 3 and notes["history"]["steps"] == history.steps
    kinds = {"/".join(name.split("/")[:2]) for name in tensors if name.startswith("optimizer/")}
    assert kinds == {"optimizer/exp_avg", "optimizer/exp_avg_sq", "optimizer/step"}
    assert any(".lora_A." in name for name in tensors)
    assert "parameter/logit_scale" in tensors and "random/torch" in tensors


class Stop(Exception):
    """Raised where a run is to break off."""


def stop_after(pictures: int) -> Callable[[Image.Image], Image.Image]:
    count = itertools.count(1)

    def augment(picture: Image.Image) -> Image.Image:
        if next(count) > pictures:
            raise Stop
        return tilt(picture)

    return augment


@pytest.fixture
def broken_off(emoji: mh.PictureDataset, tmp_path: Path) -> Path:
    """The checkpoint of a run of 3 epochs that broke off in its second."""
    path = tmp_path / "runs" / "checkpoint"
    with pytest.raises(Stop):
        run(adapted(), emoji, epochs=3, augment=stop_after(30), checkpoint=path)
    return path


def test_only_the_epochs_that_are_missing_are_run(broken_off: Path, emoji: mh.PictureDataset):
    count = itertools.count()

    def counting(picture: Image.Image) -> Image.Image:
        next(count)
        return tilt(picture)

    history = run(adapted(), emoji, epochs=3, checkpoint=broken_off, augment=counting)
    assert next(count) == 2 * 24
    assert [record["epoch"] for record in history.epochs] == [1, 2, 3]
    assert len(history.steps) == 9


def test_a_finished_run_is_given_back_without_a_step(emoji: mh.PictureDataset, tmp_path: Path):
    first, second = adapted(), adapted()
    history = run(first, emoji, checkpoint=tmp_path / "checkpoint")
    again = run(second, emoji, checkpoint=tmp_path / "checkpoint", augment=stop_after(0))
    assert again == history
    same_bits(trainable(second), trainable(first))


def test_a_checkpoint_changes_no_bit_of_the_run(emoji: mh.PictureDataset, tmp_path: Path):
    plain, saved = adapted(), adapted()
    assert run(plain, emoji) == run(saved, emoji, checkpoint=tmp_path / "checkpoint")
    same_bits(trainable(saved), trainable(plain))


@pytest.mark.parametrize(
    ("lora", "options", "named"),
    [
        ({}, {"epochs": 4}, "epochs was 3, now 4"),
        ({}, {"batch_size": 6}, "batch_size was 8, now 6"),
        ({}, {"lr": 2e-3}, "lr was 0.001, now 0.002"),
        ({}, {"weight_decay": 0.5}, "weight_decay was 0.0, now 0.5"),
        ({}, {"warmup": 0.3}, "warmup was 0.1, now 0.3"),
        ({}, {"seed": 9}, "seed was 0, now 9"),
        ({}, {"train_logit_scale": True}, "train_logit_scale was False, now True"),
        ({"rank": 2}, {}, "trained numbers was"),
        ({"alpha": 8}, {}, "adapters was ['alpha 16, dropout 0.2'], now ['alpha 8, dropout 0.2']"),
        ({"dropout": 0.3}, {}, "now ['alpha 16, dropout 0.3']"),
        ({"targets": r".*\.attn\.[kv]_proj"}, {}, "trained tensors was"),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_settings_is_refused_naming_them(
    broken_off: Path, emoji: mh.PictureDataset, lora: dict, options: dict, named: str
):
    clip = adapted(**lora)
    before, bytes_before = everything(clip), broken_off.read_bytes()
    with pytest.raises(ValueError, match="is of another run") as error:
        run(clip, emoji, **{"epochs": 3, "checkpoint": broken_off} | options)
    assert named in str(error.value)
    if not lora and "train_logit_scale" not in options:
        assert str(error.value).count(" was ") == 1, "and no other"
    same_bits(everything(clip), before)
    assert broken_off.read_bytes() == bytes_before


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_a_file_that_is_no_checkpoint_is_refused(emoji, tmp_path: Path, content: bytes):
    path = tmp_path / "checkpoint"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint is not a checkpoint of train\(\)"):
        run(adapted(), emoji, checkpoint=path)
    assert path.read_bytes() == content


def test_a_checkpoint_of_the_same_number_of_other_layers_is_refused(emoji, tmp_path: Path):
    path = tmp_path / "checkpoint"
    run(adapted(targets=r"text\..*\.q_proj"), emoji, epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match="names of trained tensors was") as error:
        run(adapted(targets=r"text\..*\.k_proj"), emoji, epochs=1, checkpoint=path)
    assert str(error.value).count(" was ") == 1, "and no other"


def test_a_checkpoint_of_other_pictures_or_captions_is_refused(broken_off: Path, emoji):
    """As many of them: only what they are differs."""
    pairs = emoji.pairs
    swapped = [
        dataclasses.replace(p, captions=q.captions) for p, q in zip(pairs, pairs[::-1], strict=True)
    ]
    for other in (swapped, pairs[::-1]):
        with pytest.raises(ValueError, match="pictures and captions was") as error:
            run(adapted(), mh.PictureDataset(other), epochs=3, checkpoint=broken_off)
        assert str(error.value).count(" was ") == 1
    with pytest.raises(ValueError, match="pairs was 24, now 12"):
        run(adapted(), emoji.subset(range(12)), epochs=3, checkpoint=broken_off)


def test_a_checkpoint_of_another_base_is_refused(broken_off: Path, emoji: mh.PictureDataset):
    clip = adapted()
    clip.model.name_or_path = "MobileCLIP2-S0/dfndr2b"
    with pytest.raises(ValueError, match="model was nano/nano, now MobileCLIP2-S0/dfndr2b"):
        run(clip, emoji, epochs=3, checkpoint=broken_off)
    clip = adapted()
    with torch.no_grad():
        clip.model.text.token_embedding.weight[0, 0] += 1
    with pytest.raises(ValueError, match="frozen weights was"):
        run(clip, emoji, epochs=3, checkpoint=broken_off)


@pytest.mark.parametrize("where", ["while writing", "before renaming"])
def test_a_failed_save_leaves_the_checkpoint_before_it(
    emoji: mh.PictureDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    path = tmp_path / "checkpoint"
    save, fsync, saves = train_module.save_file, train_module.os.fsync, itertools.count(1)

    def save_half(tensors, file, metadata):
        save(tensors, file, metadata=metadata)
        if where == "while writing" and next(saves) == 2:
            Path(file).write_bytes(Path(file).read_bytes()[:1000])
            raise OSError("no space left on device")

    def sync_once(file):
        fsync(file)
        if where == "before renaming" and next(saves) == 2:
            raise OSError("no space left on device")

    monkeypatch.setattr(train_module, "save_file", save_half)
    monkeypatch.setattr(train_module.os, "fsync", sync_once)
    with pytest.raises(OSError, match="no space left"):
        run(adapted(), emoji, epochs=3, checkpoint=path)
    monkeypatch.undo()
    assert stored(path)[1]["epoch"] == 1

    resumed, whole = adapted(), adapted()
    assert run(resumed, emoji, epochs=3, checkpoint=path) == run(whole, emoji, epochs=3)
    same_bits(trainable(resumed), trainable(whole))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]


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


def test_after_diverging_the_checkpoint_is_of_the_last_whole_epoch(
    lora: mh.Clip, emoji: mh.PictureDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    poison_at(lora, 5, monkeypatch)
    with pytest.raises(mh.TrainingDiverged):
        run(lora, emoji, checkpoint=tmp_path / "checkpoint")
    tensors, notes = stored(tmp_path / "checkpoint")
    assert notes["epoch"] == 1
    assert all(t.isfinite().all() for name, t in tensors.items() if name.startswith("parameter/"))


# ---- what is shown ------------------------------------------------------------------------------


# ------------------------------------------------------------------------- precision and memory


def in_precision(clip: mh.Clip, precision: torch.dtype, workers: int = 0) -> mh.Clip:
    compute = mh.Compute(torch.device("cpu"), precision, workers, "a pretended device")
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

    monkeypatch.setattr(mh.Compute, "scaler", far_too_high)
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

    monkeypatch.setattr(mh.Compute, "scaler", lowest)
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


def test_without_progress_it_is_silent(lora: mh.Clip, emoji: mh.PictureDataset, capfd):
    run(lora, emoji, epochs=1, progress=False, evaluate_on={"seen": emoji.subset(range(4))})
    assert capfd.readouterr() == ("", "")


def test_with_progress_it_tells_epoch_loss_and_speed(lora: mh.Clip, emoji, capsys):
    run(lora, emoji, epochs=2, progress=True)
    shown = capsys.readouterr()
    assert "epoch 1/2" in shown.out and "epoch 2/2" in shown.out
    assert "loss" in shown.out and "pairs/s" in shown.out
    assert shown.err == ""


def records(epochs: int, **sets: float) -> mh.History:
    steps = [{"loss": 3.0 - i, "lr": 0.1} for i in range(2 * epochs)]
    return mh.History(steps, [{"epoch": i + 1, "loss": 2.5, **sets} for i in range(epochs)])


def test_the_plot_holds_the_losses_and_a_line_for_each_set():
    history = records(2, train=0.5, val=0.25)
    loss, recall = history.plot().axes
    (line,) = loss.get_lines()
    assert list(line.get_ydata()) == [3.0, 2.0, 1.0, 0.0]
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    drawn = {line.get_label(): list(line.get_ydata()) for line in recall.get_lines()}
    assert drawn == {"train": [50.0, 50.0], "val": [25.0, 25.0]}


def test_without_evaluation_the_plot_is_of_the_loss_alone():
    assert len(records(1).plot().axes) == 1
    assert len(mh.History().plot().axes) == 1


def test_the_table_has_a_row_an_epoch_and_a_column_a_set():
    html = records(2, val=0.25)._repr_html_()
    assert html.count("<tr") == 3
    for shown in ("epoch", "loss", "val", "2.500", "25.0%"):
        assert shown in html
    assert "epoch" in mh.History()._repr_html_()


def test_budget_is_full_unless_the_environment_wants_it_short(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MCLIP_SHORT", raising=False)
    assert mh.budget(30) == 30
    monkeypatch.setenv("MCLIP_SHORT", "1")
    assert mh.budget(30) == 1
    assert mh.budget(30, short=2) == 2
