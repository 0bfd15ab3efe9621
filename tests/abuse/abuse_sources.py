"""Promises about shards and hub datasets: what is in them decides nothing but what is seen.

A shard is a tar file, and may come from anybody. A hub dataset may, too.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from cases import Case, files_in
from huggingface_hub import constants as hub_constants
from PIL import Image
from pyarrow import parquet

import mclip_helpers as mh

MEGABYTE = 2**20

# --------------------------------------------------------------------------------- making shards


def picture(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "png")
    return buffer.getvalue()


def member(name: str, content: bytes = b"x", **header: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A file in a shard, whose header says what is said here."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in header.items():
        setattr(info, key, value)
    return info, content


def good(key: str, colour: str = "red") -> list[tuple[tarfile.TarInfo, bytes]]:
    """A sample that is fine."""
    return [member(f"{key}.png", picture(colour)), member(f"{key}.txt", key.encode())]


def shard(
    folder: Path,
    members: Iterable[tuple[tarfile.TarInfo, bytes]],
    name: str = "a.tar",
    pack: Callable[[bytes], bytes] = bytes,
    end: bool = True,
) -> Path:
    """A tar file of these members, whatever their headers say."""
    blocks = [
        info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512)
        for info, content in members
    ]
    path = folder / name
    path.write_bytes(pack(b"".join(blocks) + bytes(1024 if end else 0)))
    return path


def raw_header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A header of 512 bytes as no tar program writes it."""
    header = bytearray(512)
    header[: len(name)] = name
    header[100:108], header[108:116], header[116:124] = (b"0000644\0", b"0000000\0", b"0000000\0")
    header[124:136], header[136:148] = size, b"00000000000\0"
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    checksum = 256 + sum(header[:148]) + sum(header[156:])
    header[148:156] = f"{checksum:06o}\0 ".encode()
    return bytes(header)


def raw_shard(folder: Path, *blocks: bytes, pack: Callable[[bytes], bytes] = bytes) -> Path:
    path = folder / "a.tar"
    path.write_bytes(pack(b"".join(blocks) + bytes(1024)))
    return path


def around(folder: Path) -> Path:
    return folder


def in_little_memory(path: Path, most: int) -> Any:
    """Read a shard; AssertionError if that took more than `most` bytes."""
    tracemalloc.start()
    try:
        return mh.shard_dataset(path)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < most, f"{peak / MEGABYTE:.0f} MB"


# ------------------------------------------------------------------------ what a shard may not have

LINK, HARD = {"type": tarfile.SYMTYPE, "size": 0}, {"type": tarfile.LNKTYPE, "size": 0}
LEADING_OUT = [
    "../x.png",
    "../../etc/passwd.png",
    "a/../../x.png",
    "a/../x.png",
    "/x.png",
    "/etc/x.png",
    "//host/x.png",
    "C:\\x.png",
    "C:/x.png",
    "\\\\host\\x.png",
    "..\\x.png",
    "a\\..\\x.png",
]
UNSHOWABLE = ["a\nb.png", "a\x00.png", "a\x1b[31m.png", "a\rb.png", "a\x7f.png", "a\u2028b.png"]
NO_FILES = {
    "a symbolic link": (member("x.png", b"", **LINK, linkname="/etc/passwd"), "is a link"),
    "a symbolic link inside of it": (member("x.png", b"", **LINK, linkname="1.png"), "is a link"),
    "a hard link": (member("x.png", b"", **HARD, linkname="1.png"), "is a link"),
    "a character device": (member("x.png", b"", type=tarfile.CHRTYPE), "no plain file"),
    "a block device": (member("x.png", b"", type=tarfile.BLKTYPE), "no plain file"),
    "a named pipe": (member("x.png", b"", type=tarfile.FIFOTYPE), "no plain file"),
    "a file of an unknown type": (member("x.png", b"", type=b"Z"), "no plain file"),
    "a sparse file": (
        member("x.png", b"", type=tarfile.GNUTYPE_SPARSE, size=0),
        "no plain file",
    ),
}


def refuses_member(name: str, bad: tuple[tarfile.TarInfo, bytes], *says: str) -> Case:
    return Case(
        name,
        prepare=lambda folder: shard(folder, [*good("1"), bad, *good("2")]).parent,
        does=lambda folder: mh.shard_dataset(folder / "a.tar"),
        refused=mh.DataError,
        says=("a.tar", *says),
        keeps=files_in,
    )


MEMBERS = [
    *(
        refuses_member(f"a shard with the path {name!r} is refused", member(name), "leads out")
        for name in LEADING_OUT
    ),
    *(
        refuses_member(f"a shard with the name {name!r} is refused", member(name), "be shown")
        for name in UNSHOWABLE
        if "\x00" not in name
    ),
    *(
        refuses_member(f"a shard with {name} is refused", bad, "'x.png'", says)
        for name, (bad, says) in NO_FILES.items()
    ),
    Case(
        "every bad file of every shard is named, not only the first",
        prepare=lambda folder: [
            shard(folder, [*good("1"), member("../x.png"), NO_FILES["a named pipe"][0]]),
            shard(folder, [*good("1"), member("/y.png"), member("2.png", b"broken")], "b.tar"),
        ],
        does=mh.shard_dataset,
        refused=mh.DataError,
        says=("'../x.png'", "no plain file", "'/y.png'", "sample 2", "a.tar", "b.tar"),
    ),
    refuses_member("two samples with one key are refused", member("1.png", picture()), "sample 1"),
    Case(
        "one sample with two files of one suffix is refused",
        prepare=lambda folder: shard(folder, [*good("1"), member("1.txt", b"other")]),
        does=mh.shard_dataset,
        refused=mh.DataError,
        says=("sample 1", "two files txt"),
    ),
    Case(
        "a sample is not lost because it has a file that ends in .__bad__",
        prepare=lambda folder: shard(folder, [*good("1"), member("1.__bad__"), *good("2")]),
        does=mh.shard_dataset,
        holds=lambda _, dataset: dataset.captions == ["1", "2"],
    ),
    Case(
        "a tar in a tar is not opened",
        prepare=lambda folder: shard(
            folder, [member("1.tar", shard(folder, good("1"), "inner.tar").read_bytes())]
        ),
        does=mh.shard_dataset,
        refused=mh.DataError,
        says=("no picture (it has tar",),
    ),
    Case(
        "folders, names without a suffix and metadata are no samples, and no problem either",
        prepare=lambda folder: shard(
            folder,
            [
                member("d", b"", type=tarfile.DIRTYPE),
                member("README"),
                member("._1.png"),
                member("__meta__"),
                *good("d/1"),
            ],
        ),
        does=mh.shard_dataset,
        holds=lambda _, dataset: dataset.captions == ["d/1"],
    ),
    Case(
        "a name in another script is fine",
        prepare=lambda folder: shard(folder, good("사과 é ñ 🍎")),
        does=mh.shard_dataset,
        holds=lambda _, dataset: dataset.captions == ["사과 é ñ 🍎"],
    ),
    Case(
        "a header with attributes of all sorts is fine",
        prepare=lambda folder: shard(
            folder,
            [
                member("1.png", picture(), pax_headers={"SCHILY.xattr.user.x": "é" * 900}),
                member("1.txt", b"1", pax_headers={"comment": "=\n=", "mtime": "nan"}),
            ],
        ),
        does=mh.shard_dataset,
        holds=lambda _, dataset: dataset.captions == ["1"],
    ),
]

# -------------------------------------------------------------------------------- what is too large


TEN_GB = 10 * 2**30
BASE_256 = b"\x80" + bytes(3)  # how a tar says numbers that its 12 octal digits can't
MINUS = b"\xff" * 4


def lying(folder: Path, size: bytes, kind: bytes = b"0") -> Path:
    """A good sample, then a file whose header says another size than it has."""
    begin = shard(folder, good("1"), "begin.tar", end=False).read_bytes()
    return raw_shard(folder, begin, raw_header(b"x.png", size, kind), b"x" * 512)


PACKED = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
SIZES = [
    Case(
        "a file of 10 GB is refused by its header, before it is read",
        prepare=lambda folder: lying(folder, BASE_256 + struct.pack(">q", TEN_GB)),
        does=lambda path: in_little_memory(path, 20 * MEGABYTE),
        refused=mh.DataError,
        says=("'x.png'", "10,737,418,240 bytes", "at most 268,435,456"),
    ),
    Case(
        "a file of 8 exabytes is refused by its header",
        prepare=lambda folder: lying(folder, BASE_256 + struct.pack(">q", 2**63 - 1)),
        does=lambda path: in_little_memory(path, 20 * MEGABYTE),
        refused=mh.DataError,
        says=("'x.png'", "at most"),
    ),
    Case(
        "a file of a negative size is refused",
        prepare=lambda folder: lying(folder, MINUS + struct.pack(">q", -512)),
        does=mh.shard_dataset,
        refused=mh.DataError,
        says=("'x.png'", "-512 bytes"),
    ),
    Case(
        "an attribute that says 10 GB is refused",
        prepare=lambda folder: shard(
            folder, [*good("1"), member("x.png", b"", pax_headers={"size": str(TEN_GB)})]
        ),
        does=lambda path: in_little_memory(path, 20 * MEGABYTE),
        refused=mh.DataError,
        says=("'x.png'", "10,737,418,240 bytes"),
    ),
    *(
        Case(
            f"a header of 10 GB is refused ({name})",
            prepare=lambda folder, kind=kind: lying(
                folder, BASE_256 + struct.pack(">q", TEN_GB), kind
            ),
            does=lambda path: in_little_memory(path, 20 * MEGABYTE),
            refused=mh.DataError,
            says=("a.tar", "not a readable shard"),
        )
        for name, kind in {"attributes": b"x", "for all files": b"g", "a long name": b"L"}.items()
    ),
    Case(
        "a file that goes on beyond the end of the shard is refused",
        prepare=lambda folder: lying(folder, b"00000200000\0"),
        does=mh.shard_dataset,
        refused=mh.DataError,
        says=("not a readable shard",),
    ),
    Case(
        "a caption of two million letters is refused, and the pictures behind it are read",
        prepare=lambda folder: shard(
            folder,
            [member("1.png", picture()), member("1.txt", b"a" * 2_000_000), member("2.png", b"?")],
        ),
        does=mh.shard_dataset,
        refused=mh.DataError,
        says=("sample 1: the caption can't be read", "1,048,576", "sample 2"),
    ),
    Case(
        "a .json that is nested a million times is refused",
        prepare=lambda folder: shard(
            folder, [member("1.png", picture()), member("1.json", b"[" * 1_000_000)]
        ),
        does=mh.shard_dataset,
        refused=mh.DataError,
        says=("sample 1: the caption can't be read",),
    ),
    *(
        Case(
            f"a small {name} file that expands to 66 MB is refused",
            prepare=lambda folder, pack=pack: shard(
                folder, [member("1.png", bytes(66 * MEGABYTE))], pack=pack
            ),
            does=mh.shard_dataset,
            refused=mh.DataError,
            says=("a.tar", "expands to more than"),
        )
        for name, pack in PACKED.items()
    ),
    *(
        Case(
            f"an ordinary shard in {name} is read",
            prepare=lambda folder, pack=pack: shard(folder, good("1"), pack=pack),
            does=mh.shard_dataset,
            holds=lambda _, dataset: dataset.captions == ["1"],
        )
        for name, pack in PACKED.items()
    ),
    *(
        Case(
            f"a {name} file that is cut off is refused",
            prepare=lambda folder, pack=pack: shard(
                folder, good("1"), pack=lambda b: pack(b)[: len(pack(b)) // 2]
            ),
            does=mh.shard_dataset,
            refused=mh.DataError,
            says=("not a readable shard",),
        )
        for name, pack in PACKED.items()
    ),
]

# ------------------------------------------------------------------------------------ which shards


def calls(name: str, says: str, refused: type[Exception], *args: object, **kwargs: object) -> Case:
    return Case(
        name,
        prepare=lambda folder: shard(folder, good("1")).parent,
        does=lambda folder: mh.shard_dataset(*args, **kwargs),
        refused=refused,
        says=(says,),
        keeps=files_in,
    )


ARGUMENTS = [
    *(
        calls(
            f"the pattern {pattern!r} is refused at once", "more than 10,000", ValueError, pattern
        )
        for pattern in (
            "{000..999999999}.tar",
            "{0..99}{0..99}{0..99}.tar",
            "{{0..9999}{0..9999},x}.tar",
            "{9999999..0}.tar",
            "{a..z}{a..z}{a..z}{a..z}.tar",
            "{" + "{a,b}" * 40 + ",x}.tar",
        )
    ),
    *(
        calls(f"the pattern {pattern!r} is refused", "needs its }", ValueError, pattern)
        for pattern in ("a-{0..1.tar", "a-{0..1}}.tar", "a-{{0..1}.tar")
    ),
    *(
        calls(f"shards={value!r} is refused", "shards is", TypeError, value)
        for value in (None, 5, 0.5, b"a.tar", {"a.tar"}, {"train": "a.tar"}, [None], [["a.tar"]])
    ),
    *(
        calls(f"shards={value!r} is refused", "names no file", ValueError, value)
        for value in ("", [], (), [""])
    ),
    *(
        calls(f"{name}={value!r} is refused", f"{name} is", TypeError, "a.tar", **{name: value})
        for name in ("image", "text")
        for value in (None, "png", "", 5, [], [5], [None], b"png", {"png": 1})
    ),
    *(
        calls(f"the shard {name!r} does not exist, and this is said", "no such", mh.DataError, name)
        for name in (
            "gone.tar",
            "gone-{0..2}.tar",
            "*.tar",
            "pipe:touch ran",
            "https://x.org/a.tar",
        )
    ),
    Case(
        "a folder is no shard",
        prepare=around,
        does=mh.shard_dataset,
        refused=mh.DataError,
        says=("no file",),
    ),
    Case(
        "a device that never ends is no shard",
        prepare=lambda folder: Path("/dev/zero"),
        does=mh.shard_dataset,
        refused=mh.DataError,
        says=("no file",),
    ),
    Case(
        "a suffix may have its dot, and capital letters",
        prepare=lambda folder: shard(folder, [member("1.PNG", picture()), member("1.Txt", b"x")]),
        does=lambda path: mh.shard_dataset(path, image=[".PNG"], text=[".TXT"]),
        holds=lambda _, dataset: dataset.captions == ["x"],
    ),
]
if hasattr(os, "mkfifo"):

    def pipe(folder: Path) -> Path:
        os.mkfifo(folder / "a.tar")
        return folder / "a.tar"

    ARGUMENTS.append(
        Case(
            "a named pipe is no shard, and nobody waits for it",
            prepare=pipe,
            does=mh.shard_dataset,
            refused=mh.DataError,
            says=("no file",),
        )
    )

# ------------------------------------------------------------------------------------ hub datasets


def table(cells: list[object], texts: list[object] | None = None) -> datasets.Dataset:
    """A dataset in memory; a cell holds a picture's bytes, or the path of one."""
    texts = texts if texts is not None else [f"number {i}" for i in range(len(cells))]
    cells = [{"bytes": c, "path": None} if isinstance(c, bytes) else c for c in cells]
    columns = {"image": cells, "text": texts}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


class AsIfFromHub:
    """Called, it is what `hub_dataset("owner/name")` gives if the hub has this table."""

    def __init__(self, source: object):
        self.source = source

    def __call__(self) -> mh.PictureDataset:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(datasets, "load_dataset", lambda name, split: self.source)
            patch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
            return mh.hub_dataset("owner/name")


def secret(folder: Path) -> Path:
    """A picture on this machine that is nobody's business."""
    path = folder / "secret.png"
    path.write_bytes(picture("black"))
    return path


def a_local_path(folder: Path) -> AsIfFromHub:
    return AsIfFromHub(table([picture(), {"bytes": None, "path": str(secret(folder))}]))


def a_relative_path(folder: Path) -> AsIfFromHub:
    path = os.path.relpath(secret(folder))
    return AsIfFromHub(table([{"bytes": None, "path": path}]))


def a_column_of_paths(folder: Path) -> AsIfFromHub:
    columns = {"image": [str(secret(folder))], "text": ["x"]}
    return AsIfFromHub(datasets.Dataset.from_dict(columns))


def a_parquet_with_a_path(folder: Path) -> AsIfFromHub:
    rows = {"image": [{"bytes": None, "path": str(secret(folder))}], "text": ["x"]}
    parquet.write_table(pyarrow.table(rows), folder / "a.parquet")
    return AsIfFromHub(
        datasets.Dataset.from_parquet(str(folder / "a.parquet"), cache_dir=str(folder / "arrow"))
    )


def a_way_out_of_the_cache(folder: Path) -> AsIfFromHub:
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    path = f"{cache}/x/{os.path.relpath(secret(folder), cache / 'x')}"
    return AsIfFromHub(table([{"bytes": None, "path": path}]))


PATHS = [
    Case(
        f"a dataset from the hub can't read a picture of this machine ({name})",
        prepare=prepare,
        does=lambda load: load(),
        refused=mh.DataError,
        says=("row ", "secret.png", "did not come with it"),
    )
    for name, prepare in {
        "a path in a cell": a_local_path,
        "a relative path": a_relative_path,
        "a column of paths": a_column_of_paths,
        "a parquet file": a_parquet_with_a_path,
        "a path that leaves the cache": a_way_out_of_the_cache,
    }.items()
] + [
    Case(
        "a dataset of one's own may name any file",
        prepare=lambda folder: table([{"bytes": None, "path": str(secret(folder))}]),
        does=mh.hub_dataset,
        holds=lambda _, dataset: dataset[0][0].getpixel((0, 0)) == (0, 0, 0),
    ),
    Case(
        "bytes are read, whatever path stands beside them",
        prepare=lambda folder: AsIfFromHub(table([{"bytes": picture(), "path": "/etc/passwd"}])),
        does=lambda load: load(),
        holds=lambda _, dataset: dataset[0][0].getpixel((0, 0)) == (255, 0, 0),
    ),
    Case(
        "an address in a cell is not followed",
        prepare=lambda folder: AsIfFromHub(
            table([{"bytes": None, "path": "https://example.org/a.png"}])
        ),
        does=lambda load: load(),
        refused=mh.DataError,
        says=("row 0", "did not come with it"),
    ),
]

CELLS = {
    "an empty cell": (table([picture(), None]), "row 1", "the cell is empty"),
    "neither bytes nor a path": (table([{"bytes": None, "path": None}]), "row 0", "is empty"),
    "bytes that are no picture": (table([b"MZ"]), "row 0", "not a readable picture"),
    "no bytes at all": (table([b""]), "row 0", "not a readable picture"),
    "no caption": (table([picture()] * 2, ["x", None]), "row 1", "is empty"),
    "a caption of blanks": (table([picture()] * 2, ["x", " \n"]), "row 1", "is empty"),
    "numbers for captions": (table([picture()], [0.5]), "row 0", "0.5"),
    "lists of numbers for captions": (table([picture()], [[1, 2]]), "row 0", "[1, 2]"),
    "records for captions": (table([picture()], [{"a": "x"}]), "row 0", "{'a': 'x'}"),
    "an empty list of captions": (table([picture()] * 2, [["x"], []]), "row 1", "is empty"),
    "no rows": (table([picture()]).select([]), "nothing in it"),
    "no columns": (datasets.Dataset.from_dict({}), "column image and text missing"),
    "numbers for pictures": (
        datasets.Dataset.from_dict({"image": [1.5], "text": ["x"]}),
        "holds no pictures",
    ),
}
HUB = [
    *(
        Case(
            f"a hub dataset with {name} is refused",
            prepare=lambda folder, source=source: source,
            does=mh.hub_dataset,
            refused=mh.DataError,
            says=tuple(says),
            keeps=lambda source: source.num_rows,
        )
        for name, (source, *says) in CELLS.items()
    ),
    *(
        Case(
            f"hub_dataset(source={value!r:.40}) is refused",
            prepare=around,
            does=lambda folder, value=value: mh.hub_dataset(value),
            refused=TypeError,
            says=("source is a",),
        )
        for value in (None, 5, b"owner/name", ["owner/name"], Path("owner/name"), {"a": 1})
    ),
    *(
        Case(
            f"hub_dataset({value!r}) is no name on the hub",
            prepare=around,
            does=lambda folder, value=value: mh.hub_dataset(value),
            refused=ValueError,
            says=("no name on the hub",),
        )
        for value in ("", "a/b/c", "../x", "/etc", "a b", "https://x.org/a", "owner/", "a\nb", "-a")
    ),
    Case(
        "a folder is not taken for a dataset on the hub",
        prepare=around,
        does=lambda folder: _in(folder, lambda: mh.hub_dataset("pictures")),
        refused=ValueError,
        says=("folder_dataset",),
    ),
    *(
        Case(
            f"hub_dataset({name}={value!r}) is refused",
            prepare=lambda folder: table([picture()]),
            does=lambda source, name=name, value=value: mh.hub_dataset(source, **{name: value}),
            refused=TypeError,
            says=(f"{name} is",),
        )
        for name in ("image", "text", "split")
        for value in (None, "", 5, ["a", "b"], b"image")
    ),
    *(
        Case(
            f"xm3600({value!r}) is no language",
            prepare=around,
            does=lambda folder, value=value: mh.xm3600(value),
            refused=ValueError,
            says=("language",),
        )
        for value in (None, "", "kr", "EN", "../en", "*", 5, ["en"])
    ),
]


def _in(folder: Path, call: Callable[[], object]) -> object:
    """Call from a working directory in which there is a folder `pictures`."""
    (folder / "pictures").mkdir()
    before = os.getcwd()
    os.chdir(folder)
    try:
        return call()
    finally:
        os.chdir(before)


CASES = [*MEMBERS, *SIZES, *ARGUMENTS, *PATHS, *HUB]
