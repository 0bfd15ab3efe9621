"""What this package promises to those who call it wrongly, or with something hostile.

Each `abuse_….py` beside this file holds one table of promises, with a line for each case. Here each
is kept: the call is refused in one understandable sentence of ours, or handled; and what must not
change has not changed.
"""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path

import pytest
from cases import Case

import mclip_helpers as mh

PACKAGE = Path(mh.__file__).parent
TABLES = sorted(path.stem for path in Path(__file__).parent.glob("abuse_*.py"))
CASES = [
    pytest.param(case, id=f"{table.removeprefix('abuse_')}: {case.name}")
    for table in TABLES
    for case in importlib.import_module(table).CASES
]
LONGEST_MESSAGE = 2_500  # some 30 lines


@pytest.mark.parametrize("case", CASES)
def test_promise(case: Case, tmp_path: Path):
    scene = case.prepare(tmp_path)
    before = case.keeps(scene)
    if case.refused is None:
        assert case.holds(scene, case.does(scene))
    else:
        with pytest.raises(case.refused) as caught:
            case.does(scene)
        message = str(caught.value)
        assert [words for words in case.says if words not in message] == [], message
        assert len(message) <= LONGEST_MESSAGE
        assert _raised_by_us(caught.value), "a library raised this, and nobody explained it"
    assert case.keeps(scene) == before


def test_each_promise_has_a_name_of_its_own():
    names = [parameters.id for parameters in CASES]
    assert len(set(names)) == len(names)


def _raised_by_us(error: BaseException) -> bool:
    """Whether the line that raised `error` is in the package."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).is_relative_to(PACKAGE)
