"""One place for the colours that have a meaning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mclip_helpers import colours
from mclip_helpers.gradient.words import KINDS

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


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_in_a_box_can_be_read(kind):
    """By the contrast that the Web Content Accessibility Guidelines ask for, 4.5 to 1."""
    style = colours.box_style(kind)
    grounds = [style.fill] if kind == "dark" else [style.fill, colours.tint(style.edge, 0.6)]
    for ground in grounds:
        low, high = sorted((luminance(ground), luminance(style.ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5
