"""The rehearsal changes one line of each notebook, and its model comes as Apple's would."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import torch
from huggingface_hub import constants as hub_constants

import mclip_helpers as mh
import rehearse
import run_notebooks


def code(folder: Path, name: str) -> list[str]:
    notebook = nbformat.read(folder / name, as_version=4)
    return [line for cell in notebook.cells for line in cell.source.splitlines()]


def test_one_line_of_each_notebook_differs(tmp_path: Path):
    rehearse.copy_series(tmp_path, "MobileCLIP2-S0")
    originals = run_notebooks.find(rehearse.ROOT / "notebooks")
    assert [path.name for path in originals] == sorted(path.name for path in tmp_path.iterdir())
    for path in originals:
        pairs = zip(code(path.parent, path.name), code(tmp_path, path.name), strict=True)
        changed = [(old, new) for old, new in pairs if old != new]
        assert len(changed) == 1
        assert changed[0][1].startswith('MODEL = "MobileCLIP2-S0"')


def test_a_notebook_without_that_line_is_not_passed_over(tmp_path: Path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("MODEL = 'nano'")])
    nbformat.write(notebook, folder / "00_other.ipynb")
    monkeypatch.setattr(rehearse, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=r"00_other\.ipynb has 0 lines"):
        rehearse.copy_series(tmp_path, "MobileCLIP2-S0")


def test_the_weights_come_through_the_hubs_cache(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    rehearse.fill_cache(tmp_path, "MobileCLIP2-S0")
    first, second = (
        mh.load_model("MobileCLIP2-S0", cache_dir=tmp_path, device="cpu") for _ in range(2)
    )
    assert first.pretrained == "dfndr2b"
    assert torch.equal(first.model.logit_scale, second.model.logit_scale)
    name = "visual.trunk.head.fc.weight"
    assert torch.equal(first.model.state_dict()[name], second.model.state_dict()[name])
