"""The page of public names has all of them, as `__init__` groups them, and is up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import api_page
import mclip_helpers as mh
from run_notebooks import find

PAGE = api_page.page()


def sections(page: str, marks: str) -> dict[str, str]:
    """Heading → what stands below it, of the headings that begin with `marks`."""
    _, *parts = re.split(rf"^{marks} ", page, flags=re.MULTILINE)
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def test_the_groups_are_the_notebooks_in_their_order():
    notebooks = [path.stem for path in find(api_page.ROOT / "notebooks")]
    assert list(api_page.groups()) == notebooks


def test_every_public_name_is_in_the_group_in_which_init_has_it():
    shown = [list(sections(part, "###")) for part in sections(PAGE, "##").values()]
    assert shown == list(api_page.groups().values())
    assert [name for names in shown for name in names] == mh.__all__


def test_every_docstring_is_there_whole():
    entries = sections(PAGE, "###")
    for name in mh.__all__:
        assert api_page.doc(getattr(mh, name)) in entries[name] or isinstance(
            getattr(mh, name), str | tuple
        )
    for module in (mh.draw, mh.widgets):
        inside = entries[module.__name__.rpartition(".")[2]]
        assert all(f".{name}" in inside for name in module.__all__)


def test_links_of_the_table_lead_to_the_headings():
    headings = [name.lower() for name in sections(PAGE, "###")]
    for number, target in enumerate(re.findall(r"\]\(#([^)]+)\)", PAGE)):
        name, _, count = target.partition("-")
        assert headings[number] == name
        assert headings[:number].count(name) == int(count or 0)


def test_nothing_on_the_page_differs_from_run_to_run():
    assert " at 0x" not in PAGE
    assert str(Path.home()) not in PAGE


def test_the_stored_page_is_up_to_date():
    assert api_page.PAGE.read_text(encoding="utf-8") == PAGE, "run `make docs`"


# ------------------------------------------------------------------------------- signatures


def few(a: int, b: str = "x") -> list[str]:
    """Short."""


def many(
    first_of_many: int,
    *others: str,
    a_keyword: dict[str, list[int]] | None = None,
    **all_that_is_left: tuple[int, ...],
) -> None:
    """Long."""


def by_name(
    first: int, *, a_second_one: str, a_third_one: str, the_last_one: int | None = None
) -> int:
    """With a bare star."""


class Example:
    """A class."""

    def method(self, x: int) -> int:
        return x


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (few, "(a: int, b: str = 'x') -> list[str]"),
        (
            many,
            "(\n    first_of_many: int,\n    *others: str,\n"
            "    a_keyword: dict[str, list[int]] | None = None,\n"
            "    **all_that_is_left: tuple[int, ...],\n) -> None",
        ),
        (
            by_name,
            "(\n    first: int,\n    *,\n    a_second_one: str,\n"
            "    a_third_one: str,\n    the_last_one: int | None = None,\n) -> int",
        ),
    ],
)
def test_a_signature_is_valid_python(function, expected: str):
    assert api_page.signature(function) == expected
    compile(f"def f{expected}: ...", "signature", "exec")


def test_a_method_has_no_self():
    assert api_page.signature(Example.method, method=True) == "(x: int) -> int"
    assert list(api_page.attributes(Example)) == [(".method", Example.method)]
    assert api_page.class_line(Example) == "class Example"
