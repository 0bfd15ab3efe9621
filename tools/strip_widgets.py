"""Take out of notebooks what changes with every run and tells a reader nothing.

    python tools/strip_widgets.py notebooks/*.ipynb

Widget state is the important part: with it in the file, GitHub calls a whole notebook invalid.
And results that a reader has covered (tools/cover.py) are uncovered.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from cover import uncover

WIDGET = "application/vnd.jupyter.widget"
# What a widget says of itself as text: `HBox(children=…)`, or a progress bar that has not begun.
# Long ones are cut short by ipywidgets itself, with an ellipsis.
USELESS_TEXT = re.compile(r"\w+\(.*[)…]|.*\b0%\|.*", re.DOTALL)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def clean(notebook: NotebookNode) -> NotebookNode:
    """Drop widget state, volatile metadata and overwritten text, in place; returns the notebook."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec = NotebookNode(KERNEL)
    notebook.metadata.language_info = NotebookNode(name="python")
    uncover(notebook)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the times at which it ran
        if cell.cell_type == "code":
            cell.outputs = _joined([output for output in cell.outputs if _still_useful(output)])
    return notebook


def _still_useful(output: NotebookNode) -> bool:
    """Drop the live widget from one output; whether what is left is worth showing."""
    data = output.get("data", {})
    widgets = [mime for mime in data if mime.startswith(WIDGET)]
    for mime in widgets:
        del data[mime]
        output.metadata.pop(mime, None)
    if not widgets or set(data) - {"text/plain"}:
        return True
    text = data.get("text/plain", "").strip()
    return bool(text) and not USELESS_TEXT.fullmatch(text)


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Printed text that arrived in pieces as one output, without what was overwritten."""
    result: list[NotebookNode] = []
    for output in outputs:
        last = result[-1] if result else {}
        if output.output_type == "stream" and output.name == last.get("name"):
            last.text += output.text
        else:
            result.append(output)
    for output in result:
        if output.output_type == "stream":
            output.text = "\n".join(_as_left(line) for line in output.text.split("\n"))
    return [output for output in result if output.get("text") != ""]


def _as_left(line: str) -> str:
    """A line as the terminal would leave it: of a progress bar, its last state, if it has one.

    A bar that goes away at its end leaves a line of blanks.
    """
    before, _, last = line.rstrip("\r").rpartition("\r")
    return last if last.strip() or not before else ""


def clean_file(path: Path) -> bool:
    """Clean one notebook file; whether that changed it."""
    before = path.read_text(encoding="utf-8")
    after = nbformat.writes(clean(nbformat.reads(before, as_version=4))) + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if clean_file(Path(name)):
            print(f"cleaned {name}")
