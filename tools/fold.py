"""Fold the results that a "Predict" asks for, until a reader wants to see them; or unfold them.

    python tools/fold.py            # make fold
    python tools/fold.py --unfold   # make unfold

A Markdown cell that asks for a prediction has the tag "predict". What comes out of the code cells
between it and the next text is folded: JupyterLab shows three dots, and a click on them opens it,
or a run of the cell. It is the reader's own copy that changes. Notebooks are stored unfolded, since
not every page that shows them can open what is folded: tools/strip_widgets.py unfolds them, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
ASKS = "predict"  # the tag of a cell that asks for a prediction


def asks(cell: NotebookNode) -> bool:
    """Whether a cell asks the reader for a prediction."""
    return cell.cell_type == "markdown" and ASKS in cell.metadata.get("tags", [])


def answers(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """The code cells that show whether a prediction was right."""
    asked = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            asked = asks(cell)
        elif cell.cell_type == "code" and asked:
            yield cell


def fold(notebook: NotebookNode) -> None:
    """Fold what comes out of each cell that answers a prediction."""
    for cell in answers(notebook):
        cell.metadata.setdefault("jupyter", NotebookNode()).outputs_hidden = True


def unfold(notebook: NotebookNode) -> None:
    """Show all results, whoever folded them."""
    for cell in notebook.cells:
        cell.metadata.pop("collapsed", None)  # JupyterLab says the same thing twice
        of_jupyter = cell.metadata.get("jupyter", {})
        of_jupyter.pop("outputs_hidden", None)
        if not of_jupyter:
            cell.metadata.pop("jupyter", None)


def main(folder: Path = NOTEBOOKS) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--unfold", action="store_true", help="show all results again")
    change = unfold if parser.parse_args().unfold else fold
    for path in sorted(folder.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        change(notebook)
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
