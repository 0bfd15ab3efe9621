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


def test_a_public_name_of_the_package_is_the_same_thing_here():
    shared = set(data.__all__) & set(mh.__all__)
    assert len(shared) > 10
    assert [name for name in shared if getattr(data, name) is not getattr(mh, name)] == []
