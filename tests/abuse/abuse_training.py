"""Promises about training: what can't work is refused before the first step; nothing changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import Case, files_in
from feature_scenes import features, kept, refused_features
from torch import nn
from training_scenes import (
    Scene,
    adapted_to_be_left_alone,
    colours,
    pairs,
    run,
    scene,
    untouchable,
    untouched,
)

import mclip_helpers as mh

NO_NUMBERS = ("8", None, True, math.nan, math.inf, [8], 1j)


def nothing(folder: Path) -> Path:
    return folder


# ---- the arguments of train ---------------------------------------------------------------------

WRONG_NUMBERS = {
    "epochs": (-1, 0, 2.5, 10**9, *NO_NUMBERS),
    "batch_size": (-1, 0, 1, 2.5, 9, 10**6, *NO_NUMBERS),
    "lr": (0, 0.0, -1e-3, -math.inf, "1e-3", *NO_NUMBERS),
    "weight_decay": (-0.1, *NO_NUMBERS),
    "warmup": (-1, -0.1, 1.1, 2, *NO_NUMBERS),
    "seed": (-1, 0.5, 2**70, "0", None, True, math.nan),
    "train_logit_scale": ("no", 1, None),
    "classes": ("yes", 1, None, ["cat", "dog"]),
}


def with_argument(name: str, value: Any) -> Case:
    return Case(
        f"train with {name}={value!r} is refused",
        untouchable,
        lambda s: run(s.clip, **{name: value}),
        refused=(ValueError, TypeError),
        says=(name,),
        keeps=untouched,
    )


def of_one_kind() -> mh.PictureDataset:
    return mh.PictureDataset(pairs(1) * 4)


WRONG_DATASETS = {
    "a list of pairs": pairs,
    "a path": lambda: "my-pictures",
    "a dict of splits": lambda: {"train": colours()},
    "a dataset without pairs": lambda: colours(0),
    "a dataset of one pair": lambda: colours(1),
    "a dataset of one pair, four times": of_one_kind,
    "a loader": lambda: mh.loader(colours(), adapted_to_be_left_alone(), 4),
}
WRONG_CLIPS = {
    "the model": lambda clip: clip.model,
    "the name of a model": lambda clip: "nano",
    "None": lambda clip: None,
    "a list of one": lambda clip: [clip],
}
WRONG_SETS = {
    "empty": lambda: {},
    "a dataset": colours,
    "a list": lambda: [colours()],
    "a path": lambda: "val",
    "a dict with a list": lambda: {"val": pairs()},
    "a dict with None": lambda: {"val": None},
    "a dict with an empty dataset": lambda: {"val": colours(0)},
    "a dict with a set called loss": lambda: {"loss": colours()},
    "a dict with a set called epoch": lambda: {"epoch": colours()},
    "a dict with a set without a name": lambda: {"": colours()},
    "a dict with a set named by blanks": lambda: {"  ": colours()},
    "a dict with a set named by a number": lambda: {1: colours()},
}
WRONG_AUGMENTATIONS = ("flip", 3, [], {"degrees": 10}, True)


def other_dataset(name: str, make: Callable) -> Case:
    return Case(
        f"train on {name} is refused",
        untouchable,
        lambda s: run(s.clip, make()),
        refused=(TypeError, ValueError),
        says=("pairs" if name.startswith("a dataset") else "dataset",),
        keeps=untouched,
    )


def other_clip(name: str, make: Callable) -> Case:
    return Case(
        f"train with {name} in the place of the Clip is refused",
        untouchable,
        lambda s: run(make(s.clip)),
        refused=TypeError,
        says=("pass the Clip that load_model return",),
        keeps=untouched,
    )


def other_sets(name: str, make: Callable) -> Case:
    return Case(
        f"evaluate_on that is {name} is refused before the first step",
        untouchable,
        lambda s: run(s.clip, evaluate_on=make()),
        refused=(TypeError, ValueError),
        says=("evaluate_on",),
        keeps=untouched,
    )


def other_augmentation(value: Any) -> Case:
    return Case(
        f"augment={value!r} is refused",
        untouchable,
        lambda s: run(s.clip, augment=value),
        refused=TypeError,
        says=("augment", "function"),
        keeps=untouched,
    )


# ---- a broken model -----------------------------------------------------------------------------


def with_temperature(value: float) -> Callable[[Path], Scene]:
    def prepare(folder: Path) -> Scene:
        made = scene(folder)
        with torch.no_grad():
            made.clip.model.logit_scale.fill_(value)
        return made

    return prepare


def frozen(folder: Path) -> Scene:
    made = scene(folder)
    made.clip.model.requires_grad_(False)
    return made


BROKEN_TEMPERATURES = [
    Case(
        f"a model whose logit_scale is {value} is refused, and not for its learning rate",
        with_temperature(value),
        lambda s: run(s.clip),
        refused=ValueError,
        says=("model.logit_scale is",),
        keeps=lambda s: [repr(part) for part in untouched(s)],  # NaN is not equal to itself
    )
    for value in (math.nan, math.inf, -math.inf, 1e5, -1e5)
]


def poisoned(folder: Path) -> Scene:
    made = scene(folder)
    with torch.no_grad():
        next(p for p in made.clip.model.parameters() if p.requires_grad and p.dim() > 1).fill_(
            math.nan
        )
    return made


# ---- where the checkpoint can't be --------------------------------------------------------------


def a_file(folder: Path) -> Scene:
    (folder / "thesis.txt").write_text("three years of work")
    return untouchable(folder)


WRONG_PLACES = {
    "a folder": lambda folder: folder,
    "below a file": lambda folder: folder / "thesis.txt" / "run.safetensors",
    "a text of somebody's": lambda folder: folder / "thesis.txt",
    "a name that is too long": lambda folder: folder / ("a" * 300),
    "a name that is too long for what is written beside it": lambda folder: folder / ("a" * 250),
    "a place where nobody can write": lambda folder: Path("/proc/run.safetensors"),
    "a device": lambda folder: Path("/dev/null"),
    "a number": lambda folder: 5,
    "a bool": lambda folder: True,
    "an empty text": lambda folder: "",
    "a name with NUL in it": lambda folder: "run\0.safetensors",
}


def name_in_message(place: Any) -> str:
    return place.name[:20] if isinstance(place, Path) else "" if place == "" else "checkpoint"


def other_place(name: str, make: Callable) -> Case:
    return Case(
        f"a checkpoint at {name} is refused before the first step",
        a_file,
        lambda s: run(s.clip, checkpoint=make(s.folder)),
        refused=(OSError, ValueError, TypeError),
        says=(name_in_message(make(Path())),),
        keeps=lambda s: (untouched(s), files_in(s.folder)),
    )


# ---- batches ------------------------------------------------------------------------------------

WRONG_LOADERS = {
    "batch_size": (0, -1, 2.5, *NO_NUMBERS),
    "seed": (-1, 0.5, "0", None, True, 2**70),
    "workers": (-1, 0.5, "2", None, True),
    "augment": ("flip", 3),
    "classes": ("yes", 1, None),
}


def with_loader_argument(name: str, value: Any, shuffle: bool) -> Case:
    return Case(
        f"loader with {name}={value!r}{', shuffled,' if shuffle else ''} is refused",
        untouchable,
        lambda s: mh.loader(
            colours(), s.clip, **{"batch_size": 4, "shuffle": shuffle} | {name: value}
        ),
        refused=(ValueError, TypeError),
        says=(name,),
        keeps=untouched,
    )


WRONG_GROUPS = {
    "None": None,
    "a text": "aabb",
    "a number": 4,
    "lists": [[0], [1], [2]],
    "a dataset": colours(),
}
BATCHES = [
    *(
        Case(
            f"DistinctBatches of {name} is refused",
            nothing,
            lambda _, groups=groups: mh.DistinctBatches(groups, 2),
            refused=TypeError,
            says=("groups", "dataset.groups"),
        )
        for name, groups in WRONG_GROUPS.items()
    ),
    *(
        Case(
            f"DistinctBatches with batch_size={value!r} is refused",
            nothing,
            lambda _, value=value: mh.DistinctBatches([0, 1, 1, 2], value),
            refused=ValueError,
            says=("batch_size",),
        )
        for value in (-1, 0, 1, 2.5, 4, *NO_NUMBERS)
    ),
    *(
        Case(
            f"DistinctBatches with seed={value!r} is refused",
            nothing,
            lambda _, value=value: mh.DistinctBatches([0, 1, 1, 2], 2, value),
            refused=ValueError,
            says=("seed",),
        )
        for value in (-1, 0.5, "0", None, 2**70)
    ),
    Case(
        "DistinctBatches of a tensor sees which of its groups are the same",
        nothing,
        lambda _: list(mh.DistinctBatches(torch.tensor([0, 0, 0, 1]), 2)),
        holds=lambda _, batches: len(batches) == 1 and 3 in batches[0],
    ),
    *(
        Case(
            f"set_epoch to {value!r} is refused",
            lambda _: mh.loader(colours(), adapted_to_be_left_alone(), 4, shuffle=True),
            lambda batches, value=value: mh.set_epoch(batches, value),
            refused=ValueError,
            says=("epoch",),
            keeps=lambda batches: list(batches.batch_sampler),
        )
        for value in (-1, 1.5, 10**9, *NO_NUMBERS)
    ),
    *(
        Case(
            f"set_epoch of {name} is refused",
            nothing,
            lambda _, make=make: mh.set_epoch(make(), 1),
            refused=ValueError,
            says=("shuffle=True",),
        )
        for name, make in {
            "None": lambda: None,
            "a list": lambda: [1, 2],
            "a loader that does not shuffle": lambda: mh.loader(
                colours(), adapted_to_be_left_alone(), 4
            ),
        }.items()
    ),
    *(
        Case(
            f"warmup_cosine with {name}={value!r} is refused",
            nothing,
            lambda _, name=name, value=value: mh.warmup_cosine(
                **{"step": 1, "total": 10, "warmup": 0.1} | {name: value}
            ),
            refused=ValueError,
            says=(name,),
        )
        for name, values in {
            "step": (-1, 0.5, *NO_NUMBERS),
            "total": (0, -1, 0.5, *NO_NUMBERS),
            "warmup": (-1, 2, *NO_NUMBERS),
        }.items()
        for value in values
    ),
    Case(
        "after its last step, the learning rate stays at 0",
        nothing,
        lambda _: [mh.warmup_cosine(step, 10) for step in range(10, 30)],
        holds=lambda _, factors: max(factors) < 1e-12,
    ),
]


OTHER_LOADERS = [
    Case(
        f"loader of {name} is refused",
        untouchable,
        lambda s, make=make: mh.loader(make(), s.clip, 2, shuffle=True),
        refused=(TypeError, ValueError),
        says=("pairs" if name.startswith("a dataset") else "dataset",),
        keeps=untouched,
    )
    for name, make in WRONG_DATASETS.items()
] + [
    Case(
        f"loader with {name} in the place of the Clip is refused",
        untouchable,
        lambda s, make=make: mh.loader(colours(), make(s.clip), 2),
        refused=TypeError,
        says=("pass the Clip that load_model return",),
        keeps=untouched,
    )
    for name, make in WRONG_CLIPS.items()
]


def gives(value: Any) -> Case:
    return Case(
        f"an augmentation that gives {type(value).__name__} is named",
        scene,
        lambda s: run(s.clip, augment=lambda picture: value),
        refused=TypeError,
        says=("augment gave", type(value).__name__),
    )


# ---- the recipe ---------------------------------------------------------------------------------

RECIPES = [
    *(
        Case(
            f"the recipe's batch fits {count} pictures: a run with it takes a step",
            scene,
            lambda s, count=count: run(
                s.clip,
                colours(count),
                epochs=1,
                batch_size=mh.recipe(s.clip, colours(count)).batch_size,
            ),
            holds=lambda _, history: len(history.steps) >= 1,
        )
        for count in (2, 3, 8)
    ),
    *(
        Case(
            f"recipe with {name} in the place of the Clip is refused",
            untouchable,
            lambda s, make=make: mh.recipe(make(s.clip)),
            refused=TypeError,
            says=("pass the Clip that load_model return",),
            keeps=untouched,
        )
        for name, make in WRONG_CLIPS.items()
    ),
    *(
        Case(
            f"recipe for {name} is refused",
            untouchable,
            lambda s, make=WRONG_DATASETS[name]: mh.recipe(s.clip, make()),
            refused=(TypeError, ValueError),
            says=("dataset",),
            keeps=untouched,
        )
        for name in ("a list of pairs", "a path", "a dict of splits", "a dataset without pairs")
    ),
]

# ---- the loss -----------------------------------------------------------------------------------


WRONG_SCALES = {
    "0": 0,
    "0.0": 0.0,
    "negative": -14.3,
    "NaN": math.nan,
    "infinite": math.inf,
    "a text": "14.3",
    "None": None,
    "a bool": True,
    "complex": 1j,
    "a list": [14.3],
    "a tensor of 0": torch.tensor(0.0),
    "a tensor of a negative number": torch.tensor(-1.0),
    "a tensor of NaN": torch.tensor(math.nan),
    "a tensor of infinity": torch.tensor(math.inf),
    "a tensor of many": torch.ones(4),
    "a column": torch.ones(4, 1),
    "a matrix": torch.ones(4, 4),
    "an empty tensor": torch.ones(0),
    "the model's own parameter, a logarithm": nn.Parameter(torch.tensor(2.66)),
}
WRONG_CLASSES = {
    "a list": [0, 1, 2, 3],
    "names": ["cat", "dog", "cat", "bird"],
    "floats": torch.arange(4.0),
    "NaN": torch.full((4,), math.nan),
    "too few": torch.arange(3),
    "too many": torch.arange(5),
    "a column": torch.arange(4)[:, None],
    "empty": torch.arange(0),
    "all the same": torch.zeros(4, dtype=torch.long),
    "a number": 3,
    "True": True,
}
LOSSES = [
    *(
        Case(
            f"contrastive_loss with classes that are {name} is refused",
            features,
            lambda both, value=value: mh.contrastive_loss(*both, 10.0, value),
            refused=(ValueError, TypeError),
            says=("class",),
            keeps=kept,
        )
        for name, value in WRONG_CLASSES.items()
    ),
    Case(
        "classes may be numbered in any way, negative and large numbers included",
        features,
        lambda both: [
            mh.contrastive_loss(*both, 10.0, torch.tensor(numbers)).item()
            for numbers in ([0, 1, 0, 2], [-5, 2**40, -5, 0])
        ],
        holds=lambda _, losses: losses[0] == losses[1],
    ),
    *(
        Case(
            f"contrastive_loss with a logit_scale that is {name} is refused",
            features,
            lambda both, value=value: mh.contrastive_loss(*both, value),
            refused=ValueError,
            says=("logit_scale",),
            keeps=kept,
        )
        for name, value in WRONG_SCALES.items()
    ),
    *refused_features(
        "contrastive_loss",
        lambda image, text: mh.contrastive_loss(image, text, 10.0),
        fewer=lambda x: x[:3],  # a retrieval may have fewer pictures than texts
    ),
    *(
        Case(
            f"features of zeros have no direction in {dtype}, and the loss is ln 4",
            lambda _, dtype=dtype: torch.zeros(4, 8, dtype=dtype, requires_grad=True),
            lambda zeros: mh.contrastive_loss(zeros, zeros, 100.0),
            holds=lambda _, loss: math.isclose(loss.item(), math.log(4), rel_tol=0.01),
        )
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    ),
    *(
        Case(
            f"a multiplier of {value} is a multiplier, in a number and in a tensor",
            features,
            lambda both, value=value: [
                mh.contrastive_loss(*both, scale)
                for scale in (value, torch.tensor(float(value)), torch.tensor([float(value)]))
            ],
            holds=lambda _, losses: losses[0] == losses[1] == losses[2],
        )
        for value in (0.1, 1, 2.66, 100, 120)
    ),
]

CASES = [
    *(with_argument(name, value) for name, values in WRONG_NUMBERS.items() for value in values),
    *(other_dataset(*named) for named in WRONG_DATASETS.items()),
    *(other_clip(*named) for named in WRONG_CLIPS.items()),
    *(other_sets(*named) for named in WRONG_SETS.items()),
    *(other_augmentation(value) for value in WRONG_AUGMENTATIONS),
    *(gives(value) for value in (None, torch.zeros(3, 8, 8), "flipped")),
    *(other_place(*named) for named in WRONG_PLACES.items()),
    *BROKEN_TEMPERATURES,
    Case(
        "a model with NaN in its weights is not blamed on the learning rate",
        poisoned,
        lambda s: run(s.clip),
        refused=mh.TrainingDiverged,
        says=("step 1 of epoch 1", "the learning rate is not the cause"),
    ),
    Case(
        "a model in which nothing asks for a gradient is refused",
        frozen,
        lambda s: run(s.clip),
        refused=ValueError,
        says=("inject_lora",),
        keeps=untouched,
    ),
    *(
        with_loader_argument(name, value, shuffle)
        for shuffle in (False, True)
        for name, values in WRONG_LOADERS.items()
        for value in values
    ),
    *OTHER_LOADERS,
    *BATCHES,
    *RECIPES,
    *LOSSES,
]
