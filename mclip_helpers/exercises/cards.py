"""What an exercise shows: cards in a notebook, plain text elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from ..colours import COLOURS
from ..display import Html, html_text
from .findings import Finding, Kind
from .words import sentences, title

Shown = Html

# Edge and background; dark letters can be read on each. A sign beside the colour says the same.
GOOD, BAD, OPEN, PLAIN = (COLOURS[name] for name in ("adapter", "text", "frozen", "image"))
SIGNS = {GOOD: "✓", BAD: "✗", OPEN: "…"}
MONOSPACED = "ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"


class Asked(Protocol):
    """What a card needs to know of an exercise."""

    @property
    def id(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def minutes(self) -> int: ...

    @property
    def asks(self) -> str: ...

    @property
    def stars(self) -> str: ...

    @property
    def choices(self) -> Mapping[str, str]: ...


class Checked(Html):
    """What a check found: a card in a notebook, text elsewhere, and data in `finding`."""

    def __init__(
        self, id: str, exercise: str, finding: Finding, remark: str = "", trouble: str = ""
    ) -> None:
        self.finding = finding
        colour = {Kind.RIGHT: GOOD, Kind.NOT_YET: OPEN}.get(finding.kind, BAD)
        lines = [*sentences(finding), *filter(None, [remark])]
        head = f"{SIGNS[colour]} {id} · {title(finding)}"
        small = f"(Not written down: {trouble})" if trouble else ""
        text = "\n".join([head, *(f"  {line}" for line in lines), *filter(None, [small])])
        super().__init__(_card(colour, head, _paragraphs(lines), small or exercise), text)


def question_card(exercise: Asked) -> Html:
    """What is asked, how hard it is, and how long it takes."""
    head = f"{exercise.id} · {exercise.title}"
    about = f"{exercise.stars} · {exercise.minutes} minutes"
    listed = "".join(
        f"<li><b>{html_text(word)}</b>: {_inline(meaning)}</li>"
        for word, meaning in exercise.choices.items()
    )
    body = _paragraphs(exercise.asks.split("\n\n"))
    body += f'<ul style="margin:4px 0">{listed}</ul>' if listed else ""
    text = [f"{head}  ({about})", "", exercise.asks]
    text += [
        f"  {word}" + (f": {meaning}" if meaning else "")
        for word, meaning in exercise.choices.items()
    ]
    return Html(_card(PLAIN, head, body, about), "\n".join(text))


def hint_card(id: str, title: str, hint: str) -> Html:
    head = f"{id} · Hint"
    return Html(_card(OPEN, head, _paragraphs([hint]), title), f"{head}\n  {hint}")


def solution_card(id: str, title: str, source: str, remark: str) -> Html:
    """The solution as code, and what there is to say of it."""
    head = f"{id} · Solution"
    style = f"font-family:{MONOSPACED};font-size:12.5px;line-height:1.45;white-space:pre;"
    body = (
        f'<pre style="{style}margin:4px 0;background:none;color:inherit;overflow-x:auto">'
        f"{html_text(source, 5_000)}</pre>"
    )
    body += _paragraphs([remark]) if remark else ""
    text = "\n".join([head, "", source, *(["", remark] if remark else [])])
    return Html(_card(PLAIN, head, body, title), text)


def _card(colour: str, head: str, body: str, small: str) -> str:
    box = (
        f"border:1px solid {colour}55;border-left:5px solid {colour};border-radius:6px;"
        f"padding:8px 14px;margin:4px 0;max-width:760px;background:{colour}14"
    )
    return (
        f'<div style="{box}"><div style="display:flex;justify-content:space-between;gap:16px">'
        f'<b style="color:{colour}">{html_text(head)}</b>'
        f'<span style="opacity:.65;font-size:12px">{html_text(small)}</span></div>{body}</div>'
    )


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f'<div style="margin-top:4px">{_inline(line)}</div>' for line in lines if line)


def _inline(text: str) -> str:
    """Text for HTML: `code` and *emphasis* as in Markdown, and lines as they are."""
    parts = re.split(r"`([^`]+)`", text)
    code = f'<code style="font-family:{MONOSPACED};font-size:12.5px">'
    return "".join(
        f"{code}{html_text(part)}</code>" if i % 2 else _emphasis(part).replace("\n", "<br>")
        for i, part in enumerate(parts)
    )


def _emphasis(text: str) -> str:
    """A word or more between two asterisks that touch it: "3 * 4" and "a*b*c" are none."""
    marked = re.split(r"(?<!\w)\*(\w[^*]*?)\*(?!\d)", text)
    return "".join(
        f"<em>{html_text(p)}</em>" if i % 2 else html_text(p) for i, p in enumerate(marked)
    )
