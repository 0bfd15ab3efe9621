"""Your own pictures in a folder, with a metadata file beside them."""

from __future__ import annotations

import functools
import os
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from ..checks import true_or_false
from ..files import ImpossibleName, resolved
from ..progress_bar import progress_bar
from .images import FORMATS, kind_of_file, open_picture
from .metadata import read_metadata
from .pairs import DataError, Pair, PictureDataset, shown
from .reader import Reader

METADATA_FILES = ("metadata.csv", "metadata.jsonl")
LONGEST_NAME = 100  # characters of it that are shown
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")
Stamp: TypeAlias = tuple[str | None, int, int]
LEADS_OUT = "it leads out of the folder; pass outside=True if you trust it"


def folder_dataset(folder: str | Path, *, outside: bool = False) -> PictureDataset:
    """Your own pictures: a folder with `metadata.csv` or `metadata.jsonl`.

    The metadata has the columns `file_name` (relative to the folder) and `text`: the *imagefolder*
    convention of Hugging Face datasets. Rows with the same file are one picture with several
    captions; in a .jsonl, `text` may be a list of them. Spaces around names and captions don't
    count, nor do capitals in the names of columns. Only what lies in the folder is opened; with
    `outside`, a file name or a symbolic link may lead out of it.

    Raises DataError with every problem, each with file and row; a picture without a row is one of
    them. A picture that is changed or removed later raises DataError when it is loaded.
    """
    true_or_false("outside", outside)
    folder = _existing(folder)
    metadata = _metadata_file(folder, outside)
    rows = read_metadata(metadata)
    scan = _Scan(folder, outside)
    for row in progress_bar(rows, "Reading pictures", "rows"):
        where = f"{metadata.name}, row {row.number}"
        if row.fault is not None:
            scan.reader.problems.append(f"{where}: {row.fault}")
        if row.record is not None:
            scan.add(where, row.record.get("file_name"), row.record.get("text"))
    if all(row.record is not None for row in rows):  # else its picture has a row that can't be read
        scan.report_pictures_without_row(metadata.name)
    return scan.reader.dataset(scan.pairs.values())


def _existing(folder: object) -> Path:
    """The path of a folder that exists. TypeError for what is no path, DataError for no folder."""
    if not isinstance(folder, str | os.PathLike) or folder == "":
        raise TypeError(f"folder is {folder!r:.60}; pass the path of a folder with your pictures")
    path = Path(folder)
    try:
        if path.is_dir():
            return path
        exists = path.exists()
    except OSError as error:
        raise DataError(path, [f"it can't be read ({error.strerror})"]) from error
    if not exists:
        problem = "this folder does not exist"
    elif path.name in METADATA_FILES:
        problem = f"this is a metadata file; pass the folder that it lies in: {path.parent}"
    elif path.suffix.lower() in ARCHIVES:
        problem = "this is an archive; unpack it and pass the folder (shard_dataset reads a .tar)"
    else:
        problem = f"this is a file; pass the folder that holds the pictures and {METADATA_FILES[0]}"
    raise DataError(path, [problem])


def _metadata_file(folder: Path, outside: bool) -> Path:
    """The one metadata file in the folder. DataError if there is none, or not one to be read."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise DataError(folder, [f"this folder can't be read ({error.strerror})"]) from error
    existing = [name for name in METADATA_FILES if name in names]
    if len(existing) > 1:
        raise DataError(folder, [f"both {' and '.join(existing)} are here; keep one of them"])
    if not existing:
        close = [name for name in names if name.lower().startswith("metadata")]
        has = f" (it has {shown(', '.join(close), LONGEST_NAME)})" if close else ""
        problem = f"there is no metadata file: {' or '.join(METADATA_FILES)}{has}"
        raise DataError(folder, [problem])
    [name] = existing
    try:
        path = resolved(folder / name)
        if not outside and not path.is_relative_to(resolved(folder)):
            raise ValueError(LEADS_OUT)
        if kind := kind_of_file(path.stat().st_mode):
            raise ValueError(f"it is {kind}, and not a file")
    except (OSError, ValueError) as error:
        raise DataError(folder, [f"{name}: {getattr(error, 'strerror', None) or error}"]) from error
    return folder / name


class _Scan:
    """What was found in a folder so far."""

    def __init__(self, folder: Path, outside: bool):
        self.folder, self.root, self.outside = folder, resolved(folder), outside
        self.reader = Reader(folder)
        self.files = self._files()
        self.pairs: dict[Path, Pair | None] = {}  # None if there is a problem
        self.listed: set[Path] = set()

    def add(self, where: str, name: object, text: object) -> None:
        """Take in the file and the captions of one row."""
        if name is not None and not isinstance(name, str):
            self.reader.problems.append(f"{where}: file_name is {name!r:.60}, which is no text")
            return
        if not name or not name.strip():
            self.reader.problems.append(f"{where}: file_name is empty")
            return
        name = name.strip()
        where = f"{where}: {shown(name, LONGEST_NAME)}"
        try:
            path = self._inside(name)
            load = functools.partial(_load, path, _stamp(path))
        except (OSError, ValueError) as error:
            self.reader.problems.append(f"{where}: {self._why(name, error)}")
            self.reader.captions(where, text)  # these may be wrong, too
            return
        if path not in self.pairs:
            self.pairs[path] = self.reader.pair(name, where, text, load)
            return
        captions, pair = self.reader.captions(where, text), self.pairs[path]
        if pair is not None:
            together = tuple(dict.fromkeys(pair.captions + captions))
            self.pairs[path] = replace(pair, captions=together)

    def report_pictures_without_row(self, metadata: str) -> None:
        """Add each picture anywhere in the folder, by its suffix, that no row names."""
        Image.init()
        pictures = {end for end, name in Image.EXTENSION.items() if name in (*FORMATS, "MPO")}
        for path in self.files:
            if path.suffix.lower() not in pictures or not os.path.isfile(path):
                continue
            if resolved(path) not in self.listed:
                self.reader.problems.append(
                    f"{self._short(path)}: this picture has no row in {metadata}"
                )

    def _files(self) -> list[Path]:
        """All files in the folder, sorted. Links to folders are not followed."""

        def report(error: OSError) -> None:
            place = self._short(Path(error.filename))
            self.reader.problems.append(f"{place}: this folder can't be read ({error.strerror})")

        walk = os.walk(self.folder, onerror=report)
        return sorted(Path(place, name) for place, _, names in walk for name in names)

    def _short(self, path: Path) -> str:
        return shown(str(path.relative_to(self.folder)), LONGEST_NAME)

    def _inside(self, name: str) -> Path:
        """The real path of a file name. ValueError if it leads out of the folder and may not."""
        try:
            path = resolved(self.folder / name)
        except ImpossibleName as error:
            raise ValueError("no file can have such a name") from error
        self.listed.add(path)
        if not self.outside and not path.is_relative_to(self.root):
            raise ValueError(LEADS_OUT)
        return path

    def _why(self, name: str, error: Exception) -> str:
        """Why a file can't be opened; if there is none, which one may be meant."""
        if isinstance(error, FileNotFoundError):
            return f"there is no such file{self._suggestion(name)}"
        if isinstance(error, OSError):
            return f"it can't be opened: {error.strerror or error}"
        return str(error)

    def _suggestion(self, name: str) -> str:
        link = self.folder / name
        if link.is_symlink():
            return f" as the one that this link points to, {shown(os.readlink(link), LONGEST_NAME)}"
        path = self._similar.get(_spelling(name)) or self._similar.get(_spelling(Path(name).name))
        if path is None:
            return ""
        self.listed.add(resolved(path))
        meant = path.relative_to(self.folder).as_posix()
        alike = unicodedata.normalize("NFC", meant) == unicodedata.normalize("NFC", name)
        return f"; did you mean {shown(ascii(meant) if alike else repr(meant), LONGEST_NAME)}?"

    @functools.cached_property
    def _similar(self) -> dict[str, Path]:
        """The files by how their paths are spelt, roughly, and by how their names alone are."""
        files = [path for path in self.files if os.path.isfile(path)]
        names = {_spelling(path.name): path for path in files}
        return names | {_spelling(str(path.relative_to(self.folder))): path for path in files}


def _spelling(name: str) -> str:
    """What names have in common that differ in capitals, slashes, spaces, or accents' encoding."""
    parts = unicodedata.normalize("NFKC", name).casefold().replace("\\", "/").split("/")
    return "/".join(part.strip() for part in parts if part.strip() not in ("", "."))


def _stamp(path: Path) -> Stamp:
    """What changes when a file does: what it is, its size, and the time of its last change."""
    found = path.stat()
    return kind_of_file(found.st_mode), found.st_size, found.st_mtime_ns


def _load(path: Path, stamp: Stamp) -> Image.Image:
    """The picture in a file. DataError if it is not the one any more that the folder had."""
    try:
        if _stamp(path) == stamp:
            return open_picture(path)
        change = "was changed"
    except FileNotFoundError:
        change = "was removed"
    except OSError as error:
        change = f"can't be opened any more ({error.strerror})"
    raise DataError(
        path.parent, [f"{path.name} {change} since the folder was read; call folder_dataset again"]
    )
