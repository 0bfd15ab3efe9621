"""Texts cut into tokens: `tokens`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..colours import GREY
from ..display import Html, html_text
from .arguments import require_mapping


class Chip(NamedTuple):
    """The CSS colours of one kind of token, and the words of the legend."""

    background: str
    ink: str
    meaning: str


TOKEN_KINDS = {
    "mark": Chip("#D9DCE1", "#111", "start or end"),
    "known": Chip("#BFE3F7", "#111", "seen in training"),
    "unknown": Chip("#F9C6A0", "#111", "never seen in training"),
    "padding": Chip("transparent", "inherit;opacity:.45", "padding"),
}


def tokens(texts: Mapping[str, Sequence[tuple[str, int, str]]]) -> Html:
    """Texts cut into tokens, each a coloured chip over its number.

    `texts` gives for each text `(piece, number, kind)` of its tokens; the kinds are the keys of
    TOKEN_KINDS, and ValueError names another one.
    """
    require_mapping("texts", texts)
    for kind in {kind for pieces in texts.values() for _, _, kind in pieces}:
        if kind not in TOKEN_KINDS:
            raise ValueError(f"no kind of token is called {kind!r}; see {', '.join(TOKEN_KINDS)}")
    blocks, lines = [], []
    for text, pieces in texts.items():
        chips = "".join(_chip(piece, str(number), kind) for piece, number, kind in pieces)
        blocks.append(f'<div style="margin-top:8px">{html_text(text)}<br>{chips}</div>')
        lines.append(" | ".join([text, *(f"{piece} {number}" for piece, number, _ in pieces)]))
    used = {kind for pieces in texts.values() for _, _, kind in pieces}
    legend = "".join(_chip("…", TOKEN_KINDS[k].meaning, k) for k in TOKEN_KINDS if k in used)
    return Html(
        f'<div>{"".join(blocks)}<div style="margin-top:8px">{legend}</div></div>', "\n".join(lines)
    )


def _chip(piece: str, below: str, kind: str) -> str:
    background, ink, _ = TOKEN_KINDS[kind]
    return (
        f'<span style="display:inline-block;margin:2px;padding:1px 6px;border-radius:5px;'
        f"border:1px solid {GREY};text-align:center;line-height:1.25;"
        f'background:{background};color:{ink}">'
        f"<b>{html_text(piece)}</b><br>"
        f'<span style="font-size:10px">{html_text(below)}</span></span>'
    )
