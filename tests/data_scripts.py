"""The scripts of data/, which are in no package, as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

DATA = Path(__file__).parent.parent / "data"


def script(name: str) -> ModuleType:
    """Run `data/<name>.py` as a module; others of them can import it by its name from then on."""
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
