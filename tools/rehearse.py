"""Run the series as somebody with Apple's weights would: every cell, with the real architecture.

    python tools/rehearse.py [--model MobileCLIP2-S0] [--only 05]

The one line `MODEL = "nano"` is changed in a copy of each notebook, and the model comes through the
same way as Apple's: as a safetensors file in a hub cache. That cache is a temporary one, and the
weights in it are random: what is tested is that every cell runs, not what the model knows. Training
is short (MCLIP_SHORT=1), and nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
import open_clip
import torch
from open_clip.constants import HF_SAFE_WEIGHTS_NAME
from safetensors.torch import save_file

import mclip_helpers as mh
import run_notebooks
from mclip_helpers.model import hub_repository

ROOT = Path(__file__).parent.parent
MODEL_LINE = 'MODEL = "nano"'
REVISION = "0" * 40


def fill_cache(cache: Path, name: str) -> None:
    """Put random weights for `name` where the hub's client would have put the real ones."""
    torch.manual_seed(0)
    model = mh.load_model(name, pretrained="random", device="cpu").model
    repository = hub_repository(name, open_clip.list_pretrained_tags_by_model(name)[0])
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, snapshot / HF_SAFE_WEIGHTS_NAME)


def copy_series(folder: Path, name: str) -> None:
    """Copies of the notebooks in `folder`, with `name` in the one line that decides the model."""
    for path in run_notebooks.find(ROOT / "notebooks"):
        notebook = nbformat.read(path, as_version=4)
        changed = 0
        for cell in notebook.cells:
            if cell.cell_type == "code" and MODEL_LINE in cell.source:
                cell.source = cell.source.replace(MODEL_LINE, f'MODEL = "{name}"')
                changed += 1
        if changed != 1:
            raise ValueError(f"{path.name} has {changed} lines {MODEL_LINE}; exactly 1 expected")
        nbformat.write(notebook, folder / path.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="MobileCLIP2-S0")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="e.g. 03 or 05_train")
    parser.add_argument("--out", type=Path, help="keep the executed notebooks here")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as temporary:
        folder = Path(temporary)
        fill_cache(folder / "cache", options.model)
        (folder / "notebooks").mkdir()
        copy_series(folder / "notebooks", options.model)
        environment = run_notebooks.kernel_environment(short=True, offline=True)
        environment["HF_HUB_CACHE"] = str(folder / "cache")
        out = options.out or folder / "executed"
        try:
            paths = run_notebooks.find(folder / "notebooks", options.only)
            rows = run_notebooks.run_series(paths, out=out, environment=environment)
        except (FileNotFoundError, run_notebooks.NotebookFailed) as error:
            print(f"\n{error}", file=sys.stderr)
            return 1
    print(f"\n{run_notebooks.summary(rows)}")
    print(f"{options.model} with random weights from a temporary hub cache: every cell ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
