"""An argument that is refused says what came and what would do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mclip_helpers.checks import finite_number, whole_number


@pytest.mark.parametrize("value", [3, np.int64(3)])
def test_a_whole_number_comes_back_as_an_int(value: object):
    assert type(whole_number("n", value, least=3, most=3)) is int


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "n is True (a bool); it must be a whole number, at least 1"),
        ("8", "n is '8' (a str); it must"),
        (8.0, "n is 8.0 (a float); it must"),
        (None, "n is None (a NoneType); it must"),
        (0, "n is 0; it must be a whole number, at least 1"),
    ],
)
def test_no_whole_number(value: object, words: str):
    with pytest.raises(ValueError) as caught:
        whole_number("n", value, least=1)
    assert words in str(caught.value)


def test_a_long_value_is_cut():
    with pytest.raises(ValueError) as caught:
        whole_number("n", "x" * 1000)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5)])
def test_a_finite_number_comes_back_as_a_float(value: object):
    assert type(finite_number("x", value, above=0, most=1)) is float


@pytest.mark.parametrize("value", [math.nan, math.inf, 0, 1, -1, True, "0.5", None])
def test_no_number_between_0_and_1(value: object):
    with pytest.raises(
        ValueError, match=r"^x is .*; it must be a finite number, above 0 and below"
    ):
        finite_number("x", value, above=0, below=1)
