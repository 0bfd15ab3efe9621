"""What a prediction asks for can be covered, and nothing else is; stored notebooks are not."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_notebooks import NOTEBOOKS, SERIES, save

import cover
from strip_widgets import clean

PREDICT = "**Predict"


def notebook_with_a_prediction() -> NotebookNode:
    shown = new_output("stream", name="stdout", text="42\n")
    asks = {"tags": [cover.ASKS]}
    return new_notebook(
        cells=[
            new_code_cell("before", outputs=[shown]),
            new_markdown_cell("**Predict:** which number?", metadata=asks),
            new_code_cell("answer", outputs=[shown]),
            new_code_cell("answer", outputs=[shown], metadata={"jupyter": {"source_hidden": True}}),
            new_markdown_cell("So it is 42."),
            new_code_cell("after", outputs=[shown]),
        ]
    )


def hidden(notebook: NotebookNode) -> list[str]:
    return [
        cell.source
        for cell in notebook.cells
        if cell.metadata.get("jupyter", {}).get("outputs_hidden")
    ]


def test_what_answers_a_prediction_is_covered_and_uncovered_again():
    notebook = notebook_with_a_prediction()
    before = copy.deepcopy(notebook)
    cover.cover(notebook)
    assert hidden(notebook) == ["answer", "answer"]
    assert [cell.get("outputs") for cell in notebook.cells] == [
        cell.get("outputs") for cell in before.cells
    ]
    cover.uncover(notebook)
    assert notebook == before


def test_a_cleaned_notebook_is_uncovered_also_after_jupyterlab_has_saved_it():
    """JupyterLab writes `collapsed` beside `jupyter.outputs_hidden`."""
    notebook = clean(notebook_with_a_prediction())
    before = copy.deepcopy(notebook)
    cover.cover(notebook)
    notebook.cells[2].metadata.collapsed = True
    assert clean(notebook) == before


def test_the_command_covers_a_folder_and_uncovers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = save(notebook_with_a_prediction(), tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr("sys.argv", ["cover.py"])
    cover.main(tmp_path)
    assert hidden(nbformat.read(path, as_version=4)) == ["answer", "answer"]
    monkeypatch.setattr("sys.argv", ["cover.py", "--uncover"])
    cover.main(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", SERIES)
def test_each_predict_has_its_tag_ends_its_cell_and_is_answered(name: str):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    for cell, after in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        says = cell.cell_type == "markdown" and PREDICT in cell.source
        assert says == cover.asks(cell), cell.source
        if says:
            assert PREDICT in cell.source.rpartition("\n\n")[2], cell.source
            assert after is not None and after.cell_type == "code", cell.source
