"""The last test: every wrong choice is explained, and nothing but understanding finds the right."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from shown import HOSTILE, words, xml
from test_catalogue import with_wrong

import mclip_helpers as mh
from mclip_helpers.exercises import EXERCISES, Kind, Question, records
from mclip_helpers.exercises.last_test import LETTERS, QUESTIONS

RIGHT = {number: question.right for number, question in enumerate(QUESTIONS, start=1)}
STUB = dict.fromkeys(RIGHT, "?")


@pytest.fixture
def progress(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MCLIP_PROGRESS", str(tmp_path / "progress.json"))


def test_there_are_ten_questions_with_ids_of_their_own():
    assert [question.id for question in QUESTIONS] == [f"last.{n}" for n in range(1, 11)]
    assert not {question.id for question in QUESTIONS} & EXERCISES.keys()
    assert len({question.title for question in QUESTIONS}) == 10


def test_no_letter_is_favoured():
    counts = Counter(RIGHT.values())
    assert counts.keys() == set(LETTERS)
    assert max(counts.values()) - min(counts.values()) <= 1
    order = list(RIGHT.values())
    assert all(a != b for a, b in itertools.pairwise(order))


def test_length_gives_nothing_away():
    """By chance the right choice is the longest in a quarter of ten questions, or the shortest."""
    for extreme in (max, min):
        found = [q.right == extreme(q.choices, key=lambda c: len(q.choices[c])) for q in QUESTIONS]
        assert sum(found) <= 4, extreme


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_each_wrong_choice_has_its_sentence(question: Question):
    assert "".join(question.choices) == LETTERS
    assert len(set(question.choices.values())) == 4
    assert len(set(question.mistake_names)) == 3
    for wrong in question.mistakes:
        found = question.finding(with_wrong(question, wrong))
        assert (found.kind, found.mistake) == (Kind.MISTAKE, wrong.name)
        assert 10 < len(found.says) <= 260 and found.says.endswith((".", "?", "!"))
        assert question.choices[question.right] not in found.says
    assert question.hint_text and question.remark


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_an_answer_may_be_a_small_letter_and_no_other_word(question: Question):
    assert question.finding(question.right.lower()).kind is Kind.RIGHT
    assert question.finding("E").kind is Kind.NO_CHOICE


def test_it_shows_all_questions_and_no_answer():
    test = mh.last_test()
    shown = words(xml(f"<div>{test._repr_html_()}</div>"))
    for question in QUESTIONS:
        for text in (question.title, *question.choices.values()):
            assert text in shown and text in repr(test)
        for hidden in (question.remark, *(wrong.says for wrong in question.mistakes)):
            assert hidden not in repr(test) + test._repr_html_()
    assert "Notebook 02" in repr(test.hint(1))
    with pytest.raises(ValueError, match="questions 1 to 10, not 11"):
        test.hint(11)


def test_the_stub_is_open_and_leaves_no_trace(progress):
    checked = mh.last_test().check(STUB)
    assert checked.right == 0
    assert "Still open: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10." in repr(checked)
    assert not records.path().exists()


def test_right_answers_are_counted_and_explained(progress):
    checked = mh.last_test().check(RIGHT)
    assert checked.right == 10 and repr(checked).startswith("10 of 10 are right.")
    assert all(question.remark in repr(checked) for question in QUESTIONS)
    assert [r.kind for r in records.read()] == ["right"] * 10


def test_a_wrong_answer_is_explained_and_noted_for_the_teacher(progress):
    checked = mh.last_test().check({1: "B", 2: RIGHT[2]})
    assert checked.right == 1
    wrong = next(wrong for wrong in QUESTIONS[0].mistakes if wrong.value == "B")
    shown = words(xml(f"<div>{checked._repr_html_()}</div>"))
    assert wrong.says in shown and "1 of 10 are right. Still open: 3, " in shown
    assert mh.progress().mistakes == {("last.1", wrong.name): 1}


@pytest.mark.parametrize("answers", [None, ["A"], "ABCD", {"1": "A"}, {1: [], 2: HOSTILE, 3: {}}])
def test_whatever_comes_there_is_no_traceback(progress, answers):
    checked = mh.last_test().check(answers)
    assert checked.right == 0
    xml(f"<div>{checked._repr_html_()}</div>")
    if not isinstance(answers, dict):
        assert "a dictionary with these keys: 1, 2, 3" in repr(checked)
