"""Cover the results that a "Predict" asks for, until a reader wants to see them; or uncover them.

    python tools/cover.py             # make cover
    python tools/cover.py --uncover   # make uncover

A Markdown cell that asks for a prediction has the tag "predict". What comes out of the code cells
between it and the next text is covered: JupyterLab shows three dots, and a click on them opens it,
or a run of the cell. It is the reader's own copy that changes. Notebooks are stored uncovered, as
not every page that shows them can open a covered result; tools/strip_widgets.py uncovers, too.
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


def cover(notebook: NotebookNode) -> None:
    """Cover what comes out of each cell that answers a prediction."""
    for cell in answers(notebook):
        cell.metadata.setdefault("jupyter", NotebookNode()).outputs_hidden = True


def uncover(notebook: NotebookNode) -> None:
    """Show all results, whoever covered them."""
    for cell in notebook.cells:
        cell.metadata.pop("collapsed", None)  # JupyterLab says the same thing twice
        of_jupyter = cell.metadata.get("jupyter", {})
        of_jupyter.pop("outputs_hidden", None)
        if not of_jupyter:
            cell.metadata.pop("jupyter", None)


def main(folder: Path = NOTEBOOKS) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--uncover", action="store_true", help="show all results again")
    change = uncover if parser.parse_args().uncover else cover
    for path in sorted(folder.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        change(notebook)
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
