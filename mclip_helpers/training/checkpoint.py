"""A run in one file, from which it goes on as if it had never stopped.

The file is in safetensors format: tensors as tensors, all else as JSON in the metadata, beside a
hash of both. Nothing in it is unpickled, so loading it runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .. import files
from ..lora import tensor_bytes
from ..loss import NotFiniteError
from .consistency import not_finite, what_is_wrong
from .fingerprint import differences
from .history import History
from .parts import (
    Tensors,
    model_tensors,
    optimizer_notes,
    optimizer_state,
    optimizer_tensors,
    random_tensors,
    restore_random_state,
)
from .state import TrainingState

FORMAT = 3  # to be raised when the layout of the file changes; the first one held no number
METADATA_KEY, HASH_KEY = "notes", "sha256"
OTHER_FILE = "Take another checkpoint file, or delete this one."


@dataclass(frozen=True)
class Checkpoint:
    """The file of one run; `fingerprint` tells it from other runs (see `run_fingerprint`)."""

    path: Path
    fingerprint: Mapping[str, Any]

    def save(self, state: TrainingState) -> None:
        """Write `state` and the random state, as a whole; if that fails, the old file stays.

        NotFiniteError, and nothing is written, if a NaN or an infinity is in what was trained.
        """
        notes = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "history": asdict(state.history),
            "optimizer": optimizer_notes(state.optimizer),
            "scheduler": state.scheduler.state_dict(),
            "scaler": state.scaler.state_dict(),
            "python's random state": random.getstate(),
        }
        tensors = {
            **model_tensors(state.model),
            **optimizer_tensors(state.optimizer),
            **random_tensors(),
        }
        broken = not_finite(tensors)
        if broken:
            raise NotFiniteError(f"{broken} has NaN or infinite values")
        files.replace(self.path, lambda place: _write(place, notes, tensors), _require_ours)

    def resume(self, state: TrainingState) -> bool:
        """Put back what `save` wrote. Without a file, leave everything as it is, and return False.

        Before anything is changed: OSError if the file can't be written later, and ValueError if
        it is not a checkpoint, is damaged, or is of a run with another fingerprint; the message
        names what differs.
        """
        path = files.require_place(self.path, _require_ours)
        if not path.exists():
            return False
        notes, tensors = _read(path)
        differing = differences(notes["fingerprint"], self.fingerprint)
        if differing:
            raise ValueError(f"{path} is of another run: {'; '.join(differing)}. {OTHER_FILE}")
        wrong = what_is_wrong(notes, tensors, state)
        if wrong:
            raise ValueError(f"{path} can't be a checkpoint of this run: {wrong}. {OTHER_FILE}")
        model = model_tensors(state.model)
        with torch.no_grad():  # all at once, so that Ctrl-C can't leave a part
            torch._foreach_copy_(list(model.values()), [tensors[name] for name in model])
        state.optimizer.load_state_dict(optimizer_state(notes["optimizer"], tensors))
        state.scheduler.load_state_dict(notes["scheduler"])
        if state.scaler.is_enabled() and notes["scaler"]:  # {} if it was saved in other precision
            state.scaler.load_state_dict(notes["scaler"])
        state.history = History(**notes["history"])
        restore_random_state(notes["python's random state"], tensors)
        return True


def file_path(checkpoint: object) -> Path:
    """`checkpoint` as a path. TypeError if it is none, ValueError if no file can be called so."""
    if not isinstance(checkpoint, (str, os.PathLike)):
        raise TypeError(
            f"checkpoint is a {type(checkpoint).__name__}; it must be the path of a file, such as "
            f"'runs/my-run.safetensors'"
        )
    if "\0" in os.fspath(checkpoint):
        raise ValueError("checkpoint has a NUL character in it; take another name")
    return Path(checkpoint)


def _write(place: Path, notes: dict[str, Any], tensors: Tensors) -> None:
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    text = json.dumps(notes)
    save_file(tensors, place, metadata={METADATA_KEY: text, HASH_KEY: _hash(text, tensors)})


def _hash(notes: str, tensors: Tensors) -> str:
    digest = hashlib.sha256(notes.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _require_ours(path: Path) -> None:
    """Raise ValueError unless the file at `path` is a checkpoint."""
    if not path.is_file():
        raise ValueError(
            f"{path} is a folder, or no ordinary file; a checkpoint is one file, such as "
            f"{path / 'run.safetensors'}"
        )
    with _opened(path):
        pass


@contextmanager
def _opened(path: Path) -> Iterator[tuple[safe_open, str]]:
    """The file at `path` and the text of its notes. ValueError if it is no checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {})[METADATA_KEY]
            notes = json.loads(text)
            written = notes.get("format", 1) if isinstance(notes, dict) else None
            if written != FORMAT:
                raise ValueError(
                    f"{path} is a checkpoint in format {written}, and this version of the package "
                    f"reads format {FORMAT}. {OTHER_FILE}"
                )
            yield file, text
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a checkpoint of train() ({error!r})") from error


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    """The notes and the tensors. ValueError if they are not those that were written."""
    with _opened(path) as (file, text):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if file.metadata().get(HASH_KEY) != _hash(text, tensors):
            raise ValueError(
                f"{path} is damaged, or was changed since train() wrote it: its content does not "
                f"fit the hash in it. {OTHER_FILE}"
            )
    return json.loads(text), tensors
