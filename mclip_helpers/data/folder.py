"""Your own pictures in a folder, with a metadata file beside them."""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from PIL import Image

from ..checks import true_or_false
from ..files import ImpossibleName, resolved
from ..progress_bar import progress_bar
from .images import FORMATS, kind_of_file, open_picture
from .metadata import Row, read_metadata
from .pairs import DataError, Pair, PictureDataset, shown
from .reader import Entry, Reader
from .stamps import Stamp, require_unchanged, stamp

METADATA_FILES = ("metadata.csv", "metadata.jsonl")
LONGEST_NAME = 100  # characters of it that are shown
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")
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
    entries = scan.entries(metadata.name, rows)
    opened = progress_bar(
        scan.reader.pairs(entries), "Reading pictures", "pictures", total=len(rows)
    )
    pairs = list(opened)
    if all(row.record is not None for row in rows):  # else its picture has a row that can't be read
        scan.report_pictures_without_row(metadata.name)
    return scan.reader.dataset(scan.with_more_captions(pairs))


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
        self.more: dict[Path, tuple[str, ...]] = {}  # the captions of later rows of a picture
        self.listed: set[Path] = set()

    def entries(self, metadata: str, rows: Iterable[Row]) -> Iterator[Entry]:
        """An entry for each file that a row names first, in order."""
        for row in rows:
            where = f"{metadata}, row {row.number}"
            if row.fault is not None:
                self.reader.problems.append(f"{where}: {row.fault}")
            if row.record is not None:
                yield from self._entry(where, row.record.get("file_name"), row.record.get("text"))

    def _entry(self, where: str, name: object, text: object) -> Iterator[Entry]:
        """The entry of one row, if its file is there and new."""
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
            load = functools.partial(_load, path, stamp(path))
        except (OSError, ValueError) as error:
            self.reader.problems.append(f"{where}: {self._why(name, error)}")
            self.reader.captions(where, text)  # these may be wrong, too
            return
        if path in self.more:
            self.more[path] += self.reader.captions(where, text)
        else:
            self.more[path] = ()
            yield Entry(name, where, text, load)

    def with_more_captions(self, pairs: Iterable[Pair | None]) -> Iterator[Pair | None]:
        """The pairs of all entries, each with the captions of later rows as well."""
        for pair, more in zip(pairs, self.more.values(), strict=True):
            if pair is not None and more:
                pair = replace(pair, captions=tuple(dict.fromkeys(pair.captions + more)))
            yield pair

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


def _load(path: Path, before: Stamp) -> Image.Image:
    require_unchanged(path, before, "call folder_dataset again")
    return open_picture(path)
