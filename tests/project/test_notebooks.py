"""The notebooks are the product: their stored form is checked, and each is run from top to bottom.

The checks and the tools behind them are tested too, on small notebooks that have something wrong.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from claims import CLAIMS, with_claims
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import mclip_helpers as mh
import run_notebooks
from strip_widgets import WIDGET, clean, clean_file

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = ROOT / "notebooks"
SERIES = [
    "00_start_here",
    "01_load_mobileclip",
    "02_inject_lora",
    "03_contrastive_loss",
    "04_follow_the_gradient",
    "05_train",
    "06_which_tool",
    "07_fast_and_large",
    "08_ship_it",
]
MAX_BYTES = 2_000_000  # GitHub shows no larger ones, and a clone should stay small
MODEL_LINE = re.compile(r'^MODEL = "nano"\s*(#.*)?$', re.MULTILINE)
# The name of the model decides nothing but what is loaded: `mh.recipe` has the numbers.
BRANCH = re.compile(r"\b(MODEL|clip\.name)\s*(==|!=|in\b|not\b|\.)|\b(if|while)\s+MODEL\b")
# Code and formulas hold brackets of their own: `layers[0](x)` is no link.
CODE_OR_FORMULA = re.compile(r"```.*?```|\$\$.*?\$\$|`[^`\n]*`|\$[^$\n]*\$", re.DOTALL)
LINK = re.compile(r"""\]\(<?([^)\s>]+)|(?:src|href)=["']([^"']+)""")


# ---- the checks ---------------------------------------------------------------------------------


def broken_links(text: str, folder: Path) -> list[str]:
    """Links of a Markdown text to files that do not exist, seen from `folder`."""
    targets = [a or b for a, b in LINK.findall(CODE_OR_FORMULA.sub("", text))]
    local = [t for t in targets if not re.match(r"[a-z]+:|#", t)]
    return [t for t in local if not (folder / t.partition("#")[0]).exists()]


def problems(path: Path) -> list[str]:
    """Everything that is wrong with one stored notebook, a line each."""
    notebook = nbformat.read(path, as_version=4)
    found = []

    if path.stat().st_size > MAX_BYTES:
        found.append(f"{path.stat().st_size:,} bytes; at most {MAX_BYTES:,}")
    if not re.fullmatch(r"\d\d_\w+", path.stem):
        found.append("the name is not NN_name")

    cells = [cell for _, cell in run_notebooks.code_cells(notebook)]
    for number, cell in enumerate(cells, start=1):
        where = f"code cell {number}"
        if cell.execution_count is None:
            found.append(f"{where}: no stored run")
        elif cell.execution_count != number:
            found.append(f"{where}: ran as number {cell.execution_count}")
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"{where}: stored error {output.ename}")
            if any(mime.startswith(WIDGET) for mime in output.get("data", {})):
                found.append(f"{where}: stored widget")
    if not any(cell.outputs for cell in cells):
        found.append("no stored output at all")
    if "widgets" in notebook.metadata:
        found.append("widget state in the metadata")
    if clean(nbformat.read(path, as_version=4)) != notebook:
        found.append("not clean: run tools/strip_widgets.py on it")

    if not any(MODEL_LINE.search(cell.source) for cell in cells[:3]):
        found.append('no line `MODEL = "nano"` in the first three code cells')
    for number, cell in enumerate(cells, start=1):
        if BRANCH.search(cell.source):
            found.append(f"code cell {number}: branches on the model's name")
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    if re.search(r"\bsimply\b", prose, re.IGNORECASE):
        found.append("the prose says “simply”, which helps nobody who finds it hard")
    found += [f"link to nowhere: {target}" for target in broken_links(prose, path.parent)]
    return found


# ---- the series ---------------------------------------------------------------------------------


def test_the_series_is_complete_and_numbered_without_gaps():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == SERIES


@pytest.mark.parametrize("name", SERIES)
def test_stored_notebook(name: str):
    assert problems(NOTEBOOKS / f"{name}.ipynb") == []


@pytest.mark.parametrize("name", SERIES)
def test_each_exercise_of_a_notebook_is_shown_has_its_stub_and_is_checked(name: str):
    sources = code_of(name)
    for exercise in exercises_of(name):
        show = f'mh.exercise("{exercise.id}")'
        shown = sources.index(show)
        assert sources[shown + 1] == exercise.stub
        assert sources[shown + 2].startswith(f"{show}.check({exercise.name})")


@pytest.mark.parametrize("name", SERIES)
def test_no_answer_overwrites_a_name_that_a_notebook_uses(name: str):
    """Each stub's name is read by its check alone, or given anew in the cell that reads it."""
    answers = {exercise.name for exercise in exercises_of(name)}
    for source in code_of(name):
        if not source.startswith("mh.exercise("):
            names = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
            given = {node.id for node in names if isinstance(node.ctx, ast.Store)}
            assert not answers & ({node.id for node in names} - given), source


def exercises_of(name: str) -> list[mh.exercises.Exercise]:
    found = [e for e in mh.exercises.EXERCISES.values() if e.notebook == name[:2]]
    assert found, f"{name} has no exercises"
    return found


def code_of(name: str) -> list[str]:
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@pytest.mark.notebook
@pytest.mark.parametrize("name", SERIES)
def test_notebook_runs_and_what_it_says_is_true(name: str, tmp_path: Path):
    # In a copy, so that what a notebook saves in ../runs does not replace what a person trained.
    folder = tmp_path / "notebooks"
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns(".*"))
    (path,) = run_notebooks.find(folder, [name])
    nbformat.write(with_claims(nbformat.read(path, as_version=4), CLAIMS[name]), path)
    run_notebooks.run_series(
        [path],
        out=tmp_path / "runs",
        environment=run_notebooks.kernel_environment(short=True, offline=True),
        timeout=1200,
    )


# ---- can the checks fail? -----------------------------------------------------------------------


def small_notebook() -> NotebookNode:
    """A notebook with nothing wrong."""
    printed = new_output("stream", name="stdout", text="nano\n")
    return clean(
        new_notebook(
            cells=[
                new_markdown_cell(
                    "# Small\nSee [itself](00_small.ipynb#small), `f[0](x)`, $a[i](t)$"
                ),
                new_code_cell('MODEL = "nano"  # any name', execution_count=1),
                new_code_cell("print(MODEL)", execution_count=2, outputs=[printed]),
                new_code_cell(""),
            ]
        )
    )


def save(notebook: NotebookNode, folder: Path, name: str = "00_small") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def test_nothing_wrong(tmp_path: Path):
    assert problems(save(small_notebook(), tmp_path)) == []


def test_a_badly_named_notebook_is_reported(tmp_path: Path):
    found = problems(save(small_notebook(), tmp_path, "small"))
    assert "the name is not NN_name" in found


def no_run(notebook: NotebookNode) -> None:
    notebook.cells[2].execution_count = None


def no_outputs(notebook: NotebookNode) -> None:
    notebook.cells[2].outputs = []


def out_of_order(notebook: NotebookNode) -> None:
    notebook.cells[1].execution_count, notebook.cells[2].execution_count = 2, 1


def an_error(notebook: NotebookNode) -> None:
    error = new_output("error", ename="ValueError", evalue="no", traceback=["no"])
    notebook.cells[2].outputs.append(error)


def widget_output(notebook: NotebookNode) -> None:
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Box()"}
    notebook.cells[2].outputs.append(new_output("display_data", data=data))


def widget_state(notebook: NotebookNode) -> None:
    notebook.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}


def run_times(notebook: NotebookNode) -> None:
    notebook.cells[2].metadata.execution = {"iopub.execute_input": "2026-01-01T00:00:00Z"}


def too_large(notebook: NotebookNode) -> None:
    notebook.cells[2].outputs[0].text = "x" * MAX_BYTES


def another_model(notebook: NotebookNode) -> None:
    notebook.cells[1].source = 'MODEL = "MobileCLIP2-S0"'


def a_branch(notebook: NotebookNode) -> None:
    notebook.cells[2].source = 'batch = 128 if MODEL == "nano" else 32'


def that_word(notebook: NotebookNode) -> None:
    notebook.cells[0].source = "Simply call it."


def a_dead_link(notebook: NotebookNode) -> None:
    notebook.cells[0].source = "[next](01_missing.ipynb)"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (no_run, "code cell 2: no stored run"),
        (no_outputs, "no stored output at all"),
        (out_of_order, "code cell 1: ran as number 2"),
        (an_error, "code cell 2: stored error ValueError"),
        (widget_output, "code cell 2: stored widget"),
        (widget_state, "widget state in the metadata"),
        (run_times, "not clean"),
        (too_large, "at most 2,000,000"),
        (another_model, 'no line `MODEL = "nano"`'),
        (a_branch, "code cell 2: branches on the model's name"),
        (that_word, "“simply”"),
        (a_dead_link, "link to nowhere: 01_missing.ipynb"),
    ],
)
def test_what_is_wrong_is_reported(
    spoil: Callable[[NotebookNode], None], expected: str, tmp_path: Path
):
    notebook = small_notebook()
    spoil(notebook)
    assert any(expected in line for line in problems(save(notebook, tmp_path)))


# ---- cleaning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fallback", "kept"),
    [
        ({"text/plain": "HBox(children=(IntSlider(value=3),))"}, []),
        ({"text/plain": "VBox(children=(Text(value='a happy face', description='fi…"}, []),
        ({"text/plain": "  0%|          | 0/10 [00:00<?, ?it/s]"}, []),
        ({}, []),
        ({"text/plain": "R@1 rises from 2 % to 31 %"}, ["text/plain"]),
        ({"text/plain": "HBox()", "image/png": "aGk="}, ["image/png", "text/plain"]),
    ],
)
def test_of_a_widget_its_fallback_stays(fallback: dict[str, str], kept: list[str]):
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, **fallback}
    cell = new_code_cell("w", outputs=[new_output("display_data", data=data)])
    outputs = clean(new_notebook(cells=[cell])).cells[0].outputs
    assert [sorted(output.data) for output in outputs] == ([kept] if kept else [])


def test_without_a_widget_the_text_of_an_object_stays():
    result = new_output("execute_result", data={"text/plain": "Linear(in_features=2)"})
    cell = new_code_cell("layer", outputs=[result])
    assert clean(new_notebook(cells=[cell])).cells[0].outputs == [result]


def test_printed_pieces_are_joined_up_to_the_next_picture():
    picture = new_output("display_data", data={"image/png": "aGk="})
    pieces = [
        new_output("stream", name="stdout", text=text) for text in ("1 %\r", "2 %\n", "after")
    ]
    cell = new_code_cell("…", outputs=[*pieces[:2], picture, pieces[2]])
    outputs = clean(new_notebook(cells=[cell])).cells[0].outputs
    assert [output.get("text") for output in outputs] == ["2 %\n", None, "after"]


def test_of_a_progress_bar_that_went_away_nothing_is_stored():
    """It ends by writing blanks over itself."""
    gone = "\r 10%|#         | 1/10\r" + 20 * " " + "\r"
    for text, left in {
        gone: None,
        gone + gone: None,
        gone + "R@1 50 %\n": "R@1 50 %\n",
        "first\n" + gone: "first\n",
        "first\n" + gone + "second\n": "first\nsecond\n",
        "\r 10%|# | 1/10\r100%|##| 10/10\n": "100%|##| 10/10\n",
        "    indented\n": "    indented\n",
        "    ": "    ",
    }.items():
        cell = new_code_cell("…", outputs=[new_output("stream", name="stdout", text=text)])
        outputs = clean(new_notebook(cells=[cell])).cells[0].outputs
        assert [output.text for output in outputs] == ([] if left is None else [left])


def test_cleaning_a_clean_file_leaves_it_alone(tmp_path: Path):
    path = save(small_notebook(), tmp_path)
    assert not clean_file(path)
    dirty = small_notebook()
    widget_state(dirty)
    path = save(dirty, tmp_path)
    assert clean_file(path)
    assert not clean_file(path)
    assert problems(path) == []


# ---- running ------------------------------------------------------------------------------------


def series(folder: Path, **sources: list[str]) -> Path:
    """A folder of notebooks that have not run yet; each keyword is a name and its code cells."""
    for name, cells in sources.items():
        notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
        save(notebook, folder / "notebooks", name.lstrip("n"))
    return folder / "notebooks"


@pytest.fixture(autouse=True)
def no_options_from_outside(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MCLIP_SHORT", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def test_a_run_is_stored_complete_and_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = series(
        tmp_path,
        n00_small=[
            'MODEL = "nano"',
            "",
            "import os, sys; print(sys.executable, os.getcwd())",
            'print(os.environ.get("MCLIP_SHORT"), os.environ.get("HF_HUB_OFFLINE"))',
        ],
    )
    before = (folder / "00_small.ipynb").read_bytes()
    out = tmp_path / "runs"
    assert run_notebooks.main([str(folder), "--out", str(out), "--short"]) == 0

    assert (folder / "00_small.ipynb").read_bytes() == before
    assert problems(out / "00_small.ipynb") == []
    cells = nbformat.read(out / "00_small.ipynb", as_version=4).cells
    assert cells[2].outputs[0].text.split() == [run_notebooks.sys.executable, str(folder)]
    assert cells[3].outputs[0].text == "1 None\n"
    printed = capsys.readouterr().out
    assert "[1/1] 00_small … cell 1/3 … 0:0" in printed
    assert "notebook | cells |  time" in printed


def test_a_failing_notebook_stops_the_run_with_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = series(
        tmp_path,
        n00_good=["1"],
        n01_bad=["1", "", "def half(x):\n    return x / 0", "half(7)", "print('not reached')"],
        n02_late=["1"],
    )
    assert run_notebooks.main([str(folder), "--out", str(tmp_path / "runs")]) == 1

    report = capsys.readouterr().err
    assert "01_bad.ipynb, code cell 3 of 4 (In [3])" in report
    assert "half(7)" in report
    assert "ZeroDivisionError" in report
    assert "return x / 0" in report  # the traceback, down to the line that raised
    assert "\x1b" not in report
    stored = {path.stem for path in (tmp_path / "runs").glob("*.ipynb")}
    assert stored == {"00_good", "01_bad"}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("import os; os._exit(1)", "DeadKernelError"),
        ("import time; time.sleep(60)", "CellTimeoutError"),
        ("import sys; sys.exit(1)", "SystemExit"),
    ],
)
def test_other_ways_to_fail(
    cell: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = series(tmp_path, n00_bad=[cell])
    before = (folder / "00_bad.ipynb").read_bytes()
    assert run_notebooks.main([str(folder), "--in-place", "--timeout", "3"]) == 1
    assert expected in capsys.readouterr().err
    assert (folder / "00_bad.ipynb").read_bytes() == before


def test_an_error_counts_even_where_the_notebook_allows_it(tmp_path: Path):
    folder = series(tmp_path, n00_bad=["1 / 0"])
    path = folder / "00_bad.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].metadata.tags = ["raises-exception"]
    nbformat.write(notebook, path)
    assert run_notebooks.main([str(folder), "--in-place"]) == 1


@pytest.mark.parametrize(("claim", "status"), [("assert x == 1", 0), ("assert x == 2", 1)])
def test_a_claim_that_is_not_true_fails(
    claim: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = series(tmp_path, n00_claims=["x = 1", "x = 2"])
    notebook = nbformat.read(folder / "00_claims.ipynb", as_version=4)
    nbformat.write(with_claims(notebook, {notebook.cells[0].id: claim}), folder / "00_claims.ipynb")
    assert run_notebooks.main([str(folder), "--in-place"]) == status
    assert ("In [2]" in capsys.readouterr().err) == bool(status)


def test_a_claim_about_a_cell_that_has_gone_is_not_passed_over():
    with pytest.raises(KeyError, match="not there: no-such-cell"):
        with_claims(small_notebook(), {"no-such-cell": "assert True"})


def test_only_runs_what_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = series(tmp_path, n00_one=["1"], n01_two=["2"], n02_three=["3"])
    names = [path.stem for path in run_notebooks.find(folder, ["02", "00_one"])]
    assert names == ["00_one", "02_three"]
    assert run_notebooks.main([str(folder), "--in-place", "--only", "07"]) == 1
    assert "there are: 00_one, 01_two, 02_three" in capsys.readouterr().err


WRITE_TABLE = (
    "from pathlib import Path; Path('../runs').mkdir(exist_ok=True);"
    "Path('../runs/table.txt').write_text('before 2 % · after 31 %')"
)


def test_the_table_is_printed_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = series(tmp_path, n05_train=[WRITE_TABLE])
    assert run_notebooks.main([str(folder), "--in-place"]) == 0
    assert capsys.readouterr().out.endswith("before 2 % · after 31 %\n")


def test_a_missing_table_fails_even_if_an_old_one_lies_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = series(tmp_path, n05_train=["1"])
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "table.txt").write_text("old")
    assert run_notebooks.main([str(folder), "--in-place"]) == 1
    assert "did not write" in capsys.readouterr().err
