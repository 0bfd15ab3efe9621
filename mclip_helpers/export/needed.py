"""The packages of the extra `ship`, which only this folder needs."""

from __future__ import annotations

from types import ModuleType

from ..packages import optional_package

SHIP = "onnx onnxruntime onnxscript"


def ship_package(name: str) -> ModuleType:
    """`onnx`, `onnxruntime`, or a module of one. ModuleNotFoundError says what to install."""
    return optional_package(name, SHIP)
