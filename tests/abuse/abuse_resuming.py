"""Promises about a run that stops and goes on: nothing is lost, nothing damaged is taken up."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from cases import Case, files_in
from conftest import fresh
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.optim import optimizer as optimizers
from training_scenes import (
    Scene,
    adapted,
    adapted_to_be_left_alone,
    colours,
    plain_picture,
    run,
    untouched,
)

import mclip_helpers as mh
from mclip_helpers.data import Pair

NAME = "run.safetensors"
PICTURES = 8  # of an epoch


class Stop(Exception):
    """What ends a run before its time."""


def stop_after(count: int, error: BaseException) -> Callable[[Image.Image], Image.Image]:
    calls = itertools.count(1)

    def augment(picture: Image.Image) -> Image.Image:
        if next(calls) > count:
            raise error
        return picture

    return augment


@functools.cache
def _checkpoint() -> bytes:
    """The file of a run that stopped in the second of its two epochs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        try:
            run(adapted(), checkpoint=path, augment=stop_after(PICTURES, Stop()))
        except Stop:
            return path.read_bytes()
    raise AssertionError("it did not stop")


def stopped(folder: Path) -> Scene:
    """A checkpoint, and a model that could go on from it."""
    (folder / NAME).write_bytes(_checkpoint())
    return Scene(adapted_to_be_left_alone(), folder)


def resume(s: Scene, **options: Any) -> mh.History:
    return run(s.clip, checkpoint=s.folder / NAME, **options)


def kept(s: Scene) -> Any:
    return untouched(s), files_in(s.folder)


def refused(name: str, harm: Callable[[Path], Any], *says: str, **options: Any) -> Case:
    """A promise that a checkpoint is refused after `harm` was done to its file."""

    def prepare(folder: Path) -> Scene:
        made = stopped(folder)
        harm(folder / NAME)
        return made

    return Case(
        name,
        prepare,
        lambda s: resume(s, **options),
        refused=ValueError,
        says=(NAME, *says),
        keeps=kept,
    )


# ---- damaged files ------------------------------------------------------------------------------


def flip(share: float, bit: int) -> Callable[[Path], Any]:
    def harm(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[min(int(share * len(content)), len(content) - 1)] ^= 1 << bit
        path.write_bytes(content)

    return harm


def cut(share: float) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 8)


Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]


def rewritten(change: Change) -> Callable[[Path], Any]:
    """Write the file anew, as anybody could with the safetensors library, with `change`."""

    def harm(path: Path) -> None:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        notes = json.loads(metadata["notes"])
        change(tensors, notes)
        save_file(tensors, path, metadata=metadata | {"notes": json.dumps(notes)})

    return harm


def first(tensors: dict[str, torch.Tensor], start: str) -> str:
    return min(name for name in tensors if name.startswith(start))


def fill(start: str, value: float) -> Change:
    def change(tensors: dict[str, torch.Tensor], notes: dict[str, Any]) -> None:
        numbers = {name: t for name, t in tensors.items() if t.is_floating_point()}
        tensors[first(numbers, start)].fill_(value)

    return change


def drop(start: str) -> Change:
    return lambda tensors, notes: tensors.pop(first(tensors, start))


def note(*keys: Any, value: Any) -> Change:
    def change(tensors: dict[str, torch.Tensor], notes: dict[str, Any]) -> None:
        place: Any = notes
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def replaced(start: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def change(tensors: dict[str, torch.Tensor], notes: dict[str, Any]) -> None:
        name = first(tensors, start)
        tensors[name] = make(tensors[name]).contiguous()

    return change


CHANGES: dict[str, Change] = {
    "NaN in a weight": fill("parameter/", math.nan),
    "an infinite weight": fill("parameter/", math.inf),
    "a weight of 7": fill("parameter/", 7.0),
    "NaN in a buffer": fill("buffer/", math.nan),
    "NaN in the optimizer's averages": fill("optimizer/0/exp_avg", math.nan),
    "a negative step": fill("optimizer/0/step", -5.0),
    "a weight missing": drop("parameter/"),
    "a buffer missing": drop("buffer/"),
    "the optimizer's averages missing": drop("optimizer/"),
    "the random state missing": drop("random/torch"),
    "an empty random state": replaced("random/torch", lambda t: t[:0]),
    "a random state of zeros": replaced("random/torch", torch.zeros_like),
    "a weight in double precision": replaced("parameter/", lambda t: t.double()),
    "a weight turned round": replaced("parameter/", lambda t: t.flip(0) + 1),
    "a weight of another shape": replaced("parameter/", lambda t: t.flatten()[:1]),
    "a tensor too many": lambda tensors, notes: tensors.update(thesis=torch.ones(3)),
    "no optimizer in the notes": note("optimizer", "state", value=[]),
    "no optimizer at all": lambda tensors, notes: notes.pop("optimizer"),
    "no history": lambda tensors, notes: notes.pop("history"),
    "an empty history": note("history", value={"steps": [], "epochs": []}),
    "a history that is a text": note("history", value="none"),
    "five epochs of two": lambda tensors, notes: notes["history"].update(
        epochs=[{"epoch": e, "loss": 1.0} for e in range(1, 6)]
    ),
    "an epoch with a negative number": note("history", "epochs", 0, "epoch", value=-1),
    "an epoch whose loss is NaN": note("history", "epochs", 0, "loss", value=math.nan),
    "a step taken away": lambda tensors, notes: notes["history"]["steps"].pop(),
    "no schedule": lambda tensors, notes: notes.pop("scheduler"),
    "an empty schedule": note("scheduler", value={}),
    "a schedule that has run for ever": note("scheduler", "last_epoch", value=10**6),
    "a schedule before its beginning": note("scheduler", "last_epoch", value=-10),
    "a learning rate of a million": note("optimizer", "param_groups", 0, "initial_lr", value=1e6),
    "no random state of Python's": lambda tensors, notes: notes.pop("python's random state"),
    "an odd random state of Python's": note("python's random state", value=[3, [1, 2], None]),
    "no fingerprint": lambda tensors, notes: notes.pop("fingerprint"),
    "a fingerprint that is a list": note("fingerprint", value=[]),
}

PLACES = (0.0, 0.00001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
DAMAGED = [
    *(
        refused(
            f"a checkpoint with bit {bit} flipped at {share:.3%} of it is refused", flip(share, bit)
        )
        for share, bit in itertools.product(PLACES, (0, 5))
    ),
    *(
        refused(f"a checkpoint cut off at {share:.2%} is refused", cut(share))
        for share in (0.0, 0.0001, 0.01, 0.5, 0.999)
    ),
    refused("a checkpoint with more behind its end is refused", lengthen),
    *(
        refused(f"a checkpoint rewritten with {name} is refused", rewritten(change))
        for name, change in CHANGES.items()
    ),
]

# ---- another run, another file ------------------------------------------------------------------


def other_captions() -> mh.PictureDataset:
    return mh.PictureDataset(
        [dataclasses.replace(p, captions=(p.captions[0] + "!",)) for p in colours().pairs]
    )


OTHER_RUNS: dict[str, dict[str, Any]] = {
    "epochs": {"epochs": 3},
    "batch_size": {"batch_size": 2},
    "lr": {"lr": 2e-3},
    "weight_decay": {"weight_decay": 0.1},
    "warmup": {"warmup": 0.5},
    "seed": {"seed": 1},
    "train_logit_scale": {"train_logit_scale": True},
    "pairs": {"dataset": colours(7)},
    "pictures and captions": {"dataset": other_captions()},
}
FOREIGN = {
    "a text": b"three years of work",
    "nothing in it": b"",
    "a pickle": b"\x80\x04K\x01.",
    "a picture": b"\xff\xd8\xff\xe0",
    "a folder packed": b"PK\x03\x04",
    "a header of a terabyte": (2**40).to_bytes(8, "little") + b"{}",
}


def moved(change: Callable[[mh.Clip], Any]) -> Callable[[Path], Scene]:
    def prepare(folder: Path) -> Scene:
        made = stopped(folder)
        clip = adapted()
        change(clip)
        return Scene(clip, made.folder)

    return prepare


def no_longer_frozen(clip: mh.Clip) -> None:
    mh.unfreeze_batch_norm(clip.model)


def rescaled(clip: mh.Clip) -> None:
    for _, layer in mh.lora_layers(clip.model):
        layer.scaling["default"] *= 2


def dropping(clip: mh.Clip) -> None:
    clip.model.visual.trunk.head.drop = torch.nn.Dropout(0.5)


def another_base(clip: mh.Clip) -> None:
    with torch.no_grad():
        clip.model.text.token_embedding.weight[0, 0] += 1


OTHERS = [
    *(
        refused(
            f"the checkpoint of a run with another {name} is refused, and says so",
            lambda path: None,
            "is of another run",
            name,
            **options,
        )
        for name, options in OTHER_RUNS.items()
    ),
    *(
        Case(
            f"the checkpoint is refused for a model with {name}",
            moved(change),
            resume,
            refused=ValueError,
            says=("is of another run",),
            keeps=kept,
        )
        for name, change in {
            "batch norm that moves again": no_longer_frozen,
            "adapters that weigh twice as much": rescaled,
            "dropout where there was none": dropping,
            "other frozen weights": another_base,
        }.items()
    ),
    *(
        refused(
            f"a file with {name} in the place of the checkpoint is refused, and stays",
            lambda path, content=content: path.write_bytes(content),
            "is not a checkpoint of train()",
        )
        for name, content in FOREIGN.items()
    ),
    refused(
        "weights of another program in the place of the checkpoint are refused, and stay",
        lambda path: save_file({"weight": torch.ones(3)}, path),
        "is not a checkpoint of train()",
    ),
]

# ---- interrupted --------------------------------------------------------------------------------


@dataclasses.dataclass
class Watched(Scene):
    """A run whose numbers are noted whenever it reads a picture: as the last step left them."""

    moving: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    noted: dict[str, bytes] = dataclasses.field(default_factory=dict)
    reads: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))
    fails: dict[int, BaseException] = dataclasses.field(default_factory=dict)

    def read(self, colour: str) -> Image.Image:
        self.noted = self.numbers()
        if error := self.fails.get(next(self.reads)):
            raise error
        return plain_picture(colour)

    def numbers(self) -> dict[str, bytes]:
        return {name: t.detach().numpy().tobytes() for name, t in self.moving.items()}

    def dataset(self) -> mh.PictureDataset:
        return mh.PictureDataset(
            [
                Pair(p.name, p.captions, p.digest, functools.partial(self.read, p.name))
                for p in colours().pairs
            ]
        )


def watched(clip: mh.Clip, folder: Path) -> Watched:
    moving = dict(clip.model.named_buffers())
    moving |= {name: p for name, p in clip.model.named_parameters() if p.requires_grad}
    return Watched(clip, folder, moving)


def lora(folder: Path) -> Watched:
    return watched(adapted(), folder)


def fully_tuned(folder: Path) -> Watched:
    """Batch norm moves in each forward pass, also in one whose step is not taken."""
    clip = fresh("nano")
    clip.model.requires_grad_(True)
    return watched(clip, folder)


STEP = 4  # the one that is cut short: the last of two epochs of two
READ = 13  # the first picture that it reads


@contextmanager
def reading(s: Watched, error: BaseException) -> Iterator[dict[str, Any]]:
    s.fails[READ] = error
    yield {}


@contextmanager
def augmenting(s: Watched, error: BaseException) -> Iterator[dict[str, Any]]:
    yield {"augment": stop_after(READ, error)}


@contextmanager
def forward(s: Watched, error: BaseException) -> Iterator[dict[str, Any]]:
    passes = itertools.count(1)

    def hook(*_: Any) -> None:
        if next(passes) == STEP:
            raise error

    handle = s.clip.model.visual.register_forward_hook(hook)
    yield {}
    handle.remove()


@contextmanager
def backward(s: Watched, error: BaseException) -> Iterator[dict[str, Any]]:
    passes = itertools.count(1)

    def hook(gradient: torch.Tensor) -> None:
        if next(passes) == STEP:
            raise error

    parameter = next(p for n, p in s.moving.items() if p.requires_grad and n != "logit_scale")
    handle = parameter.register_hook(hook)
    yield {}
    handle.remove()


@contextmanager
def stepping(s: Watched, error: BaseException) -> Iterator[dict[str, Any]]:
    """The optimizer has changed everything, and has not come back."""
    steps = itertools.count(1)

    def hook(*_: Any) -> None:
        if next(steps) == STEP:
            raise error

    handle = optimizers.register_optimizer_step_post_hook(hook)
    yield {}
    handle.remove()


@contextmanager
def evaluating(s: Watched, error: BaseException) -> Iterator[dict[str, Any]]:
    s.fails[2 * PICTURES + 2 * PICTURES - 1] = error  # of the second epoch's evaluation
    yield {"evaluate_on": {"val": s.dataset()}}


@contextmanager
def writing(s: Watched, error: BaseException) -> Iterator[dict[str, Any]]:
    """While the second checkpoint goes to the disk."""
    original, writes = os.fsync, itertools.count(1)

    def fsync(file: int) -> None:
        if next(writes) == 2:
            raise error
        original(file)

    os.fsync = fsync
    try:
        yield {"evaluate_on": {"val": s.dataset()}}  # which notes what the last step left
    finally:
        os.fsync = original


def ends(trouble: Callable, error: BaseException) -> Callable[[Watched], BaseException | None]:
    def does(s: Watched) -> BaseException | None:
        with trouble(s, error) as options:
            try:
                run(s.clip, s.dataset(), checkpoint=s.folder / NAME, **options)
            except BaseException as raised:
                return raised
        return None

    return does


@functools.cache
def _undisturbed(make: Callable[[Path], Watched], evaluated: bool) -> dict[str, bytes]:
    s = make(Path())
    run(s.clip, s.dataset(), **{"evaluate_on": {"val": s.dataset()}} if evaluated else {})
    return s.numbers()


def left_whole(s: Watched, error: BaseException | None) -> bool:
    """The model is usable, and as the last whole step left it."""
    model = s.clip.model
    return (
        error is not None
        and not model.training
        and all(p.grad is None for p in model.parameters())
        and model.logit_scale.requires_grad
        and s.numbers() == s.noted
        and [path.name for path in s.folder.iterdir()] == [NAME]
    )


def goes_on(make: Callable[[Path], Watched], evaluated: bool) -> Callable[[Watched, Any], bool]:
    def holds(s: Watched, error: BaseException | None) -> bool:
        if not left_whole(s, error):
            return False
        s.fails.clear()
        more = {"evaluate_on": {"val": s.dataset()}} if evaluated else {}
        run(s.clip, s.dataset(), checkpoint=s.folder / NAME, **more)
        return s.numbers() == _undisturbed(make, evaluated)

    return holds


TROUBLES: dict[str, tuple[Callable, Callable[[], BaseException]]] = {
    "a picture that vanishes": (reading, lambda: FileNotFoundError("pink.png")),
    "a picture that is damaged": (reading, lambda: ValueError("pink.png is truncated")),
    "Ctrl-C while a picture is read": (reading, KeyboardInterrupt),
    "an augmentation that raises": (augmenting, lambda: ZeroDivisionError("by zero")),
    "Ctrl-C in the forward pass": (forward, KeyboardInterrupt),
    "Ctrl-C in the backward pass": (backward, KeyboardInterrupt),
    "Ctrl-C in the optimizer's step": (stepping, KeyboardInterrupt),
    "a memory that is full in the optimizer's step": (
        stepping,
        lambda: torch.OutOfMemoryError("CUDA out of memory"),
    ),
    "Ctrl-C in the evaluation": (evaluating, KeyboardInterrupt),
    "Ctrl-C while the checkpoint is written": (writing, KeyboardInterrupt),
    "a disk that is full": (writing, lambda: OSError(28, "No space left on device")),
}
IN_FULL = ("forward", "backward", "stepping", "evaluating")
INTERRUPTED = [
    Case(
        f"{name} leaves {whose} whole, and the run goes on to the same bits",
        make,
        lambda s, trouble=trouble, error=error: ends(trouble, error())(s),
        holds=goes_on(make, trouble in (evaluating, writing)),
    )
    for make, whose in ((lora, "the adapters"), (fully_tuned, "a model that is tuned in full"))
    for name, (trouble, error) in TROUBLES.items()
    if make is lora or trouble.__name__ in IN_FULL
]

# ---- what else is promised of the file ----------------------------------------------------------


def linked(folder: Path) -> Scene:
    (folder / "elsewhere").mkdir()
    (folder / NAME).symlink_to(folder / "elsewhere" / "real.safetensors")
    return Scene(adapted(), folder)


def litter(folder: Path) -> Scene:
    """What a process left that was killed while it wrote."""
    run(adapted(), epochs=1, checkpoint=folder / NAME)
    (folder / f".{NAME}.mclip-new").write_bytes(b"half a checkpoint")
    return Scene(adapted(), folder)


FILES = [
    Case(
        "a symbolic link stays one, and what it points to is the checkpoint",
        linked,
        lambda s: resume(s, epochs=1),
        holds=lambda s, _: (
            (s.folder / NAME).is_symlink()
            and (s.folder / "elsewhere" / "real.safetensors").is_file()
        ),
    ),
    Case(
        "what a killed process left beside the checkpoint is cleaned away",
        litter,
        lambda s: resume(s, epochs=1),
        holds=lambda s, _: [path.name for path in s.folder.iterdir()] == [NAME],
    ),
    Case(
        "a refused run moves no random number",
        stopped,
        lambda s: resume(s, lr=1.0),
        refused=ValueError,
        says=("lr",),
        keeps=lambda s: (torch.get_rng_state().tolist(), random.getstate()),
    ),
]

CASES = [*DAMAGED, *OTHERS, *INTERRUPTED, *FILES]
