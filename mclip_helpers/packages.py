"""Packages that only some parts of this one need, and that may not be installed."""

from __future__ import annotations

import importlib
from types import ModuleType


def optional_package(name: str, install: str = "") -> ModuleType:
    """Import a package, or a module of one, that not everybody needs.

    ModuleNotFoundError says how to install it: with `pip install` and `install`, which names all
    that is needed beside it, or else the package alone.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"this needs the Python package {package!r}, which is not installed; "
            f"run: pip install {install or package}",
            name=package,
        ) from error
