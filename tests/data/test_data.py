"""The folder as a whole: its public names and its modules."""

from __future__ import annotations

import importlib
import pkgutil

import mclip_helpers as mh
from mclip_helpers import data


def test_no_public_name_hides_a_module():
    modules = [info.name for info in pkgutil.iter_modules(data.__path__)]
    assert {"pairs", "splits", "emoji"} <= set(modules)
    for name in modules:
        assert getattr(data, name) is importlib.import_module(f"mclip_helpers.data.{name}")


def test_every_public_name_is_one_of_the_package_too():
    different = [name for name in data.__all__ if getattr(data, name) is not getattr(mh, name)]
    assert different == []
