"""Text that a model card shows as it was given, whatever Markdown or HTML looks like in it.

Every character that could mean something gets a backslash before it; CommonMark (0.31, "Backslash
escapes") takes both for the character itself. Ordinary sentences get none, and stay readable.
"""

from __future__ import annotations

import re

# What can mean something anywhere: emphasis, code, links, HTML, tables, formulas; entities (&lt;).
SPECIAL = re.compile(r"[\\`*_\[\]<>|~$]|&(?=#?\w+;)")
# … and at the start of a line: headings, lists, rules, rows of a table.
FIRST = re.compile(r"[#+=:-]|\d+(?=[.)](\s|$))")
# An address stays readable, and a link. What follows it (a full stop, a bracket) is not part of it.
ADDRESS = re.compile(r"""https?://[^\s<>`|\\;"']*[\w/=#&%+-]""")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")


def as_paragraphs(text: str) -> str:
    """`text` in Markdown: its paragraphs, and its lines within them."""
    escaped = "\n".join(_as_text(line.strip()) for line in text.strip().splitlines())
    # Two spaces end a line; without them, Markdown makes one line of two.
    return re.sub(r"(?<=[^\n])\n(?=[^\n])", "  \n", escaped)


def as_cell(text: str) -> str:
    """`text` in Markdown, on one line: a cell of a table."""
    return _as_text(" ".join(text.split()))


def _as_text(line: str) -> str:
    line = CONTROL.sub("\ufffd", line)
    done, escaped = 0, ""
    for match in ADDRESS.finditer(line):
        address = match[0]
        escaped += SPECIAL.sub(r"\\\g<0>", line[done : match.start()])
        escaped += f"<{address}>" if SPECIAL.search(address) else address
        done = match.end()
    escaped += SPECIAL.sub(r"\\\g<0>", line[done:])
    first = FIRST.match(escaped)
    if first is None:
        return escaped
    number = first[0] if first[0].isdigit() else ""
    return f"{number}\\{escaped[len(number) :]}"
