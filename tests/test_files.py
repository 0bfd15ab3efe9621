"""A file or folder is replaced as a whole, only if it is the package's own, and never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mclip_helpers.files import data_folder, foreign, hashes, replace, settle, under_key


def ours(path: Path) -> None:
    """Everything may be replaced."""


def a_file(content: str = "new"):
    return lambda place: place.write_text(content)


def a_folder(content: str = "new"):
    def write(place: Path) -> None:
        place.mkdir()
        (place / "file").write_text(content)

    return write


def state(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_the_package_brings_nano_along():
    assert (data_folder() / "nano.safetensors").is_file()


@pytest.mark.parametrize("write", [a_file, a_folder])
def test_a_new_one_is_written_with_its_parents(tmp_path: Path, write):
    path = replace(tmp_path / "a" / "b", write(), ours)
    assert set(state(tmp_path).values()) == {"new"}
    assert path == tmp_path / "a" / "b"


@pytest.mark.parametrize("write", [a_file, a_folder])
def test_an_old_one_is_replaced_and_nothing_else_is_left(tmp_path: Path, write):
    replace(tmp_path / "it", write("old"), ours)
    replace(tmp_path / "it", write("new"), ours)
    assert list(state(tmp_path).values()) == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["it"]


def test_what_is_refused_stays(tmp_path: Path):
    def refuse(path: Path) -> None:
        raise FileExistsError(f"{path} is yours")

    (tmp_path / "it").write_text("thesis")
    with pytest.raises(FileExistsError, match="is yours"):
        replace(tmp_path / "it", a_folder(), refuse)
    assert state(tmp_path) == {"it": "thesis"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_one_and_nothing_else(tmp_path: Path, error: BaseException):
    def write(place: Path) -> None:
        a_folder("half")(place)
        raise error

    replace(tmp_path / "it", a_folder("old"), ours)
    with pytest.raises(type(error)):
        replace(tmp_path / "it", write, ours)
    assert state(tmp_path) == {"it/file": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("at", [1, 2])
def test_ctrl_c_between_the_renames(tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch):
    """After the first, the old one is hidden; after the second, it is replaced."""
    count = 0

    def interrupted(method):
        def call(self: Path, target: Path) -> Path:
            nonlocal count
            result = method(self, target)
            count += 1
            if count == at:
                raise KeyboardInterrupt
            return result

        return call

    replace(tmp_path / "it", a_folder("old"), ours)
    monkeypatch.setattr(Path, "rename", interrupted(Path.rename))
    monkeypatch.setattr(Path, "replace", interrupted(Path.replace))
    with pytest.raises(KeyboardInterrupt):
        replace(tmp_path / "it", a_folder("new"), ours)
    assert state(tmp_path) == {"it/file": "old" if at == 1 else "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["it"]


KILLED = """
import os, signal, sys
from pathlib import Path
from mclip_helpers import files

def killed(method):
    def call(self, target):
        method(self, target)
        os.kill(os.getpid(), signal.SIGKILL)
    return call

setattr(Path, sys.argv[2], killed(getattr(Path, sys.argv[2])))

def write(place):
    place.mkdir()
    (place / "file").write_text("new")

files.replace(sys.argv[1], write, lambda path: None)
"""


@pytest.mark.parametrize(("after", "is_there"), [("rename", "old"), ("replace", "new")])
def test_after_a_kill_between_the_renames(tmp_path: Path, after: str, is_there: str):
    replace(tmp_path / "it", a_folder("old"), ours)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "it"), after]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    settle(tmp_path / "it")
    assert (tmp_path / "it" / "file").read_text() == is_there
    replace(tmp_path / "it", a_folder("newest"), ours)
    assert state(tmp_path) == {"it/file": "newest"}
    assert [p.name for p in tmp_path.iterdir()] == ["it"]


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    assert replace(tmp_path / "link", a_file(), ours) == tmp_path / "real"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_circle_of_links_is_refused(tmp_path: Path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="leads back to itself"):
        replace(tmp_path / "a", a_file(), ours)
    assert os.readlink(tmp_path / "a") == "b"


@pytest.mark.parametrize("path", ["file/below", "x" * 300])
def test_an_impossible_path_is_refused_in_one_sentence(tmp_path: Path, path: str):
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match=r"can't be written \(.*\)\. What was there before is"):
        replace(tmp_path / path, a_file(), ours)
    assert state(tmp_path) == {"file": "old"}


def test_foreign_is_what_was_added_or_changed(tmp_path: Path):
    for name in ("kept", "changed", "gone"):
        (tmp_path / name).write_text(name)
    written = hashes(tmp_path)
    (tmp_path / "changed").write_text("by somebody")
    (tmp_path / "gone").unlink()
    (tmp_path / "added").write_text("")
    assert foreign(tmp_path, written) == ["added", "changed"]


def test_links_pipes_and_empty_folders_are_foreign_and_are_not_opened(tmp_path: Path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "kept").write_text("kept")
    written = hashes(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("below")
    os.mkfifo(tmp_path / "pipe")
    assert foreign(tmp_path, written) == ["empty", "link", "pipe"]


@pytest.mark.parametrize("path", [None, 3, b"path"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(TypeError, match="must be a text or a Path"):
        replace(path, a_file(), ours)


@pytest.mark.parametrize(("path", "why"), [("a\0b", "null byte"), ("/", "the root of all folders")])
def test_what_can_be_no_place_is_refused(path: str, why: str):
    with pytest.raises(OSError, match=why):
        replace(path, a_file(), ours)


def test_under_a_key_a_file_is_made_once_and_anew_for_other_parts(tmp_path):
    made = []

    def write(place):
        made.append(place)
        place.write_text("content")

    first = under_key(tmp_path, "cache-{key}.bin", ["a", "b"], write)
    assert under_key(tmp_path, "cache-{key}.bin", ["a", "b"], write) == first
    other = under_key(tmp_path, "cache-{key}.bin", ["a", "c"], write)
    assert len(made) == 2 and first != other
    assert sorted(tmp_path.iterdir()) == sorted([first, other])
