"""The glossary and the notebooks agree on where each term is introduced.

A notebook *introduces* a term if the first paragraph of it that uses the term has it in bold, in
italics, or in a heading. Openings don't count (they promise in words that come later), nor do
tables that list the notebooks, code, formulas, and the targets of links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = {p.name[:2]: p for p in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")

ENTRY = re.compile(
    r"- \*\*(?P<name>[^*]+)\*\*(?: \((?P<others>[^)]+)\))? · "
    r"\[(?P<notebook>\d\d), [^\]]+\]\(\.\./notebooks/(?P<file>[^#)]+)(?:#(?P<anchor>[^)]+))?\)\. "
    r"(?P<text>.+)"
)
SENTENCE = re.compile(r"(?<=[.?!]) (?=[A-Z`∂*])")
NOT_PROSE = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\]\([^)]*\)", re.DOTALL)
# A row of the table of notebooks, and a line that leads from one to the next.
MAP = re.compile(r"^\|.*\d\d · .*$|^(Previous|Next): .*$", re.MULTILINE)
EMPHASISED = re.compile(r"\*\*.+?\*\*|(?<!\*)\*(?!\*).+?(?<!\*)\*(?!\*)|^#+ .+$", re.MULTILINE)

# Words that also mean something else in an earlier notebook: those uses are no uses of the term.
ALSO = {
    "rank": "the place of a name in a list, in notebooks 00 and 01",
}

# (term, notebook) that break the rule, each with the reason. What is mended has to leave the list.
KNOWN: dict[tuple[str, str], str] = {}


@dataclass(frozen=True)
class Term:
    name: str
    names: tuple[str, ...]
    notebook: str
    file: str
    anchor: str
    text: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """Any of its names as words of their own; a plural counts, and "*test* split" does."""
        names = "|".join(re.escape(name).replace(r"\ ", r"[\s*-]+") for name in self.names)
        return re.compile(rf"(?<!\w)({names})s?(?!\w)", re.IGNORECASE)


TERMS = [
    Term(m["name"], (m["name"], *(m["others"] or "").split(", "))[: 1 + bool(m["others"]) * 9],
         m["notebook"], m["file"], m["anchor"] or "", m["text"])
    for m in map(ENTRY.fullmatch, PAGE.splitlines()) if m
]  # fmt: skip


@cache
def paragraphs(notebook: str) -> tuple[str, ...]:
    """The prose of a notebook, without its opening: the first cell."""
    cells = nbformat.read(NOTEBOOKS[notebook], as_version=4).cells
    texts = [cell.source for cell in cells[1:] if cell.cell_type == "markdown"]
    prose = (MAP.sub("", NOT_PROSE.sub(" ", text)) for text in texts)
    return tuple(part for text in prose for part in re.split(r"\n\s*\n", text) if part.strip())


def first_use(term: Term, notebook: str) -> str | None:
    return next((p for p in paragraphs(notebook) if term.pattern.search(p)), None)


def is_introduced(term: Term, paragraph: str) -> bool:
    """Whether it stands in bold, in italics or in a heading, or at least a word of it does."""
    marks = [mark.span() for mark in EMPHASISED.finditer(paragraph)]
    uses = [use.span() for use in term.pattern.finditer(paragraph)]
    return any(
        begin < end_of_use and start < end for begin, end in marks for start, end_of_use in uses
    )


def violations() -> Iterator[tuple[str, str]]:
    """(term, notebook): used before it is introduced, or not introduced where it is first used."""
    for term in TERMS:
        for notebook in NOTEBOOKS:
            paragraph = first_use(term, notebook)
            if notebook < term.notebook and paragraph and term.name not in ALSO:
                yield term.name, notebook
            if notebook == term.notebook and not (paragraph and is_introduced(term, paragraph)):
                yield term.name, notebook


def test_every_line_of_the_list_is_an_entry():
    lines = [line for line in PAGE.splitlines() if line.startswith("-")]
    assert len(lines) == len(TERMS) >= 60, [x for x in lines if not ENTRY.fullmatch(x)]
    order = [term.name.casefold().replace("α", "alpha") for term in TERMS]
    assert order == sorted(order) and len(set(order)) == len(order)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_an_entry_has_two_sentences_and_a_link_that_leads_there(term: Term):
    assert len(SENTENCE.split(term.text)) == 2, SENTENCE.split(term.text)
    assert term.text.endswith((".", ")"))
    assert NOTEBOOKS[term.notebook].name == term.file
    cells = nbformat.read(NOTEBOOKS[term.notebook], as_version=4).cells
    headings = [
        heading.replace("`", "").replace(" ", "-")
        for cell in cells
        if cell.cell_type == "markdown"
        for heading in re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
    ]
    assert not term.anchor or unquote(term.anchor) in headings


def test_each_term_is_introduced_before_it_is_used_except_where_that_is_known():
    assert set(violations()) == set(KNOWN)


def test_words_with_two_meanings_are_terms():
    assert ALSO.keys() <= {term.name for term in TERMS}


# ---- the check itself ---------------------------------------------------------------------------

TERM = Term("dead zone", ("dead zone", "DZ"), "00", "", "", "")


@pytest.mark.parametrize(
    ("paragraph", "introduced"),
    [
        ("This is a **dead zone**.", True),
        ("Here is the *dead* zone.", True),
        ("These *dead zones* are cold.", True),
        ("## The dead zone\nIt is cold.", True),
        ("**Look:** a dead zone.", False),
        ("A dead zone, and *something* else.", False),
        ("A dead\nzone.", False),
    ],
)
def test_a_term_is_introduced_by_bold_italics_or_a_heading(paragraph: str, introduced: bool):
    assert TERM.pattern.search(paragraph)
    assert is_introduced(TERM, paragraph) == introduced


def test_a_term_is_found_as_a_word_alone():
    assert TERM.pattern.search("a DZ here") and not TERM.pattern.search("ADZE")
