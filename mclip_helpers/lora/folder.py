"""The folder of an adapter: what `save_adapter` notes in it, and whether it is still that.

`base_model.json` names the base, its fingerprint and the scalars that were trained with the
adapter, and it lists every other file with its SHA-256. As no file can list itself, it ends with
the SHA-256 of its own content. So a folder can be told from one in which somebody has worked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from ..checks import finite_number
from ..files import file_hash, foreign, hashes, notes_hash, resolved, settle, some_of
from .state import SCALARS

BASE_FILE = "base_model.json"
FILES = (BASE_FILE, CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME)
LONGEST = 1_000_000  # bytes of a JSON file; the names of all layers of the largest CLIP take 5 %
FROM_PEFT = "One that PEFT itself saved can be loaded with unchecked_base=True"
MOST = 80.0  # e⁸⁰ is still finite in fp32, and e⁻⁸⁰ is not zero


def write_notes(folder: Path, name: str, fingerprint: str, scalars: Mapping[str, float]) -> None:
    """Write `base_model.json`, when all other files are in `folder`."""
    notes = {"name": name, "fingerprint": fingerprint, **scalars, "files": hashes(folder)}
    notes["sha256"] = notes_hash(notes)
    (folder / BASE_FILE).write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")


def read_notes(folder: Path) -> dict[str, Any]:
    """What `base_model.json` says. ValueError if it was changed or is not what we write."""
    file = folder / BASE_FILE
    notes = read_json(file)
    for key in ("name", "fingerprint"):
        if not isinstance(notes.get(key), str) or len(notes[key]) > 300:
            raise ValueError(f"{file} has no text under {key!r}; save the adapter again")
    for key in SCALARS:
        if key == "logit_scale" or key in notes:
            check_scalar(f"{key} in {file}", notes.get(key))
    if not isinstance(_hashes_noted(notes).get(SAFETENSORS_WEIGHTS_NAME), str):
        raise ValueError(f"{file} has no checksum of the adapter; save the adapter again")
    if "files" in notes and notes.get("sha256") != notes_hash(notes):
        raise ValueError(
            f"{file} is damaged, or was changed since save_adapter wrote it; save the adapter again"
        )
    return notes


def check_scalar(name: str, value: object) -> float:
    """A value of `logit_scale` or `logit_bias`. ValueError unless the model can compute with it."""
    return finite_number(name, value, least=-MOST, most=MOST)


def require_as_saved(folder: Path, notes: Mapping[str, Any]) -> None:
    """ValueError unless the files that `load_adapter` reads are those that `notes` belong to."""
    written = _hashes_noted(notes)
    for name in (SAFETENSORS_WEIGHTS_NAME, CONFIG_NAME):
        # Before there was a list of files, the adapter's weights alone had a checksum.
        if (name in written or "files" in notes) and written.get(name) != file_hash(folder / name):
            raise ValueError(
                f"{folder / name} is damaged, or not the file that {BASE_FILE} beside it belongs "
                f"to; save the adapter again"
            )


def refuse_foreign(path: Path) -> None:
    """FileExistsError unless all that is at `path` is as `save_adapter` wrote it (or it is empty).

    A folder of an older version has no list of its files: its card may be somebody's work.
    """
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file, not an adapter; save to another path")
    inside = sorted(item.name for item in path.iterdir())
    if not inside:
        return
    if BASE_FILE not in inside:
        raise FileExistsError(
            f"{path} was not written by save_adapter, and holds {some_of(inside)}; save to another "
            f"path"
        )
    try:
        notes = read_notes(path)
    except (OSError, ValueError) as error:
        raise FileExistsError(
            f"{path} can't be replaced, as its {BASE_FILE} was changed since save_adapter wrote "
            f"it; save to another path, or delete that folder"
        ) from error
    if "files" not in notes:
        raise FileExistsError(
            f"{path} was saved by an older version, which did not note what it wrote: its "
            f"README.md may be your work; save to another path, or delete that folder"
        )
    others = [name for name in foreign(path, notes["files"]) if name != BASE_FILE]
    if others:
        raise FileExistsError(
            f"{path} holds what save_adapter did not write, or what was changed since: "
            f"{some_of(others)}; move it away, or save to another path"
        )


def find_folder(path: str | Path, *, needs_notes: bool) -> Path:
    """The folder `path`, after a save that was cut short there is undone.

    FileNotFoundError if a file of an adapter is missing in it; `base_model.json` may be, unless
    `needs_notes`.
    """
    settle(resolved(path))
    folder = Path(path)
    if folder.is_file():
        raise FileNotFoundError(f"{folder} is not an adapter saved by save_adapter, but a file")
    pefts_own = all((folder / name).is_file() for name in FILES[1:])
    for name in FILES if needs_notes else FILES[1:]:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} is not an adapter saved by save_adapter: no {name}"
                + (f". {FROM_PEFT}" if pefts_own else "")
            )
    return folder


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`. ValueError, in one sentence, for anything else."""
    if file.stat().st_size > LONGEST:
        raise ValueError(f"{file} is larger than {LONGEST / 1e6:.0f} MB, and not what it should be")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}); save the adapter again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file} holds a {type(value).__name__}, not a JSON object")
    return value


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Say in one sentence what the system has against reading `path`."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(f"{path} can't be read ({error.strerror or error})") from error


def _hashes_noted(notes: Mapping[str, Any]) -> Mapping[str, Any]:
    files = notes.get("files", {SAFETENSORS_WEIGHTS_NAME: notes.get("adapter_sha256")})
    return files if isinstance(files, dict) else {}
