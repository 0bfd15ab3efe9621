"""Each exercise knows its solution, its stub and its mistakes, and tells them apart."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from mclip_helpers.exercises import EXERCISES, Kind, Mistake, Program, Question, Wrong
from mclip_helpers.exercises.programs import alike, departure

PROGRAMS = [e for e in EXERCISES.values() if isinstance(e, Program)]
QUESTIONS = [e for e in EXERCISES.values() if isinstance(e, Question)]
ALL = list(EXERCISES.values())


def ids(exercises: list) -> list[str]:
    return [e.id for e in exercises]


def answered(exercise: Question, source: str) -> object:
    """What a cell with this source would hand to the check."""
    names: dict = {}
    exec(source, names)
    return names[exercise.name]


def with_wrong(exercise: Question, wrong: Wrong) -> object:
    return {**exercise.right, wrong.part: wrong.value} if wrong.part else wrong.value


@pytest.mark.parametrize("exercise", PROGRAMS, ids=ids(PROGRAMS))
def test_a_solution_is_right_and_a_stub_is_not_yet(exercise: Program):
    assert exercise.finding(exercise.compiled(exercise.solved)).kind is Kind.RIGHT
    assert exercise.finding(exercise.compiled(exercise.stub)).kind is Kind.NOT_YET
    assert exercise.finding(None).kind is Kind.NOT_YET


@pytest.mark.parametrize("exercise", PROGRAMS, ids=ids(PROGRAMS))
def test_every_known_mistake_of_a_program_is_named(exercise: Program):
    for mistake in exercise.mistakes:
        found = exercise.finding(exercise.compiled(exercise.mistaken(mistake)))
        assert (found.kind, found.mistake) == (Kind.MISTAKE, mistake.name), (mistake.name, found)
        assert found.inputs


@pytest.mark.parametrize("exercise", PROGRAMS, ids=ids(PROGRAMS))
def test_no_two_mistakes_of_a_program_do_the_same(exercise: Program):
    assert len(set(exercise.mistake_names)) == len(exercise.mistakes)
    for (one, a), (other, b) in itertools.combinations(
        zip(exercise.mistakes, exercise.mistaken_outcomes, strict=True), 2
    ):
        assert not all(map(alike, a, b)), f"{one.name} = {other.name}"
    for mistake, outcomes in zip(exercise.mistakes, exercise.mistaken_outcomes, strict=True):
        assert any(map(departure, outcomes, exercise.expected)), mistake.name


@pytest.mark.parametrize("exercise", QUESTIONS, ids=ids(QUESTIONS))
def test_every_wrong_answer_to_a_question_is_named(exercise: Question):
    assert exercise.finding(answered(exercise, exercise.solution_source)).kind is Kind.RIGHT
    assert exercise.finding(answered(exercise, exercise.stub)).kind is Kind.NOT_YET
    assert len(set(exercise.mistake_names)) == len(exercise.mistakes)
    for wrong in exercise.mistakes:
        found = exercise.finding(with_wrong(exercise, wrong))
        assert (found.kind, found.mistake) == (Kind.MISTAKE, wrong.name), (wrong, found)


@pytest.mark.parametrize("exercise", QUESTIONS, ids=ids(QUESTIONS))
def test_a_question_with_choices_explains_them_and_has_none_that_is_never_right_or_wrong(
    exercise: Question,
):
    used = {value for value in exercise.parts.values() if isinstance(value, str)}
    used |= {wrong.value for wrong in exercise.mistakes if isinstance(wrong.value, str)}
    if exercise.choices:
        assert used <= exercise.choices.keys()


@pytest.mark.parametrize("exercise", ALL, ids=ids(ALL))
def test_what_every_exercise_has(exercise):
    assert exercise.difficulty in (1, 2, 3) and 1 <= exercise.minutes <= 30
    assert len(exercise.mistakes) >= 6
    assert exercise.asks and exercise.hint_text and exercise.title
    for mistake in exercise.mistakes:
        assert isinstance(mistake, Mistake | Wrong)
        assert 10 < len(mistake.says) <= 260 and mistake.says.endswith((".", "?", "!", ")"))
        assert len(mistake.name) <= 50


def test_there_are_enough_of_them():
    notebooks = [e.notebook for e in ALL]
    assert all(notebooks.count(f"0{i}") >= 3 for i in range(1, 9))
    assert len(ALL) >= 24
    assert sum(len(e.mistakes) for e in ALL) >= 150


def test_stubs_and_solutions_are_formatted_as_the_notebooks_are(tmp_path: Path):
    for exercise in ALL:
        sources = {"stub": exercise.stub}
        if isinstance(exercise, Program):
            sources["solution"] = exercise.solved
        for what, source in sources.items():
            (tmp_path / f"{exercise.id} {what}.py").write_text(f"{source}\n", encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "format", "--check", "--line-length", "100", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
