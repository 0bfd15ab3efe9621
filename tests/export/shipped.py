"""What the tests of this folder share: a small task, and `nano` exported for it once."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from conftest import fresh

import mclip_helpers as mh
from mclip_helpers.export import OnnxClip

ADAPTER = mh.data_folder() / "adapters" / "thermal"


@functools.cache
def task(count: int = 24) -> mh.PictureDataset:
    """The first thermal pictures of the validation split."""
    return mh.emoji_dataset("thermal", "val").head(count)


def adapted() -> mh.Clip:
    """`nano` with the adapter for thermal pictures."""
    clip = fresh("nano")
    mh.load_adapter(clip.model, ADAPTER)
    return clip


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="exported")


@functools.cache
def exported() -> OnnxClip:
    """`adapted`, exported once. Change nothing in its folder."""
    folder = Path(_scratch().name) / "thermal"
    return mh.export_onnx(adapted(), folder, task(), progress=False)
