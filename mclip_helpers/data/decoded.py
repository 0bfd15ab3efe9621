"""A picture is decoded once: kept at the model's size, in one file that is mapped into memory.

Opening a photograph of twelve megapixels takes a hundred times as long as what a training step does
with it. What the model sees of it is a few hundred pixels a side.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

from ..files import under_key
from ..progress_bar import progress_bar
from .batches import Preprocessing
from .pairs import PictureDataset, require_dataset
from .reader import THREADS

NAME = "pictures-{key}.npy"
BLOCK = 256  # pictures that are in memory at a time, while the file is written


def decode_once(dataset: PictureDataset, clip: Preprocessing, folder: str | Path) -> PictureDataset:
    """The same pairs, with pictures that are as large as `clip` sees them, from a file.

    Whatever takes a dataset takes this one, and what `clip.preprocess` makes of it is the same to
    the last bit. The file goes into `folder`: H × W × 3 bytes for each picture (256 px: 197 KB),
    under a name that depends on all pictures and on the transform. If it is there already, only the
    first picture is opened, to try the transform. An `augment` now changes the small picture.

    ValueError for a transform that does not end with ToTensor and Normalize, or would change a
    picture of the model's size again. OSError where the file can't be written.
    """
    require_dataset(dataset)
    fit = _fit_of(clip.preprocess)
    size = _size(dataset.pairs[0].load(), fit, clip.preprocess)
    parts = [*dataset.digests, repr(clip.preprocess)]
    write = functools.partial(_write, dataset=dataset, fit=fit, size=size)
    path = under_key(folder, NAME, parts, write)
    pairs = [
        replace(pair, load=functools.partial(_load, path, i))
        for i, pair in enumerate(dataset.pairs)
    ]
    return PictureDataset(pairs, dataset.credits)


def _fit_of(preprocess: Callable[[Image.Image], torch.Tensor]) -> Callable[..., Image.Image]:
    """The steps of a transform that come before ToTensor: from a picture to one of another size."""
    steps = list(getattr(preprocess, "transforms", ()))
    last = tuple(map(type, steps[-2:]))
    if len(last) < 2 or not issubclass(last[0], ToTensor) or last[1] is not Normalize:
        kinds = ", ".join(type(step).__name__ for step in steps) or "not known"
        raise ValueError(
            f"the transform's steps are {kinds}; pictures can be kept at the model's size only if "
            f"the last two are ToTensor and Normalize, as in open_clip's"
        )
    return Compose(steps[:-2])


def _size(
    picture: Image.Image,
    fit: Callable[[Image.Image], Image.Image],
    preprocess: Callable[[Image.Image], torch.Tensor],
) -> tuple[int, int]:
    """Width and height of what the model sees. ValueError if it would be changed a second time."""
    small = fit(picture)
    if not torch.equal(preprocess(small), preprocess(picture)):
        raise ValueError(
            "the transform changes a picture that has the model's size already, so it can't be "
            "applied to what it has made"
        )
    return small.size


def _write(
    path: Path,
    *,
    dataset: PictureDataset,
    fit: Callable[[Image.Image], Image.Image],
    size: tuple[int, int],
) -> None:
    width, height = size
    shape = (len(dataset), height, width, 3)
    file = np.lib.format.open_memmap(path, "w+", np.uint8, shape)

    def decoded() -> Iterator[Image.Image]:
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(dataset), BLOCK):
                block = dataset.pairs[start : start + BLOCK]
                yield from pool.map(lambda pair: fit(pair.load()), block)

    pictures = progress_bar(decoded(), "Decoding pictures", "pictures", total=len(dataset))
    for i, picture in enumerate(pictures):
        file[i] = np.asarray(picture)
    file.flush()


@functools.lru_cache(maxsize=8)
def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def _load(path: Path, i: int) -> Image.Image:
    return Image.fromarray(np.array(_mapped(path)[i]))
