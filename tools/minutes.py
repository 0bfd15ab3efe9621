"""Estimate how long each notebook takes, by a stated rule, and write it into docs/teaching.md.

    python tools/minutes.py

The rule counts what there is to read: words, formulas, lines of code, results, and each "Predict".
The setup cell, what is folded away, and sections of exercises are left out; an exercise has minutes
of its own. It is an estimate for somebody who reads everything and is new to it: nobody was timed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from mclip_helpers.exercises import EXERCISES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "teaching.md"
BEGIN, END = "<!-- made by `make minutes` -->", "<!-- end -->"

# Adults read 238 words of English non-fiction a minute (Brysbaert 2019, "How many words do we read
# per minute?"). These sentences are dense, so we count fewer.
WORDS = 200  # a minute
# Seconds for each of these: guesses, scaled so that notebook 02 comes to the hour that readers are
# known to need for it. No other notebook's time is known.
FORMULA, LINE, RESULT, PREDICT = 20, 3, 12, 20
ROUND_TO = 5  # minutes: the rule is no better than that

SETUP = "# @title"
LEFT_OUT = re.compile(r"<details>.*?</details>|<!--.*?-->|\[!\[.*?\)\]\(.*?\)", re.DOTALL)
LINK = re.compile(r"\]\([^)]*\)")
DISPLAYED = re.compile(r"\$\$.*?\$\$", re.DOTALL)
HEADING = re.compile(r"^## ", re.MULTILINE)
WORD = re.compile(r"[^\W_]\S*")


@dataclass(frozen=True)
class Counts:
    """What there is to read."""

    words: int = 0
    formulas: int = 0
    lines: int = 0
    results: int = 0
    predicts: int = 0

    def __add__(self, other: Counts) -> Counts:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Counts(*(a + b for a, b in pairs))

    @property
    def minutes(self) -> float:
        """What it takes to read them, by the rule."""
        seconds = FORMULA * self.formulas + LINE * self.lines
        seconds += RESULT * self.results + PREDICT * self.predicts
        return self.words / WORDS + seconds / 60


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_table(page, table()), encoding="utf-8")
    print(table())


def with_table(page: str, new: str) -> str:
    """The page with another table between the two marks. ValueError if they are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE.name} needs the lines {BEGIN} and {END}, and the table between")
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def table() -> str:
    """Each notebook with its minutes, in Markdown."""
    rows = ["| notebook | words | lines of code | reading | exercises | together |"]
    rows.append("|---|---|---|---|---|---|")
    sums = [0, 0]
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        counts = count(notebook)
        reading, exercises = rounded(counts.minutes), exercise_minutes(path.stem[:2])
        sums = [sums[0] + reading, sums[1] + exercises]
        name = f"[{title(notebook)}](../notebooks/{path.name})"
        size = f"{round(counts.words, -2):,} | {round(counts.lines, -1)}"
        rows.append(f"| {name} | {size} | {reading} | {exercises} | {reading + exercises} |")
    rows.append(f"| all | | | {sums[0]} | {sums[1]} | {sum(sums)} |")
    return "\n".join(rows)


def rounded(minutes: float) -> int:
    return ROUND_TO * round(minutes / ROUND_TO)


def title(notebook: NotebookNode) -> str:
    return next(re.findall(r"^# (.+)$", cell.source, re.MULTILINE)[0] for cell in notebook.cells)


def exercise_minutes(number: str) -> int:
    """The sum of the minutes that the exercises of a notebook say."""
    return sum(e.minutes for e in EXERCISES.values() if e.notebook == number)


def count(notebook: NotebookNode) -> Counts:
    """What there is to read in a stored notebook."""
    total = Counts()
    for kind, source, results in parts(notebook.cells):
        total += of_text(source) if kind == "markdown" else of_code(source, results)
    return total


def parts(cells: Sequence[Mapping]) -> Iterator[tuple[str, str, int]]:
    """(kind, source, results) of all that is read, without the sections of exercises."""
    stubs = {exercise.stub for exercise in EXERCISES.values()}
    in_exercises = False
    for cell in cells:
        if cell["cell_type"] == "markdown":
            for i, section in enumerate(HEADING.split(LEFT_OUT.sub("", cell["source"]))):
                if i or cell["source"].startswith("## "):
                    in_exercises = section.partition("\n")[0].endswith("Exercises")
                if not in_exercises:
                    yield "markdown", section, 0
        elif cell["cell_type"] == "code":
            source = cell["source"]
            asks = source in stubs or "mh.exercise(" in source
            if not (in_exercises or asks or source.startswith(SETUP)):
                yield "code", source, len(cell["outputs"])


def of_text(source: str) -> Counts:
    formulas = len(DISPLAYED.findall(source))
    text = LINK.sub("]", DISPLAYED.sub("", source))
    return Counts(
        words=len(WORD.findall(text)), formulas=formulas, predicts=text.count("**Predict")
    )


def of_code(source: str, results: int) -> Counts:
    """Lines that say something; imports are read at a glance, so they don't count."""
    lines = [line.strip() for line in source.splitlines()]
    said = [x for x in lines if x.strip("()[]{},") and not x.startswith(("#", "import ", "from "))]
    return Counts(lines=len(said), results=results)


if __name__ == "__main__":
    main()
