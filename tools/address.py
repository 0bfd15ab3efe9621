"""Write the repository's address into the notebooks and the README.

    python tools/address.py [https://github.com/somebody/mobileclip-lora]

The one place for it is `[project.urls]` in pyproject.toml. With an address, that place is changed
first. What is written: the row of badges at the top of each notebook, the cell that fetches the
project on Colab and Kaggle, and the badges in the README. Everything else stays, outputs included.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = Path(__file__).parent / "setup_cell.py"
PLACE = re.compile(r'^(Repository = )"[^"]*"$', re.MULTILINE)
BADGES = re.compile(r"^\[!\[Open in Colab\].*\n", re.MULTILINE)
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")
SETUP = {"id": "setup", "metadata": {"jupyter": {"source_hidden": True}, "cellView": "form"}}


def address(root: Path = ROOT) -> str:
    """What pyproject.toml says."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"]


def badges(url: str, name: str) -> str:
    """The row that opens notebook `name` elsewhere."""
    path = f"{url.removeprefix('https://github.com/')}/blob/main/notebooks/{name}.ipynb"
    colab = "https://colab.research.google.com"
    return (
        f"[![Open in Colab]({colab}/assets/colab-badge.svg)]({colab}/github/{path}) "
        f"[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]"
        f"(https://kaggle.com/kernels/welcome?src=https://github.com/{path})\n"
    )


def setup_cell(url: str) -> str:
    """The source of the cell that fetches the project."""
    return TEMPLATE.read_text(encoding="utf-8").replace("ADDRESS_OF_THE_PROJECT", url).strip()


def write_notebook(notebook: NotebookNode, url: str, name: str) -> None:
    """Badges above the title, and the setup cell below the opening; in place."""
    opening = notebook.cells[0]
    text = BADGES.sub("", opening.source, count=1).lstrip("\n")
    opening.source = f"{badges(url, name)}\n{text}"
    cell = next((c for c in notebook.cells if c.id == SETUP["id"]), None)
    if cell is None:
        cell = new_code_cell(id=SETUP["id"])
        notebook.cells.insert(1, cell)
    cell.source = setup_cell(url)
    cell.metadata = NotebookNode(SETUP["metadata"])


def write_all(root: Path = ROOT) -> list[Path]:
    """Bring every notebook and the README in line with pyproject.toml; returns what changed."""
    url, changed = address(root), []
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        before = path.read_text(encoding="utf-8")
        notebook = nbformat.reads(before, as_version=4)
        write_notebook(notebook, url, path.stem)
        _write(path, before, nbformat.writes(notebook) + "\n", changed)
    readme = root / "README.md"
    before = readme.read_text(encoding="utf-8")
    _write(readme, before, BADGES.sub(badges(url, "00_start_here"), before, count=1), changed)
    return changed


def _write(path: Path, before: str, after: str, changed: list[Path]) -> None:
    if after != before:
        path.write_text(after, encoding="utf-8")
        changed.append(path)


def set_address(url: str, root: Path = ROOT) -> None:
    """Change the one place. ValueError for anything but a repository on GitHub."""
    url = url.removesuffix("/").removesuffix(".git")
    if not ADDRESS.fullmatch(url):
        raise ValueError(f"{url!r} is not of the form https://github.com/owner/repository")
    path = root / "pyproject.toml"
    text, count = PLACE.subn(rf'\1"{url}"', path.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{path} has {count} lines `Repository = …`; exactly 1 expected")
    path.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    try:
        for url in arguments:
            set_address(url)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    changed = [str(path.relative_to(ROOT)) for path in write_all()]
    print(f"{address()}: {', '.join(changed) or 'everything agrees already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
