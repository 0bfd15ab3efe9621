"""Texts cut into tokens."""

from __future__ import annotations

from shown import HOSTILE, words, xml

from mclip_helpers import draw


def test_tokens_shows_every_piece_over_its_number_and_explains_the_kinds_that_occur():
    pieces = [("<start>", 49406, "mark"), ("cat", 2368, "known"), (HOSTILE, 7, "unknown")]
    found = draw.tokens({HOSTILE: pieces})
    said = words(xml(found._repr_html_()))
    assert all(piece in said and str(number) in said for piece, number, _ in pieces)
    assert "never seen in training" in said
    assert "padding" not in said
    assert repr(found) == f"{HOSTILE} | <start> 49406 | cat 2368 | {HOSTILE} 7"
