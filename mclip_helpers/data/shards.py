"""WebDataset shards: tar files of pictures and captions.

A shard may come from anybody. Nothing in it is unpacked onto the disk, what it holds is bounded
before it is read, and whatever is no plain file of a plain name is refused by that name.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import itertools
import json
import lzma
import re
import tarfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias

from PIL import Image

from ..packages import optional_package
from ..progress_bar import progress_bar
from .images import open_picture
from .pairs import PictureDataset
from .reader import Entry, Reader
from .stamps import Stamp, require_unchanged, stamp

# One file in a shard: the largest photographs have some 100 MB.
MOST_FILE_BYTES = 2**28
# A caption, or a .json with everything known about a picture: seldom more than 10 KB.
MOST_TEXT_BYTES = 2**20
# What stands before a file in a tar: a name takes some hundred bytes, a long one 1,536.
MOST_HEADER_BYTES = 2**14
# A compressed shard may expand to this many bytes, and to this many times its size. Pictures hardly
# shrink (1.0 to 1.1 times); the headers of very small files do, and those fit into the first bound.
EXPANDED_BYTES, EXPANDED_TIMES = 2**26, 20
# Paths that a pattern may stand for: with 100 pictures in each, they fill a large memory.
MOST_SHARDS = 10_000

COMPRESSIONS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}

# What opens the picture of a file, now or later.
Load: TypeAlias = Callable[[], Image.Image]


@dataclass
class Sample:
    """The files of a sample, by suffix.

    `pictures` has what opens each, `texts` the content, or None where it is too long, and `others`
    those that are not needed.
    """

    pictures: dict[str, Load] = field(default_factory=dict)
    texts: dict[str, bytes | None] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)

    def suffixes(self) -> list[str]:
        return [*self.pictures, *self.texts, *self.others]


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

    The shards are read once, in order, and their pictures stay where they are: each is read from
    its place in the shard when it is needed, so that neither memory nor a second copy on the disk
    has to hold them. Of a compressed shard, in which nothing has a place, the encoded pictures stay
    in memory, and again in each worker that is spawned and not forked (Windows, macOS).

    Raises TypeError and ValueError for other arguments than these, DataError with every problem, by
    shard and sample, and ModuleNotFoundError without the package `webdataset`. Links, devices,
    paths that lead outside, and files and archives that are larger than the bounds in this module
    are problems.
    """
    optional_package("webdataset")
    paths = _paths(shards)
    image, text = _suffixes("image", image), _suffixes("text", text)
    reader = Reader(shards if isinstance(shards, str | Path) else ", ".join(map(str, shards)))
    entries = itertools.chain.from_iterable(_entries(path, image, text, reader) for path in paths)
    return reader.dataset(progress_bar(reader.pairs(entries), "Reading shards", "pictures"))


# -------------------------------------------------------------------------------------- arguments


def _paths(shards: str | Path | Sequence[str | Path]) -> list[Path]:
    from braceexpand import braceexpand  # of webdataset

    patterns = [shards] if isinstance(shards, str | Path) else shards
    listed = isinstance(patterns, list | tuple) and all(isinstance(p, str | Path) for p in patterns)
    if not listed:
        raise TypeError(
            f"shards is {shards!r:.60}; it must be a path, a pattern with braces "
            f"('train-{{000..012}}.tar'), or a list of either"
        )
    if not patterns or not all(map(str, patterns)):
        raise ValueError("shards names no file; it must be a path, a pattern, or a list of either")
    paths = []
    for pattern in map(str, patterns):
        if _expansions(pattern) > MOST_SHARDS:
            raise ValueError(
                f"the pattern {pattern!r:.200} stands for more than {MOST_SHARDS:,} shards, which "
                f"no memory holds; name those that you need"
            )
        try:
            paths += [Path(path) for path in braceexpand(pattern, escape=False)]
        except ValueError as error:
            raise ValueError(
                f"the pattern {pattern!r:.200} can't be read; each {{ needs its }}, as in "
                f"'train-{{000..012}}.tar'"
            ) from error
    return paths


def _expansions(pattern: str) -> int:
    """How many paths a pattern stands for at most; braceexpand itself would not survive it."""
    count = 1
    while group := re.search(r"\{([^{}]*)\}", pattern):
        numbers = re.fullmatch(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\..*)?", group[1])
        if numbers:
            count *= abs(int(numbers[2]) - int(numbers[1])) + 1
        else:  # alternatives, or letters from one to another
            count *= 52 if ".." in group[1] else group[1].count(",") + 1
        pattern = f"{pattern[: group.start()]}x{pattern[group.end() :]}"
    return count


def _suffixes(name: str, value: Sequence[str]) -> list[str]:
    """The suffixes as the convention has them: lower case, without the dot before them."""
    listed = isinstance(value, list | tuple) and all(isinstance(suffix, str) for suffix in value)
    if not listed or not value:
        raise TypeError(
            f"{name} is {value!r:.60}; it must be a list of suffixes, as ['jpg', 'png']"
        )
    return [suffix.lower().removeprefix(".") for suffix in value]


# ---------------------------------------------------------------------------------------- samples


def _entries(
    shard: Path, image: Sequence[str], text: Sequence[str], reader: Reader
) -> Iterator[Entry]:
    """What is in one shard, as far as it can be read; its problems go to `reader`."""
    if not shard.is_file():
        what = "this is no file" if shard.exists() else "there is no such file"
        reader.problems.append(f"{shard}: {what}")
        return
    keys: set[str] = set()
    try:
        for key, sample in _samples(shard, image, [*text, "json"], reader.problems):
            where = f"{shard.name}, sample {key}"
            if key in keys:
                reader.problems.append(f"{where}: there was a sample of this name before")
                continue
            keys.add(key)
            try:
                load, cell = _picture(sample, image), _caption_cell(sample, text)
            except ValueError as error:
                reader.problems.append(f"{where}: {error}")
            else:
                yield Entry(f"{shard.name}/{key}", where, cell, load)
    except Exception as error:  # tarfile and the decompressors have a type for each defect
        why = str(error).partition("\n")[0] or type(error).__name__
        reader.problems.append(f"{shard}: not a readable shard ({why})")


def _samples(
    shard: Path, images: Sequence[str], texts: Sequence[str], problems: list[str]
) -> Iterator[tuple[str, Sample]]:
    """The key and the files of each sample: of files that follow each other and share the key."""
    from webdataset.tariterators import base_plus_ext

    key, sample = None, Sample()
    for file in _files(shard, problems):
        base, suffix = base_plus_ext(file.name)
        if base is None or re.match(r"__[^/]*__($|/)", file.name):
            continue  # a name without a suffix, or metadata, by the convention
        suffix = suffix.lower()
        if base != key and key is not None:
            yield key, sample
            sample = Sample()
        key = base
        if suffix in sample.suffixes():
            problems.append(f"{shard.name}, sample {key}: it has two files {suffix}")
        if suffix in images:
            sample.pictures[suffix] = file.picture()
        elif suffix in texts:
            sample.texts[suffix] = file.content(MOST_TEXT_BYTES)
        else:
            sample.others.add(suffix)
    if key is not None:
        yield key, sample


def _picture(sample: Sample, image: Sequence[str]) -> Load:
    """What opens the first file with one of the suffixes. ValueError if there is none."""
    load = next((sample.pictures[suffix] for suffix in image if suffix in sample.pictures), None)
    if load is None:
        present, wanted = ", ".join(sample.suffixes()), ", ".join(image)
        raise ValueError(f"no picture (it has {present}; a picture would be one of {wanted})")
    return load


def _caption_cell(sample: Sample, names: Sequence[str]) -> object:
    """The text file, or else the field of the .json, with the first of `names`; None without.

    ValueError for what can't be read: not UTF-8, not JSON, too long, too deep.
    """
    try:
        for name in names:
            if name in sample.texts:
                return _decoded(sample.texts[name])
        fields = json.loads(_decoded(sample.texts.get("json", b"{}")))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the caption can't be read ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError("the caption can't be read (the .json holds no object, {…})")
    return next((fields[name] for name in names if name in fields), None)


def _decoded(content: bytes | None) -> str:
    if content is None:
        raise ValueError(f"it has more than {MOST_TEXT_BYTES:,} bytes")
    return content.decode("utf-8-sig")


# ---------------------------------------------------------------------------------------- archives


@dataclass(frozen=True)
class File:
    """A file in a shard, while `archive` stands at it. `before` is the shard's stamp."""

    shard: Path
    before: Stamp
    archive: tarfile.TarFile
    member: tarfile.TarInfo
    compressed: bool

    @property
    def name(self) -> str:
        return self.member.name

    def content(self, most: int) -> bytes | None:
        """Its bytes, or None if there are more than so many."""
        content = self.archive.extractfile(self.member) if self.member.size <= most else None
        return content.read() if content is not None else None

    def picture(self) -> Load:
        """What opens it later: from its place in the shard, or from memory."""
        if self.compressed:
            return functools.partial(open_picture, self.content(MOST_FILE_BYTES) or b"")
        place = self.member.offset_data, self.member.size
        return functools.partial(_load, self.shard, self.before, *place)


def _load(shard: Path, before: Stamp, offset: int, size: int) -> Image.Image:
    """The picture whose bytes begin there. DataError if the shard was changed."""
    require_unchanged(shard, before, "call shard_dataset again")
    with open(shard, "rb") as file:
        file.seek(offset)
        return open_picture(file.read(size))


def _files(shard: Path, problems: list[str]) -> Iterator[File]:
    """Each file in a shard; refused ones are problems.

    Raises ReadError where a bound is passed, and unless the archive ends as each tar file does,
    with a block of zeros: a damaged header would otherwise count as the end, and what follows would
    be lost in silence.
    """
    before = stamp(shard)
    with open(shard, "rb") as file:
        stream = _Expanded(file, shard.stat().st_size)
        count = 0
        with tarfile.open(fileobj=stream, mode="r|", bufsize=tarfile.BLOCKSIZE) as archive:
            while member := archive.next():
                count += 1
                archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
                stream.allow(archive.offset + MOST_HEADER_BYTES)
                refusal = _refusal(member)
                if refusal:
                    problems.append(f"{shard.name}: {member.name!r:.200} {refusal}")
                elif not member.isdir():
                    yield File(shard, before, archive, member, stream.is_compressed)
                if not 0 <= member.size <= MOST_FILE_BYTES:
                    return  # what is behind it can't be reached without reading it
        if stream.last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no end mark after {count} files")


def _refusal(member: tarfile.TarInfo) -> str | None:
    """Why this is nothing that belongs into a shard, or None."""
    if member.issym() or member.islnk():
        return f"is a link (to {member.linkname!r:.200})"
    if not (member.isdir() or member.isreg()) or member.issparse():
        return "is no plain file (but a device, a pipe, or a sparse file)"
    if not 0 <= member.size <= MOST_FILE_BYTES:
        most = f"a picture has at most {MOST_FILE_BYTES:,}"
        return f"has {member.size:,} bytes, by its header; {most}. Nothing behind it was read"
    if re.match(r"[/\\]|[A-Za-z]:", member.name) or ".." in re.split(r"[/\\]", member.name):
        return "leads out of the shard"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in member.name):
        return "has a name with characters that can't be shown"
    return None


class _Expanded(io.RawIOBase):
    """The expanded bytes of a shard, block by block, and no more of them than the bounds allow.

    So nothing that is read at once, be it the header of a file or its content, is larger than a
    bound, whatever its own size says. `last` is the block that was read last.
    """

    def __init__(self, file: IO[bytes], size: int):
        begin = file.read(max(map(len, COMPRESSIONS)))
        file.seek(0)
        openers = [COMPRESSIONS[magic] for magic in COMPRESSIONS if begin.startswith(magic)]
        self.is_compressed = bool(openers)
        self.file = openers[0](file) if openers else file
        self.most = EXPANDED_BYTES + EXPANDED_TIMES * size
        self.position, self.last = 0, b""
        self.allow(MOST_HEADER_BYTES)

    def allow(self, end: int) -> None:
        """Allow reading up to the position `end`: the header after a file's content."""
        self.end = end

    def read(self, count: int = -1, /) -> bytes:
        if self.position + count > self.most:
            raise tarfile.ReadError(f"it expands to more than {self.most:,} bytes")
        if self.position + count > self.end:
            raise tarfile.ReadError(f"a header has more than {MOST_HEADER_BYTES:,} bytes")
        self.last = self.file.read(count)
        self.position += len(self.last)
        return self.last
