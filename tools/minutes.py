"""Estimate how long each notebook takes, by a stated rule, and write it wherever it is said.

    python tools/minutes.py             # all places: README, docs/teaching.md, the notebooks
    python tools/minutes.py 02 04       # what each section of these notebooks takes

The rule counts what there is to read: words, formulas, lines of code, results, and each "Predict".
The setup cell, what is folded away, and sections of exercises are left out; an exercise has minutes
of its own. It is an estimate for somebody who reads everything and is new to it: nobody was timed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from cover import asks
from mclip_helpers.exercises import EXERCISES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "teaching.md"
MAPS = (ROOT / "README.md", ROOT / "notebooks" / "00_start_here.ipynb")
BEGIN, END = "<!-- made by `make minutes` -->", "<!-- end -->"

# Adults read 238 words of English non-fiction a minute (Brysbaert 2019, "How many words do we read
# per minute?"). These sentences are dense, so we count fewer.
WORDS = 150  # a minute
# Seconds for each of these: guesses. They and WORDS are scaled so that the series takes the 450
# minutes that trial readers estimated for it, section by section; nobody was timed.
FORMULA, LINE, RESULT, PREDICT = 25, 4, 16, 25
ROUND_TO = 5  # minutes: the rule is no better than that

SETUP = "# @title"
LEFT_OUT = re.compile(r"<details>.*?</details>|<!--.*?-->|\[!\[.*?\)\]\(.*?\)", re.DOTALL)
LINK = re.compile(r"\]\([^)]*\)")
DISPLAYED = re.compile(r"\$\$.*?\$\$", re.DOTALL)
HEADING = re.compile(r"^(?=## )", re.MULTILINE)
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
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="*", metavar="NN", help="print the sections of these")
    wanted = parser.parse_args().notebooks
    for number in wanted:
        found = [notebook for name, notebook in notebooks().items() if name.startswith(number)]
        if not found:
            parser.error(f"there is no notebook {number}")
        print(sections_of(found[0]), end="\n\n")
    if not wanted:
        for path, text in texts().items():
            path.write_text(text, encoding="utf-8")
        print(table())


def texts() -> dict[Path, str]:
    """Each file that says minutes, as it should be."""
    series = {ROOT / "notebooks" / name: notebook for name, notebook in notebooks().items()}
    found = {path: path.read_text(encoding="utf-8") for path in (PAGE, *MAPS, *series)}
    found[PAGE] = with_table(found[PAGE], table())
    for path, notebook in series.items():
        number, minutes = path.name[:2], rounded(count(notebook).minutes)
        found[path] = with_opening(found[path], minutes, rounded(exercise_minutes(number)))
        for page in MAPS:
            found[page] = with_row(found[page], number, minutes)
    return found


def with_opening(notebook: str, minutes: int, exercises: int) -> str:
    """A notebook's file with other minutes in its first cell. ValueError if it says none."""
    new = f"**Time:** {minutes} minutes to read, {exercises} for the exercises"
    text, times = re.subn(
        r"\*\*Time:\*\* \d+ minutes to read, \d+ for the exercises", new, notebook
    )
    if times != 1:
        raise ValueError(f"the first cell has to say {new!r}, once")
    return text


def with_row(page: str, number: str, minutes: int) -> str:
    """A map of the series with other minutes for one notebook: the last cell of its row."""
    text, times = re.subn(rf"((?:\[|\*\*){number} · .* \| )\d+(?= \|)", rf"\g<1>{minutes}", page)
    if times != 1:
        raise ValueError(f"the map needs one row for notebook {number}, which ends in its minutes")
    return text


def notebooks() -> dict[str, NotebookNode]:
    """Number → notebook, as it is stored."""
    paths = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return {path.name: nbformat.read(path, as_version=4) for path in paths}


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
    for file, notebook in notebooks().items():
        counts = count(notebook)
        reading, exercises = rounded(counts.minutes), exercise_minutes(file[:2])
        sums = [sums[0] + reading, sums[1] + exercises]
        name = f"[{title(notebook)}](../notebooks/{file})"
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
    return sum((counts for _, counts in parts(notebook.cells)), Counts())


def sections_of(notebook: NotebookNode) -> str:
    """The minutes of each section, a line each."""
    found: dict[str, Counts] = {}
    for section, counts in parts(notebook.cells):
        found[section] = found.get(section, Counts()) + counts
    return "\n".join(f"{counts.minutes:5.1f}  {section}" for section, counts in found.items())


def parts(cells: Sequence[NotebookNode]) -> Iterator[tuple[str, Counts]]:
    """(section, counts) of all that is read, without the sections of exercises."""
    stubs = {exercise.stub for exercise in EXERCISES.values()}
    section = "its opening"
    for cell in cells:
        if cell["cell_type"] == "markdown":
            for text in HEADING.split(LEFT_OUT.sub("", cell["source"])):
                if text.startswith("## "):
                    section = text.partition("\n")[0].removeprefix("## ")
                if not section.endswith("Exercises"):
                    yield section, of_text(text)
            if asks(cell):
                yield section, Counts(predicts=1)
        elif cell["cell_type"] == "code" and not section.endswith("Exercises"):
            source = cell["source"]
            of_exercise = source in stubs or "mh.exercise(" in source
            if not (of_exercise or source.startswith(SETUP)):
                yield section, of_code(source, len(cell["outputs"]))


def of_text(source: str) -> Counts:
    formulas = len(DISPLAYED.findall(source))
    text = LINK.sub("]", DISPLAYED.sub("", source))
    return Counts(words=len(WORD.findall(text)), formulas=formulas)


def of_code(source: str, results: int) -> Counts:
    """Lines that say something; imports are read at a glance, so they don't count."""
    lines = [line.strip() for line in source.splitlines()]
    said = [x for x in lines if x.strip("()[]{},") and not x.startswith(("#", "import ", "from "))]
    return Counts(lines=len(said), results=results)


if __name__ == "__main__":
    main()
