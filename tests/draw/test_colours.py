"""One place for the colours that have a meaning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mclip_helpers.draw import colours

ROOT = Path(__file__).parents[2]
ELSEWHERE = [
    path for path in sorted((ROOT / "mclip_helpers").rglob("*.py")) if path.name != "colours.py"
]


def literal_colours(source: str) -> set[str]:
    return {colour for colour in colours.COLOURS.values() if colour.lower() in source.lower()}


@pytest.mark.parametrize("path", ELSEWHERE, ids=lambda path: path.stem)
def test_no_other_module_writes_one_of_the_colours_itself(path: Path):
    assert literal_colours(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_no_notebook_writes_one_of_the_colours_itself(path: Path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert literal_colours("\n".join(code)) == set()


def test_each_meaning_has_a_colour_of_its_own():
    assert len(set(colours.COLOURS.values())) == len(colours.COLOURS)


@pytest.mark.parametrize("colour", colours.COLOURS.values())
def test_a_tint_lies_between_white_and_the_colour(colour: str):
    assert colours.tint(colour, 0) == "#FFFFFF"
    assert colours.tint(colour, 1) == colour
    assert colours.tint("#000000", 0.2) == "#CCCCCC"
