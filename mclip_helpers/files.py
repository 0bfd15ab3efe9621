"""The files that the project brings along: `nano`, its architecture, and an adapter for it."""

from __future__ import annotations

from pathlib import Path


def data_folder() -> Path:
    """Where these files are: `data/` in the repository, or beside the installed package."""
    installed = Path(__file__).parent / "_data"
    return installed if installed.exists() else Path(__file__).parent.parent / "data"
