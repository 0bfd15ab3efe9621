"""Run the notebooks of a folder from top to bottom, each in a fresh kernel, and store the results.

    python tools/run_notebooks.py notebooks --out runs
    python tools/run_notebooks.py notebooks --in-place --only 03

Stops at the first error and shows the notebook, the cell and the traceback.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from traitlets import default

from strip_widgets import clean

# This notebook leaves the before/after table of its training run in runs/table.txt, beside the
# notebooks folder. A run that came through without one has not done its work.
TABLE_NOTEBOOK = "05_train"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NotebookFailed(RuntimeError):
    """A cell raised or the kernel died; the message is the report, `notebook` how far it came."""

    def __init__(self, report: str, notebook: NotebookNode):
        super().__init__(report)
        self.notebook = notebook


class OwnKernelManager(AsyncKernelManager):
    """Starts `python3` as the interpreter that runs this script.

    A kernel of that name installed elsewhere on the machine may belong to another environment.
    """

    @default("kernel_spec_manager")
    def _without_installed_kernels(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def find(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """The notebooks of a folder in reading order; `only` picks some by the start of their name."""
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"no notebooks in {folder}")
    for name in only:
        if not any(path.name.startswith(name) for path in paths):
            known = ", ".join(path.stem for path in paths)
            raise FileNotFoundError(f"no notebook {name!r} in {folder}; there are: {known}")
    return [path for path in paths if not only or path.name.startswith(tuple(only))]


def kernel_environment(*, short: bool = False, offline: bool = False) -> dict[str, str]:
    """The environment of the kernels: ours, and what the options add."""
    environment = dict(os.environ)
    environment.pop("MPLBACKEND", None)  # the kernel's own backend is the one that stores pictures
    # A run of the whole series is nobody's progress, and shows nobody's.
    nobody = Path(tempfile.gettempdir(), f"mclip-{os.getpid()}", "progress.json")
    environment.setdefault("MCLIP_PROGRESS", str(nobody))
    if short:
        environment["MCLIP_SHORT"] = "1"
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def code_cells(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """The cells that run, each with its index. The n-th of them shows as `In [n]`."""
    return [
        (index, cell)
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip()
    ]


def clock(seconds: float) -> str:
    """`83.4` → `1:23`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def say(line: str) -> None:
    """Print at once, also when the output goes to a file."""
    print(line, flush=True)


def execute(
    path: Path, *, environment: dict[str, str], timeout: int | None = None, title: str = ""
) -> NotebookNode:
    """Run one notebook in its own folder and return it with its outputs, cleaned."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        resources={"metadata": {"path": str(path.parent)}},
        kernel_name="python3",
        kernel_manager_class=OwnKernelManager,
        extra_arguments=["--log-level=ERROR"],  # its advice on transports is not about notebooks
        timeout=timeout,
        force_raise_errors=True,  # not even a cell tagged as one that may fail
        record_timing=False,
    )
    cells = code_cells(notebook)
    number, begun = 1, time.monotonic()

    def progress() -> None:
        now = clock(time.monotonic() - begun)
        say(f"{title or path.stem} … cell {number}/{len(cells)} … {now}")

    with client.setup_kernel(env=environment), _now_and_then(progress):
        client.reset_execution_trackers()
        for number, (index, cell) in enumerate(cells, start=1):
            trouble = ""
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as error:
                trouble = error.traceback
            except (CellControlSignal, DeadKernelError) as error:
                # The first line is the message; the others repeat the cell, as the report does.
                trouble = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            for output in cell.outputs:
                # The full traceback; also an error that some thread only displayed.
                if output.output_type == "error":
                    trouble = "\n".join(output.traceback)
            if trouble:
                report = _report(path, number, len(cells), cell.source, trouble)
                raise NotebookFailed(report, clean(notebook))
    return clean(notebook)


@contextmanager
def _now_and_then(action: Callable[[], None], seconds: float = 10) -> Iterator[None]:
    """Do `action` at once and every few seconds while the block runs, also within a long cell."""
    done = threading.Event()

    def repeat() -> None:
        while True:
            action()
            if done.wait(seconds):
                return

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _report(path: Path, number: int, total: int, source: str, trouble: str) -> str:
    rule = "─" * 80
    head = f"FAILED: {path}, code cell {number} of {total} (In [{number}])"
    return "\n".join([head, rule, source, rule, ANSI.sub("", trouble).rstrip(), rule])


def run_series(
    paths: Sequence[Path],
    *,
    out: Path | None = None,
    environment: dict[str, str] | None = None,
    timeout: int | None = None,
) -> list[tuple[str, int, float]]:
    """Run notebooks in order and write them to `out`, or back in place if there is none.

    Returns one row per notebook: its name, the number of cells that ran, the seconds they took.
    """
    environment = kernel_environment() if environment is None else environment
    rows = []
    for position, path in enumerate(paths, start=1):
        target = (out or path.parent) / path.name
        title = f"[{position}/{len(paths)}] {path.stem}"
        table = table_of(path.parent)
        if path.stem == TABLE_NOTEBOOK:
            table.unlink(missing_ok=True)  # an old one must not pass for this run's
        begun = time.monotonic()
        try:
            notebook = execute(path, environment=environment, timeout=timeout, title=title)
        except NotebookFailed as failure:
            if out:  # how far it came; what stands in place stays as it was
                _write(failure.notebook, target)
            raise
        _write(notebook, target)
        if path.stem == TABLE_NOTEBOOK and not table.exists():
            raise NotebookFailed(f"FAILED: {path} ran, but did not write {table}", notebook)
        rows.append((path.stem, len(code_cells(notebook)), time.monotonic() - begun))
        say(f"{title} … done … {clock(rows[-1][2])}")
    return rows


def _write(notebook: NotebookNode, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def table_of(folder: Path) -> Path:
    """Where the training notebook of this folder leaves its before/after table."""
    return folder.resolve().parent / "runs" / "table.txt"


def summary(rows: Sequence[tuple[str, int, float]]) -> str:
    """The closing table: notebook | cells | time."""
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'notebook':{width}} | cells |  time", f"{'-' * width}-|-------|------"]
    lines += [f"{name:{width}} | {cells:5} | {clock(time):>5}" for name, cells, time in rows]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="DIR", help="write the executed notebooks here")
    where.add_argument("--in-place", action="store_true", help="store the outputs in the folder")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="e.g. 03 or 05_train")
    parser.add_argument("--short", action="store_true", help="short training runs (MCLIP_SHORT=1)")
    parser.add_argument("--offline", action="store_true", help="no downloads (HF_HUB_OFFLINE=1)")
    parser.add_argument("--timeout", type=int, metavar="S", help="seconds that one cell may take")
    options = parser.parse_args(arguments)

    try:
        paths = find(options.folder, options.only)
        rows = run_series(
            paths,
            out=options.out,
            environment=kernel_environment(short=options.short, offline=options.offline),
            timeout=options.timeout,
        )
    except (FileNotFoundError, NotebookFailed) as error:
        print(f"\n{error}", file=sys.stderr)
        if isinstance(error, NotebookFailed) and options.out:
            print(f"The notebooks as far as they ran are in {options.out}/", file=sys.stderr)
        return 1
    print(f"\n{summary(rows)}")
    if any(path.stem == TABLE_NOTEBOOK for path in paths):
        print(f"\n{table_of(options.folder).read_text(encoding='utf-8').rstrip()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
