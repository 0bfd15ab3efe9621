"""Promises about exercises: a check answers whatever it is given, and writes where it may."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cases import Case, files_in
from shown import HOSTILE

import mclip_helpers as mh


def nothing(folder: Path) -> None:
    return None


def with_records(content: str) -> Callable[[Path], Path]:
    """A scene in which the file of the learner's progress is in the folder."""

    def prepare(folder: Path) -> Path:
        os.environ["MCLIP_PROGRESS"] = str(folder / "progress.json")
        (folder / "progress.json").write_text(content, encoding="utf-8")
        return folder

    return prepare


class NoSuchThing:
    def __getattr__(self, name: str) -> object:
        raise RuntimeError(HOSTILE)

    def __call__(self, z: object) -> object:
        return self


def unknown(id: object) -> Case:
    return Case(
        f"exercise({id!r})",
        prepare=nothing,
        does=lambda _: mh.exercise(id),  # type: ignore[arg-type]
        refused=ValueError,
        says=("there is no exercise", "01.1"),
    )


def no_question(number: object) -> Case:
    return Case(
        f"last_test().hint({number!r})",
        prepare=nothing,
        does=lambda _: mh.last_test().hint(number),  # type: ignore[arg-type]
        refused=ValueError,
        says=("questions 1 to 10",),
    )


CASES = [
    *map(no_question, (0, 11, "3", None, [], HOSTILE)),
    Case(
        "answers to the last test that can't be looked at",
        prepare=nothing,
        does=lambda _: mh.last_test().check({1: NoSuchThing(), 2: HOSTILE, HOSTILE: "A"}),
        holds=lambda _, found: found.right == 0 and HOSTILE not in found._repr_html_(),
    ),
    Case(
        "the last test, answered by a list",
        prepare=nothing,
        does=lambda _: mh.last_test().check(["A", "B"]),  # type: ignore[arg-type]
        holds=lambda _, found: "a dictionary with these keys" in repr(found),
    ),
    *map(unknown, ("3.1", "", "03.1 ", 3, 3.1, None, ["03.1"], HOSTILE)),
    Case(
        "an answer that can't be looked at",
        prepare=nothing,
        does=lambda _: mh.exercise("03.3").check(NoSuchThing()),
        holds=lambda _, checked: not checked.finding.is_right and "✗" in repr(checked),
    ),
    Case(
        "an error with hostile words",
        prepare=nothing,
        does=lambda _: mh.exercise("03.3").check(lambda z: getattr(NoSuchThing(), "x")),  # noqa: B009
        holds=lambda _, checked: HOSTILE not in checked._repr_html_() and HOSTILE in repr(checked),
    ),
    Case(
        "hostile words in the file of the progress",
        prepare=with_records(f'{{"version": 1, "checks": "{HOSTILE[:3]}"}}'),
        does=lambda _: mh.progress()._repr_mimebundle_(),
        holds=lambda _, shown: set(shown) == {"image/png"},
        keeps=files_in,
    ),
    Case(
        "a damaged file of the progress is only read",
        prepare=with_records("{"),
        does=lambda _: mh.progress(),
        holds=lambda _, found: "can't be read" in str(found) and not found.solved,
        keeps=files_in,
    ),
]
