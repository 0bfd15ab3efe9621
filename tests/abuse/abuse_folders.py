"""Promises about a folder of pictures: what is opened, what never is, and what is noticed."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cases import Case
from PIL import Image

import mclip_helpers as mh
from mclip_helpers.data import Pair


def picture(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)
    return path


def inner(folder: Path, *names: str) -> Path:
    """A folder with a good picture in row 1 and these names in the rows after it."""
    place = folder / "pictures"
    picture(place / "good.png")
    rows = "".join(f'"{name}",caption {i}\n' for i, name in enumerate(("good.png", *names)))
    (place / "metadata.csv").write_text("file_name,text\n" + rows, encoding="utf-8")
    return place


def with_row(name: str, make: Callable[[Path], object] = lambda place: None):
    """Prepare `inner` with this name in row 2, and let `make` put something into the folder."""

    def prepare(folder: Path) -> Path:
        place = inner(folder, name)
        make(place)
        return place

    return prepare


def names_in(place: Path) -> list[str]:
    return sorted(os.listdir(place))


def refused_row(
    name: str, file: str, make: Callable[[Path], object], *says: str, problems: int = 1
) -> Case:
    """Row 2 is refused, and nothing waits for anything."""
    return Case(
        name,
        prepare=with_row(file, make),
        does=mh.folder_dataset,
        refused=mh.DataError,
        says=(f"{problems} problem", f"row 2: {file}: ", *says),
        keeps=names_in,
    )


def loads(name: str, file: str, make: Callable[[Path], object], **options: bool) -> Case:
    return Case(
        name,
        prepare=with_row(file, make),
        does=lambda place: mh.folder_dataset(place, **options),
        holds=lambda _, dataset: dataset[1][0].getpixel((0, 0)) == (0, 0, 255),
        keeps=names_in,
    )


# ------------------------------------------------------------------ what lies outside of the folder


def secret(place: Path) -> Path:
    """A picture beside the folder, which nobody allowed to read."""
    return picture(place.parent / "secret.png", "blue")


def link(place: Path, name: str, target: str | Path) -> None:
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).symlink_to(target)


def link_out(place: Path) -> None:
    link(place, "x.png", secret(place))


def folder_link_out(place: Path) -> None:
    picture(place.parent / "other" / "x.png", "blue")
    link(place, "sub", place.parent / "other")


OUT = "leads out of the folder; pass outside=True"
WAYS_OUT = {  # how → (the file in row 2, what is there)
    "a name with ../": ("../secret.png", secret),
    "a name that goes down and up again": ("sub/../../secret.png", secret),
    "a symbolic link": ("x.png", link_out),
    "a symbolic link to a folder": ("sub/x.png", folder_link_out),
}


def absolute(folder: Path) -> Path:
    return with_row(str(secret(folder / "pictures")))(folder)


def linked_metadata(folder: Path) -> Path:
    place = inner(folder)
    (place / "metadata.csv").rename(folder / "rows.csv")
    link(place, "metadata.csv", folder / "rows.csv")
    return place


OUTSIDE = [
    *(refused_row(f"{how} does not lead out", *row, OUT) for how, row in WAYS_OUT.items()),
    *(
        loads(f"{how} leads out where that is allowed", *row, outside=True)
        for how, row in WAYS_OUT.items()
    ),
    Case(
        "an absolute path does not lead out",
        prepare=absolute,
        does=mh.folder_dataset,
        refused=mh.DataError,
        says=("1 problem", "row 2", OUT),
    ),
    Case(
        "an absolute path leads out where that is allowed",
        prepare=absolute,
        does=lambda place: mh.folder_dataset(place, outside=True),
        holds=lambda _, dataset: len(dataset) == 2,
    ),
    refused_row("the files of the system are not read", "/etc/passwd", lambda _: None, OUT),
    refused_row("nor found to be missing", "../nothing-here.png", lambda _: None, OUT),
    Case(
        "metadata that is a link does not lead out",
        prepare=linked_metadata,
        does=mh.folder_dataset,
        refused=mh.DataError,
        says=("metadata.csv: ", OUT),
    ),
    Case(
        "metadata that is a link leads out where that is allowed",
        prepare=linked_metadata,
        does=lambda place: mh.folder_dataset(place, outside=True),
        holds=lambda _, dataset: len(dataset) == 1,
    ),
    loads(
        "a link inside of the folder is followed",
        "link.png",
        lambda place: (
            picture(place / "x" / "x.gif", "blue"),
            inner_row(place, "x/x.gif"),
            link(place, "link.png", "x/x.gif"),
        ),
    ),
    loads(
        "a name that goes up and stays inside is read",
        "sub/../x.png",
        lambda place: (picture(place / "x.png", "blue"), (place / "sub").mkdir()),
    ),
    *(
        Case(
            f"outside={value!r} is refused",
            prepare=inner,
            does=lambda place, value=value: mh.folder_dataset(place, outside=value),
            refused=ValueError,
            says=("outside", "True or False"),
        )
        for value in ("no", None, 1, "../other")
    ),
]


def inner_row(place: Path, name: str) -> None:
    with open(place / "metadata.csv", "a", encoding="utf-8") as file:
        file.write(f"{name},another caption\n")


# -------------------------------------------------------------------------- what is no picture file


def bind(place: Path) -> None:
    here = os.getcwd()
    os.chdir(place)  # the path of a socket may have some 100 characters
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("x.jpg")
    finally:
        os.chdir(here)


def circle(place: Path) -> None:
    link(place, "x.jpg", "y.jpg")
    link(place, "y.jpg", "x.jpg")


def unlisted(name: str, make: Callable[[Path], object]) -> Case:
    """What lies there without a row is no picture, and does not stop anything."""

    def prepare(folder: Path) -> Path:
        place = inner(folder)
        make(place)
        return place

    return Case(name, prepare, mh.folder_dataset, holds=lambda _, d: len(d) == 1, keeps=names_in)


def gone(place: Path) -> None:
    link(place, "x.jpg", "not-here.jpg")


NO_FILES = {  # what → (how it is made, what is said of it)
    "a pipe": (lambda place: os.mkfifo(place / "x.jpg"), "a pipe"),
    "a socket": (bind, "a socket"),
    "a folder": (lambda place: (place / "x.jpg").mkdir(), "a folder"),
    "a circle of links": (circle, "leads back to itself"),
    "a link to nothing": (gone, "not-here.jpg"),
    "a link to itself": (lambda place: link(place, "x.jpg", "x.jpg"), "leads back to itself"),
}
FILES = [
    *(
        refused_row(f"{what} that is called a picture is named", "x.jpg", make, said)
        for what, (make, said) in NO_FILES.items()
    ),
    *(
        unlisted(f"{what} that no row names is no picture", make)
        for what, (make, _) in NO_FILES.items()
    ),
    Case(
        "a device is no picture, even where links may lead out",
        prepare=with_row("x.jpg", lambda place: link(place, "x.jpg", "/dev/zero")),
        does=lambda place: mh.folder_dataset(place, outside=True),
        refused=mh.DataError,
        says=("row 2: x.jpg: ", "it is a device"),
    ),
    unlisted("a folder that contains itself is read once", lambda place: link(place, "sub", place)),
    unlisted("other files may lie there", lambda place: (place / "notes.txt").write_text("x")),
    refused_row("a missing file is named", "x.jpg", lambda _: None, "no such file"),
    *(
        refused_row(f"a file name of {what} is named", name, lambda _: None, said)
        for what, name, said in (
            ("a folder", ".", "it is a folder"),
            ("the way up", "..", OUT),
            ("a web address", "https://example.org/x.jpg", "no such file"),
            ("a Windows drive", "C:\\x.jpg", "no such file"),
        )
    ),
]

# ---------------------------------------------------------------------- names that are nearly right

NEARLY = {  # what is wrong with it → (in the row, in the folder)
    "capitals": ("cat.jpg", "Cat.JPG"),
    "a backslash": ("sub\\cat.jpg", "sub/cat.jpg"),
    "a folder that was left out": ("cat.jpg", "train/cat.jpg"),
    "a folder too many": ("train/cat.jpg", "cat.jpg"),
    "an accent in another encoding": ("caf\u00e9.jpg", "cafe\u0301.jpg"),
    "a space before the suffix": ("cat.jpg", "cat.jpg "),
    "a wide letter": ("\uff43at.jpg", "cat.jpg"),
}
NAMES = [
    *(
        refused_row(
            f"{what} in a file name brings up the right one",
            row,
            lambda place, real=real: (
                picture(place / "y.png"),
                (place / real).parent.mkdir(exist_ok=True),
                (place / "y.png").rename(place / real),
            ),
            "no such file; did you mean",
        )
        for what, (row, real) in NEARLY.items()
    ),
    refused_row(
        "a circle of links is not what a missing file is meant to be",
        "X.JPG",
        lambda place: circle(place),
        "there is no such file",
    ),
    Case(
        "a name that is far too long stays short in the message",
        prepare=with_row("x" * 100_000 + ".jpg"),
        does=mh.folder_dataset,
        refused=mh.DataError,
        says=("row 2: xxxx", "File name too long"),
    ),
    Case(
        "a name of control characters cannot write into the terminal",
        prepare=with_row("\x1b[2J\x07.jpg"),
        does=mh.folder_dataset,
        refused=mh.DataError,
        says=(r"row 2: \x1b[2J\x07.jpg",),
    ),
    Case(
        "a name with a zero cannot be one",
        prepare=with_row("x\0.jpg"),
        does=mh.folder_dataset,
        refused=mh.DataError,
        says=(r"row 2: x\x00.jpg: no file can have such a name",),
    ),
    Case(
        "a file of control characters without a row is shown escaped",
        prepare=lambda folder: picture(inner(folder) / "a\x1b\n.png").parent,
        does=mh.folder_dataset,
        refused=mh.DataError,
        says=(r"a\x1b\n.png: this picture has no row",),
    ),
    Case(
        "a picture without a row is named",
        prepare=lambda folder: picture(inner(folder) / "sub" / "x.JPEG").parent.parent,
        does=mh.folder_dataset,
        refused=mh.DataError,
        says=("x.JPEG: this picture has no row",),
    ),
    *(
        Case(
            f"{row!r} is the same file as a.png",
            prepare=lambda folder, row=row: (
                picture(
                    picture(inner(folder, "a.png", row) / "sub" / "b.txt.png").parent.parent
                    / "a.png"
                ).parent
            ),
            does=mh.folder_dataset,
            refused=mh.DataError,
            says=("1 problem", "b.txt.png: this picture has no row"),
        )
        for row in ("./a.png", " a.png ", "sub/../a.png", "a.png")
    ),
]

# --------------------------------------------------------------------------- what is no such folder


def a_file(name: str, data: bytes = b"x") -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return prepare


def empty(folder: Path) -> Path:
    return folder


FOLDERS = [
    *(
        Case(
            f"folder_dataset({value!r}) says what it takes",
            prepare=lambda _, value=value: value,
            does=mh.folder_dataset,
            refused=TypeError,
            says=("folder is", "pass the path"),
        )
        for value in (None, 5, "", b"pictures", ["a", "b"], True)
    ),
    *(
        Case(
            f"{what} for a folder is refused with what to pass",
            prepare=a_file(name),
            does=mh.folder_dataset,
            refused=mh.DataError,
            says=(said,),
            keeps=Path.read_bytes,
        )
        for what, name, said in (
            ("its metadata.csv", "metadata.csv", "pass the folder that it lies in"),
            ("its metadata.jsonl", "metadata.jsonl", "pass the folder that it lies in"),
            ("a ZIP", "x.zip", "unpack it"),
            ("a .tar", "x.tar", "shard_dataset"),
            ("a picture", "x.png", "this is a file"),
        )
    ),
    Case(
        "a pipe for a folder is refused and not waited for",
        prepare=lambda folder: (os.mkfifo(folder / "x"), folder / "x")[1],
        does=mh.folder_dataset,
        refused=mh.DataError,
        says=("this is a file",),
    ),
    *(
        Case(
            f"{what} for a folder does not exist",
            prepare=lambda folder, name=name: folder / name,
            does=mh.folder_dataset,
            refused=mh.DataError,
            says=("this folder does not exist",),
        )
        for what, name in (("nothing", "x"), ("a name with a zero", "x\0y"))
    ),
    Case(
        "a folder without metadata says which files it may have",
        prepare=empty,
        does=mh.folder_dataset,
        refused=mh.DataError,
        says=("metadata.csv or metadata.jsonl",),
    ),
    *(
        Case(
            f"{name} instead of metadata.csv is named",
            prepare=lambda folder, name=name: a_file(name)(folder).parent,
            does=mh.folder_dataset,
            refused=mh.DataError,
            says=("there is no metadata file", f"it has {name}"),
        )
        for name in ("Metadata.CSV", "metadata.xlsx", "metadata.json", "metadata.csv.txt")
    ),
    *(
        Case(
            f"a metadata.csv that is {what} is named",
            prepare=lambda folder, make=make: (make(folder / "metadata.csv"), folder)[1],
            does=mh.folder_dataset,
            refused=mh.DataError,
            says=("metadata.csv", said),
        )
        for what, make, said in (
            ("a folder", Path.mkdir, "a folder"),
            ("a pipe", lambda path: os.mkfifo(path), "a pipe"),
            ("a link to itself", lambda path: path.symlink_to(path), "back to itself"),
            ("a link to nothing", lambda path: path.symlink_to("x"), "No such file"),
        )
    ),
]

# ---------------------------------------------------------------- a folder that changes under a run


def scanned(folder: Path) -> tuple[Path, mh.PictureDataset]:
    place = inner(folder, "x.png")
    picture(place / "x.png", "blue")
    return place / "x.png", mh.folder_dataset(place)


def change(what: Callable[[Path], object], load: Callable[[mh.PictureDataset], object]):
    def does(scene: tuple[Path, mh.PictureDataset]) -> object:
        path, dataset = scene
        what(path)
        return load(dataset)

    return does


def same_size(path: Path) -> None:
    """Other pixels in as many bytes."""
    data = bytearray(path.read_bytes())
    data[-13] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(0, 0))


CHANGES = {
    "was removed": (Path.unlink, "was removed"),
    "was replaced by another picture": (lambda path: picture(path, "green"), "was changed"),
    "was replaced in as many bytes": (same_size, "was changed"),
    "was cut off": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "was changed"),
    "became a folder": (lambda path: (path.unlink(), path.mkdir()), "was changed"),
    "became a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "was changed"),
}


CHANGING = [
    *(
        Case(
            f"a picture that {what} is noticed {where}",
            prepare=scanned,
            does=change(how, load),
            refused=mh.DataError,
            says=("x.png", said),
        )
        for what, (how, said) in CHANGES.items()
        for where, load in (
            ("when it is loaded", lambda dataset: dataset[1]),
            ("by a copy in another process", lambda d: pickle.loads(pickle.dumps(d))[1]),
        )
    ),
    Case(
        "a picture that did not change loads again",
        prepare=scanned,
        does=lambda scene: pickle.loads(pickle.dumps(scene[1])),
        holds=lambda scene, copy: copy[1][0].tobytes() == scene[1][1][0].tobytes(),
    ),
    Case(
        "a folder that was given by a relative path loads from anywhere",
        prepare=lambda folder: (inner(folder), os.getcwd()),
        does=lambda scene: from_elsewhere(*scene),
        holds=lambda _, picture: picture.size == (8, 8),
        keeps=lambda _: os.getcwd(),
    ),
]


def from_elsewhere(place: Path, here: str) -> Image.Image:
    try:
        os.chdir(place.parent)
        dataset = mh.folder_dataset(place.name)
        os.chdir(place)
        return dataset[0][0]
    finally:
        os.chdir(here)


# ------------------------------------------------------------------------------- pairs and datasets


def blank() -> Image.Image:
    return Image.new("RGB", (2, 2))


def five(_: Path) -> mh.PictureDataset:
    return mh.PictureDataset([Pair(str(i), (f"c{i}", f"d{i}"), str(i), blank) for i in range(5)])


def calls(refusals: dict[str, tuple[Callable, type[Exception], str]]) -> list[Case]:
    """Calls on a dataset of five pairs, which is the same afterwards."""
    return [
        Case(name, five, does, refused=error, says=(said,), keeps=lambda d: d.all_captions)
        for name, (does, error, said) in refusals.items()
    ]


DATASETS = calls(
    {
        "dataset[5] of five": (lambda d: d[5], IndexError, "there is no pair 5: there are 5"),
        "dataset[-6] of five": (lambda d: d[-6], IndexError, "there is no pair -6"),
        "dataset[1, 99]": (lambda d: d[1, 99], IndexError, "there is no caption 99: there are 2"),
        "dataset[1, 2, 3]": (lambda d: d[1, 2, 3], TypeError, "picture i with its caption k"),
        "dataset['x']": (lambda d: d["x"], TypeError, "a position is a whole number"),
        "dataset[1.0]": (lambda d: d[1.0], TypeError, "a position is a whole number"),
        "dataset[None]": (lambda d: d[None], TypeError, "a position is a whole number"),
        "dataset[1:3]": (lambda d: d[1:3], TypeError, "dataset.subset"),
        "dataset[True]": (lambda d: d[True], TypeError, "True is no position"),
        "dataset[0, 'x']": (lambda d: d[0, "x"], TypeError, "a position is a whole number"),
        "subset(3)": (lambda d: d.subset(3), TypeError, "a list of positions"),
        "subset(None)": (lambda d: d.subset(None), TypeError, "a list of positions"),
        "subset('12')": (lambda d: d.subset("12"), TypeError, "a list of positions"),
        "subset([5])": (lambda d: d.subset([5]), IndexError, "there is no pair 5"),
        "subset([-6])": (lambda d: d.subset([-6]), IndexError, "there is no pair -6"),
        "subset([1.5])": (lambda d: d.subset([1.5]), TypeError, "whole number"),
        "subset(['a'])": (lambda d: d.subset(["a"]), TypeError, "whole number"),
        "subset of a mask": (lambda d: d.subset([True] * 5), TypeError, "enumerate(mask)"),
        "subset of a mask of NumPy": (lambda d: d.subset(np.ones(5, bool)), TypeError, "mask"),
        "subset of a mask of torch": (
            lambda d: d.subset(torch.ones(5, dtype=torch.bool)),
            TypeError,
            "mask",
        ),
        "head(-1)": (lambda d: d.head(-1), ValueError, "count is -1"),
        "head(2.5)": (lambda d: d.head(2.5), ValueError, "count is 2.5"),
        "head(True)": (lambda d: d.head(True), ValueError, "count is True"),
        "head('3')": (lambda d: d.head("3"), ValueError, "count is '3'"),
        "find(['c1'])": (lambda d: d.find(["c1"]), TypeError, "find takes texts"),
        "find(None)": (lambda d: d.find(None), TypeError, "find takes texts"),
        "find(1)": (lambda d: d.find(1), TypeError, "find takes texts"),
        "find of what is not there": (lambda d: d.find("c1", "z"), KeyError, "['z']"),
        "find of a caption of a million letters": (
            lambda d: d.find("z" * 10**6),
            KeyError,
            "no picture",
        ),
        "dataset + a list": (lambda d: d + list("ab"), TypeError, "can't be added"),
        "dataset + a picture": (lambda d: d + blank(), TypeError, "can't be added"),
        "dataset + None": (lambda d: d + None, TypeError, "can't be added"),
        "a dataset of a dataset": (mh.PictureDataset, TypeError, "already"),
        "a dataset of None": (lambda _: mh.PictureDataset(None), TypeError, "a list of Pair"),
        "a dataset of a path": (lambda _: mh.PictureDataset("abc"), TypeError, "must be a Pair"),
        "a dataset of one pair": (
            lambda d: mh.PictureDataset(d.pairs[0]),
            TypeError,
            "a list of Pair",
        ),
        "a dataset of pictures": (
            lambda _: mh.PictureDataset([blank()]),
            TypeError,
            "must be a Pair",
        ),
        "a credit that is no text": (
            lambda d: mh.PictureDataset(d.pairs, credit=None),
            TypeError,
            "credit",
        ),
        "a pair without captions": (lambda _: Pair("a", (), "d", blank), ValueError, "at least"),
        "a pair with a text for captions": (
            lambda _: Pair("a", "a cat", "d", blank),
            TypeError,
            "a tuple of texts",
        ),
        "a pair with None for captions": (
            lambda _: Pair("a", None, "d", blank),
            TypeError,
            "a tuple of texts",
        ),
        "a pair with an empty caption": (
            lambda _: Pair("a", ("x", " "), "d", blank),
            ValueError,
            "not empty",
        ),
        "a pair with a number for a caption": (
            lambda _: Pair("a", (5,), "d", blank),
            ValueError,
            "must be a text",
        ),
        "a pair with a picture for its loader": (
            lambda _: Pair("a", ("x",), "d", blank()),
            TypeError,
            "must be a function",
        ),
        "a pair with None for its loader": (
            lambda _: Pair("a", ("x",), "d", None),
            TypeError,
            "must be a function",
        ),
        "a pair with bytes for its digest": (
            lambda _: Pair("a", ("x",), b"d", blank),
            TypeError,
            "digest",
        ),
    }
)
POSITIONS = [
    Case(
        f"dataset[{value!r}] counts as in a list",
        prepare=five,
        does=lambda dataset, value=value: (dataset[value][1], dataset.subset([value]).captions[0]),
        holds=lambda dataset, captions, i=i: set(captions) == {f"c{i}"},
    )
    for value, i in ((4, 4), (-1, 4), (np.int64(2), 2), (torch.tensor(3), 3))
]

CASES = DATASETS + POSITIONS
if os.name == "posix":  # Windows has no pipes, other names, and links for administrators only
    CASES += OUTSIDE + FILES + NAMES + FOLDERS + CHANGING
