"""Pictures before and during training: scanned, split, and loaded for an epoch.

    python benchmarks/pictures.py [--large 40] [--small 10000] [--rounds 3]

- *Loading*: large JPEGs of 12 megapixels, as they are decoded in full, by their smaller form (what
  `folder_dataset` does), and from the file of `decode_once`. All take turns; ratios to decoding in
  full, and to one thread for scanning.
- *Scanning and splitting*: `folder_dataset` on small JPEGs (256 px), `split` on what it found, and
  the memory that came with it. What is said of 100,000 pictures is extrapolated, at most tenfold.

The pictures are noise of many scales, made here. Times are of this machine at this moment; the
ratios are what can be compared.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from _peak import held
from PIL import Image

import mclip_helpers as mh
from mclip_helpers.data import images, reader
from mclip_helpers.display import Table
from mclip_helpers.speed import ratio, take_turns

SIZE_LARGE, SIZE_SMALL = (4000, 3000), (256, 256)
TARGET = 100_000


def make_folder(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """So many JPEGs that all differ, with a metadata.csv."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "text"])
        for i in range(count):
            layers = []
            for cells in (4, 16, 64):
                noise = rng.integers(0, 256, (cells, cells, 3), np.uint8)
                layers.append(np.asarray(Image.fromarray(noise).resize(size), np.uint16))
            picture = Image.fromarray((sum(layers) // len(layers)).astype(np.uint8))
            picture.save(folder / f"{i}.jpg", quality=90)
            table.writerow([f"{i}.jpg", f"picture {i}"])
    return folder


def loading(folder: Path, rounds: int) -> Table:
    """An epoch of large pictures, three ways."""
    clip = mh.load_model("MobileCLIP2-S0", pretrained="random")
    dataset = mh.folder_dataset(folder)
    ready = mh.decode_once(dataset, clip, folder)

    def epoch(data: mh.PictureDataset) -> None:
        for pair in data.pairs:
            clip.preprocess(pair.load())

    def in_full() -> None:
        with mock.patch.object(images, "ENOUGH", max(SIZE_LARGE)):
            epoch(dataset)

    def scan(threads: int) -> Callable[[], object]:
        def run() -> None:
            with mock.patch.object(reader, "THREADS", threads):
                mh.folder_dataset(folder)

        return run

    steps = {
        "in full": in_full,
        "smaller form": lambda: epoch(dataset),
        "decode_once": lambda: epoch(ready),
        "scanned by one thread": scan(1),
        f"scanned by {reader.THREADS} threads": scan(reader.THREADS),
    }
    seconds = take_turns(steps, rounds)
    rows = []
    for name, own in seconds.items():
        base = seconds["scanned by one thread" if name.startswith("scanned") else "in full"]
        speed = len(dataset) / sorted(own)[len(own) // 2]
        rows.append([name, ratio(base, own), f"{speed:,.0f}"])
    return Table(["12 megapixels", "times as fast", "pictures a second"], rows)


def scanning(folder: Path, count: int) -> Table:
    """How time and memory grow up to `count` pictures."""
    with (folder / "metadata.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    found = []
    for part in (count // 10, count):
        with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows[: part + 1])
        for path in folder.glob("*.jpg"):
            if int(path.stem) >= part:
                path.rename(path.with_suffix(".later"))
        before, began = held(), time.perf_counter()
        dataset = mh.folder_dataset(folder)
        scanned = time.perf_counter() - began
        mh.split(dataset)
        split = time.perf_counter() - began - scanned
        found.append([part, scanned, split, held() - before])
        for path in folder.glob("*.later"):
            path.rename(path.with_suffix(".jpg"))
    (fewer, *_), (most, *last) = found
    growth = [b / a for a, b in zip(found[0][1:3], found[1][1:3], strict=True)]
    factor = TARGET / most
    table = [
        [f"{n:,}", f"{scan:.1f} s", f"{cut:.2f} s", f"{memory:,.0f} MB"]
        for n, scan, cut, memory in found
    ]
    table.append([f"growth, {most / fewer:.0f} times as many", *(f"{g:.1f}" for g in growth), ""])
    at_target = [
        f"≈ {factor * value:,.0f} {unit}"
        for value, unit in zip(last, ("s", "s", "MB"), strict=True)
    ]
    table.append([f"{TARGET:,}, in proportion", *at_target])
    return Table(["pictures of 256 px", "scanned", "split", "memory"], table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", type=int, default=40)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(scanning(make_folder(Path(place) / "small", args.small, SIZE_SMALL), args.small))
        print(loading(make_folder(Path(place) / "large", args.large, SIZE_LARGE), args.rounds))


if __name__ == "__main__":
    main()
