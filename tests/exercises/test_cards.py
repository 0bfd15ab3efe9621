"""What an exercise shows, in a notebook and elsewhere."""

from __future__ import annotations

import pytest
from shown import HOSTILE, words, xml
from test_catalogue import ALL, ids

import mclip_helpers as mh
from mclip_helpers.display import html_text
from mclip_helpers.exercises import Question
from mclip_helpers.exercises.cards import _inline


@pytest.mark.parametrize("exercise", ALL, ids=ids(ALL))
def test_an_exercise_shows_what_is_asked_and_its_solution(exercise):
    card = words(xml(exercise._repr_html_()))
    assert exercise.title in card and exercise.stars in card
    assert f"{exercise.minutes} minutes" in card
    assert exercise.asks in repr(exercise)
    assert words(xml(exercise.hint()._repr_html_())).startswith(f"{exercise.id} · Hint")
    solution = exercise.solution()
    assert exercise.solution_source in repr(solution)
    assert html_text(exercise.solution_source, 5_000) in solution._repr_html_()
    if isinstance(exercise, Question):
        assert all(word in card for word in exercise.choices)


def test_an_exercise_does_not_show_its_solution_unasked():
    for exercise in ALL:
        if not isinstance(exercise, Question):
            assert exercise.solution_source not in repr(exercise) + repr(exercise.hint())


def test_code_and_hostile_text_are_shown_as_text():
    def mine(z):
        raise ValueError(HOSTILE)

    checked = mh.exercise("03.3").check(mine)
    card = xml(checked._repr_html_())
    assert HOSTILE in words(card) and "<b>&" not in checked._repr_html_()
    assert "raise ValueError(HOSTILE)" in [e.text for e in card.iter("code")]


def test_a_check_shows_green_or_not_and_says_so_in_words():
    right = mh.exercise("05.4").check(-0.2)
    wrong = mh.exercise("05.4").check(0.4)
    open_ = mh.exercise("05.4").check(None)
    signs = [repr(checked)[0] for checked in (right, wrong, open_)]
    assert signs == ["✓", "✗", "…"]
    assert "the steps grow" in repr(right) and "the steps grow" not in repr(wrong)


def test_an_exercise_that_is_not_there():
    for wrong in ("3.1", "09.9", 3, None, ["03.1"]):
        with pytest.raises(ValueError, match="there is no exercise"):
            mh.exercise(wrong)


def test_emphasis_is_shown_as_such_and_products_are_left_alone():
    assert _inline("the *worst* cosine, how one *un*merges") == (
        "the <em>worst</em> cosine, how one <em>un</em>merges"
    )
    for text in ("3 * 4 * 5", "a*b*c", "it needs its place (+=, *=) and *"):
        assert "<em>" not in _inline(text)
    assert _inline("`x *y* z`").count("<em>") == 0
