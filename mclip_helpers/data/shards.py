"""WebDataset shards: tar files of pictures and captions."""

from __future__ import annotations

import functools
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .images import open_picture
from .pairs import Pair, PictureDataset
from .reader import Reader, optional_package


def shard_dataset(
    shards: str | Path | Sequence[str | Path],
    image: Sequence[str] = ("jpg", "jpeg", "png", "webp"),
    text: Sequence[str] = ("txt", "caption", "text"),
) -> PictureDataset:
    """WebDataset shards: tar files in which the files of one sample differ in their suffix alone.

    `shards` is a path, a pattern with braces ("train-{000..012}.tar"), or a list of either. A
    sample's picture is its first file with a suffix in `image`, its caption the first with a suffix
    in `text`; both are tried in the order given. Without such a text file, the caption is the field
    of its .json with one of these names, and may be a list of texts.

    The shards are read once, in order. The encoded pictures stay in memory: as many bytes as the
    shards have, and again for each worker that is spawned and not forked (Windows, macOS).

    Raises DataError with every problem, by shard and sample, and ModuleNotFoundError without the
    package `webdataset`.
    """
    optional_package("webdataset")
    reader = Reader(shards if isinstance(shards, str | Path) else ", ".join(map(str, shards)))
    pairs: list[Pair | None] = []
    for shard in _paths(shards):
        try:
            _check_end(shard)
            for sample in _samples(shard):
                pairs.append(_pair(sample, shard, image, text, reader))
        except FileNotFoundError:
            reader.problems.append(f"{shard}: there is no such file")
        except Exception as error:  # tarfile and the decompressors have a type for each defect
            reader.problems.append(f"{shard}: not a readable shard ({_first_line(error)})")
    return reader.dataset(pairs)


def _paths(shards: str | Path | Sequence[str | Path]) -> list[Path]:
    from braceexpand import braceexpand  # of webdataset

    patterns = [shards] if isinstance(shards, str | Path) else shards
    return [Path(path) for p in patterns for path in braceexpand(str(p), escape=False)]


def _first_line(error: Exception) -> str:
    """The message of an error without the streams that webdataset adds to its arguments."""
    message = str(error.args[0] if error.args and isinstance(error.args[0], str) else error)
    return message.partition("\n")[0] or type(error).__name__


def _check_end(shard: Path) -> None:
    """Raise ReadError unless the archive ends with a block of zeros, as each tar file does.

    A damaged header would otherwise count as the end, and what follows would be lost in silence.
    """
    with tarfile.open(shard) as archive:
        count = len(archive.getmembers())
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no end mark after {count} files")


def _samples(shard: Path) -> Iterator[dict]:
    # Opened here and not by webdataset, for which a name may also be a command to run ("pipe:…").
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with open(shard, "rb") as stream:
        yield from group_by_keys(tar_file_expander([{"url": str(shard), "stream": stream}]))


def _pair(
    sample: dict, shard: Path, image: Sequence[str], text: Sequence[str], reader: Reader
) -> Pair | None:
    key = sample["__key__"]
    where = f"{shard.name}, sample {key}"
    picture = next((sample[suffix] for suffix in image if suffix in sample), None)
    if picture is None:
        present = ", ".join(suffix for suffix in sample if not suffix.startswith("__"))
        problem = f"no picture (it has {present}; a picture would be one of {', '.join(image)})"
        reader.problems.append(f"{where}: {problem}")
        return None
    try:
        cell = _caption_cell(sample, text)
    except ValueError as error:  # not UTF-8, or not JSON
        reader.problems.append(f"{where}: the caption can't be read ({error})")
        return None
    load = functools.partial(open_picture, picture)
    return reader.pair(f"{shard.name}/{key}", where, cell, load)


def _caption_cell(sample: dict, names: Sequence[str]) -> object:
    """The text file, or else the field of the .json, with the first of `names`; None without."""
    for name in names:
        if name in sample:
            return sample[name].decode("utf-8-sig")
    fields = json.loads(sample.get("json", b"{}"))
    if not isinstance(fields, dict):
        raise ValueError("the .json holds no object, {…}")
    return next((fields[name] for name in names if name in fields), None)
