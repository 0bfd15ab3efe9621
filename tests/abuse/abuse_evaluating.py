"""Promises about evaluation: no number is reported of what can't be measured."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import Case
from feature_scenes import features, kept, refused_features
from training_scenes import (
    Scene,
    adapted,
    colours,
    pairs,
    plain_picture,
    scene,
    untouchable,
    untouched,
)

import mclip_helpers as mh

NO_NUMBERS = ("8", None, True, math.nan, math.inf, [8])


# ---- retrieval ----------------------------------------------------------------------------------


WRONG_OPTIONS: dict[str, tuple] = {
    "ks": (
        (),
        (0,),
        (-1,),
        (1, 0),
        (2.5,),
        (1, 1),
        (1, 5, 5),
        ("1",),
        (None,),
        (True,),
        "15",
        5,
        None,
    ),
    "chunk": (0, -1, 2.5, *NO_NUMBERS),
    "groups": (
        [0],
        [0, 1, 2, 3, 4],
        [0.5, 1.5, 2.5, 3.5],
        ["a", "b", "c", "d"],
        "abcd",
        4,
        [[0], [1], [2], [3]],
        [0, 1, 2, None],
        [True, False, True, False],
    ),
    "text_groups": ([0], [0, 1, 2, 7], [0.0, 1.0, 2.0, 3.0], "abcd", [[0], [1], [2], [3]]),
}
RETRIEVAL = [
    *refused_features("retrieval", mh.retrieval),
    *(
        Case(
            f"retrieval names the row {row} with NaN",
            features,
            lambda both, row=row: mh.retrieval(
                both[0], both[1].index_fill(0, torch.tensor([row]), math.nan)
            ),
            refused=ValueError,
            says=("text_features", f"1 of 4 rows ({row})"),
        )
        for row in (0, 3)
    ),
    *(
        Case(
            f"retrieval with {name}={value!r} is refused",
            features,
            lambda both, name=name, value=value: mh.retrieval(*both, **{name: value}),
            refused=(TypeError, ValueError),
            says=("group" if name.endswith("groups") else name,),
            keeps=kept,
        )
        for name, values in WRONG_OPTIONS.items()
        for value in values
    ),
    Case(
        "a k above the number of answers is no mistake: all are found",
        features,
        lambda both: mh.retrieval(*both, ks=(1000,)),
        holds=lambda _, found: found.image_to_text == found.text_to_image == {1000: 1.0},
    ),
    *(
        Case(
            f"features of zeros in {dtype} find nothing, and are not NaN",
            lambda _, dtype=dtype: torch.zeros(4, 8, dtype=dtype),
            lambda zeros: mh.retrieval(zeros, zeros, ks=(1,)),
            holds=lambda _, found: found.image_to_text == found.text_to_image == {1: 0.0},
        )
        for dtype in (torch.float16, torch.bfloat16, torch.float32)
    ),
]

# ---- embed and evaluate -------------------------------------------------------------------------

WRONG_CLIPS: dict[str, Callable[[mh.Clip], Any]] = {
    "the model": lambda clip: clip.model,
    "the name of a model": lambda clip: "nano",
    "None": lambda clip: None,
    "a list of one": lambda clip: [clip],
}
WRONG_DATASETS: dict[str, Callable[[], Any]] = {
    "a list of pairs": pairs,
    "a list of pictures": lambda: [plain_picture("red")],
    "a path": lambda: "my-pictures",
    "None": lambda: None,
    "a dict of splits": lambda: {"test": colours()},
    "a dataset without pairs": lambda: colours(0),
}
CALLS = {"embed": mh.embed, "evaluate": mh.evaluate}


def all_nan(folder: Path) -> Scene:
    made = scene(folder)
    with torch.no_grad():
        for parameter in made.clip.model.parameters():
            parameter.fill_(math.nan)
    return made


DATASETS = [
    *(
        Case(
            f"{name} with {other} in the place of the Clip is refused",
            untouchable,
            lambda s, call=call, make=make: call(make(s.clip), colours()),
            refused=TypeError,
            says=("pass the Clip that load_model return",),
            keeps=untouched,
        )
        for (name, call), (other, make) in itertools.product(CALLS.items(), WRONG_CLIPS.items())
    ),
    *(
        Case(
            f"{name} of {other} is refused",
            untouchable,
            lambda s, call=call, make=make: call(s.clip, make()),
            refused=(TypeError, ValueError),
            says=("dataset",),
            keeps=untouched,
        )
        for (name, call), (other, make) in itertools.product(CALLS.items(), WRONG_DATASETS.items())
    ),
    *(
        Case(
            f"{name} with batch_size={value!r} is refused",
            untouchable,
            lambda s, call=call, value=value: call(s.clip, colours(), value),
            refused=ValueError,
            says=("batch_size",),
            keeps=untouched,
        )
        for (name, call), value in itertools.product(CALLS.items(), (0, -1, 2.5, *NO_NUMBERS))
    ),
    Case(
        "evaluate of a model that is NaN throughout reports no recall",
        all_nan,
        lambda s: mh.evaluate(s.clip, colours()),
        refused=ValueError,
        says=("image_features has NaN or infinite values in 8 of 8 rows",),
    ),
    Case(
        "evaluate leaves the model in the mode it was in",
        untouchable,
        lambda s: mh.evaluate(s.clip, colours(2)),
        holds=lambda _, found: found.pictures == 2,
        keeps=untouched,
    ),
]

# ---- zero-shot ----------------------------------------------------------------------------------

LABELS = ("a cat", "a dog")
RIGHT = {"labels": LABELS, "templates": ("a picture of {}",)}
WRONG_LABELS = (
    "cat",
    "a cat, a dog",
    (),
    ("a cat",),
    ("a cat", "a cat"),
    ("a cat", "a dog", "a cat"),
    ("a cat", ""),
    ("a cat", "  "),
    ("a cat", "\n"),
    ("a cat", None),
    ("a cat", 3),
    (b"a cat", b"a dog"),
    None,
    3,
)
WRONG_TEMPLATES = (
    "a picture of {}",
    "{}",
    (),
    ("a picture",),
    ("{}", "a picture"),
    ("{name}",),
    ("{} and {}",),
    ("{} of {name}",),
    ("{0.real}",),
    ("{:>1000000}",),
    ("{!r}",),
    ("{",),
    ("}",),
    ("{}}",),
    ("{{}}",),
    (None,),
    (3,),
    None,
)
WRONG_PICTURES: dict[str, Callable[[], Any]] = {
    "a path": lambda: "cat.jpg",
    "a list of paths": lambda: ["cat.jpg"],
    "a list of Paths": lambda: [Path("cat.jpg")],
    "one picture, not in a list": lambda: plain_picture("red"),
    "an empty list": lambda: [],
    "None": lambda: None,
    "a list with None": lambda: [None],
    "a list of bytes": lambda: [b"\xff\xd8"],
    "a tensor": lambda: torch.zeros(1, 3, 8, 8),
    "a list of tensors": lambda: [torch.zeros(3, 8, 8)],
    "a list with a pair of a dataset": lambda: [colours()[0]],
    "a dataset": colours,
}


def classify(clip: Any, pictures: Any = None, **options: Any) -> torch.Tensor:
    shown = [plain_picture("red")] if pictures is None else pictures
    return mh.zero_shot(clip, shown, **RIGHT | options)


ZERO_SHOT = [
    *(
        Case(
            f"zero_shot with {name}={value!r} is refused",
            untouchable,
            lambda s, name=name, value=value: classify(s.clip, **{name: value}),
            refused=(TypeError, ValueError),
            says=(name[:5],),
            keeps=untouched,
        )
        for name, values in (("labels", WRONG_LABELS), ("templates", WRONG_TEMPLATES))
        for value in values
    ),
    *(
        Case(
            f"zero_shot of {name} is refused",
            untouchable,
            lambda s, make=make: mh.zero_shot(s.clip, make(), **RIGHT),
            refused=(TypeError, ValueError),
            says=("pictures",),
            keeps=untouched,
        )
        for name, make in WRONG_PICTURES.items()
    ),
    *(
        Case(
            f"zero_shot with {name} in the place of the Clip is refused",
            untouchable,
            lambda s, make=make: classify(make(s.clip)),
            refused=TypeError,
            says=("pass the Clip that load_model return",),
            keeps=untouched,
        )
        for name, make in WRONG_CLIPS.items()
    ),
    Case(
        "zero_shot with a model that is NaN throughout gives no probabilities",
        all_nan,
        lambda s: classify(s.clip),
        refused=ValueError,
        says=("features", "NaN"),
    ),
    Case(
        "a label may have braces in it",
        lambda folder: Scene(adapted(), folder),
        lambda s: classify(s.clip, labels=["a {cat}", "{}"]),
        holds=lambda _, shares: shares.shape == (1, 2) and bool(shares.isfinite().all()),
    ),
]

CASES = [*RETRIEVAL, *DATASETS, *ZERO_SHOT]
