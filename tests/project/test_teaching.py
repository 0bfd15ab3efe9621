"""What the teacher's page says agrees with the project, and minutes are counted by their rule."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_notebooks import broken_links

import minutes
from cover import ASKS
from mclip_helpers.exercises import EXERCISES

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGE = (DOCS / "teaching.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["teaching.md", "glossary.md"])
def test_links_lead_somewhere(page: str):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert broken_links(text, DOCS) == []
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_every_exercise_that_is_named_exists():
    named = set(re.findall(r"(?<![\d.])0\d\.\d(?![\d.])", PAGE))
    assert named and named <= EXERCISES.keys()


def test_every_notebook_has_its_part():
    parts = set(re.findall(r"^### (\d\d) · ", PAGE, re.MULTILINE))
    assert {name[:2] for name in minutes.notebooks()} <= parts


def test_minutes_are_the_rules_wherever_they_are_said():
    for path, text in minutes.texts().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make minutes`"


def test_minutes_go_into_the_table_the_maps_and_the_openings():
    page = f"before {minutes.BEGIN} old {minutes.END} after"
    assert minutes.with_table(page, "new") == f"before {minutes.BEGIN}\nnew\n{minutes.END} after"
    row = "| [03 · The loss](03.ipynb) | 2 | "
    assert minutes.with_row(f"{row}5 |\n| [04 · On](04.ipynb) | 6 |", "03", 40) == (
        f"{row}40 |\n| [04 · On](04.ipynb) | 6 |"
    )
    said = "**Time:** {} minutes to read, {} for the exercises; one to run."
    assert minutes.with_opening(said.format(1, 2), 35, 45) == said.format(35, 45)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: minutes.with_table("no marks", "a table"), "needs the lines"),
        (lambda: minutes.with_row("| [04 · On](04.ipynb) | 6 |", "03", 40), "notebook 03"),
        (lambda: minutes.with_opening("**Time:** an hour", 35, 45), "35 minutes to read"),
    ],
)
def test_a_text_without_a_place_for_minutes_is_refused(change: Callable[[], str], message: str):
    with pytest.raises(ValueError, match=message):
        change()


def test_what_is_read_is_counted_and_what_is_not_read_is_not():
    output = new_output("execute_result", data={"text/plain": "1"}, execution_count=1)
    exercise = EXERCISES["00.1"]
    notebook = new_notebook(
        cells=[
            new_markdown_cell("[![badge](a)](b)\n\n# 09 · Two words\n\n[three](x.ipynb) more."),
            new_code_cell("# @title setup\nx = 1\ny = 2"),
            new_code_cell("import torch\n\n# why\nx = f(\n    1,\n)\nx", outputs=[output]),
            new_markdown_cell(
                "## 1 · One\n\n**Predict:** which?\n\n$$a = b$$\n\n$$c$$",
                metadata={"tags": [ASKS]},
            ),
            new_code_cell('mh.exercise("00.1")', outputs=[output]),
            new_code_cell(exercise.stub),
            new_markdown_cell("<details><summary>Hint</summary>\n\nMany words.\n\n</details>"),
            new_markdown_cell("## 2 · Exercises\n\nNot counted."),
            new_code_cell("z = 3"),
            new_markdown_cell("and not this\n\n## What you can now say\n\nTwo words."),
        ]
    )
    counts = minutes.count(notebook)
    # 09 Two words three more · 1 One Predict which · What you can now say Two words
    assert counts == minutes.Counts(words=16, formulas=2, lines=3, results=1, predicts=1)
    assert counts.minutes == pytest.approx(16 / 150 + (2 * 25 + 3 * 4 + 16 + 25) / 60)
    said = minutes.sections_of(notebook).splitlines()
    assert [line[7:] for line in said] == ["its opening", "1 · One", "What you can now say"]
