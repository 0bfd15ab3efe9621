"""`make compat-check` counts what pytest counts, and fails when the tests do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import compat_check

THREE = """
import pytest
def test_passes(): pass
@pytest.mark.skip
def test_skipped(): pass
@pytest.mark.notebook
def test_long(): assert False
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, and this very environment instead of two new ones."""
    monkeypatch.setattr(compat_check, "FOLDER", tmp_path / "environments")
    monkeypatch.setattr(compat_check, "build", lambda name, fresh: Path(sys.executable))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = notebook\n")
    (tmp_path / "test_three.py").write_text(THREE)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "row", "status"),
    [([], ["1", "0", "1", "ok"], 0), (["--notebooks"], ["1", "1", "1", "FAILED"], 1)],
)
def test_the_table_has_the_counts_and_the_status_says_whether_any_failed(
    here: Path, capfd: pytest.CaptureFixture, options: list[str], row: list[str], status: int
):
    assert compat_check.main([*options, "--only", "newest", str(here / "test_three.py")]) == status
    last = capfd.readouterr().out.splitlines()[-1].split()
    assert (last[0], last[-4:]) == ("newest", row)


def test_a_file_that_cannot_be_imported_has_failed(here: Path, capfd: pytest.CaptureFixture):
    (here / "test_broken.py").write_text("import nothing_of_this_name")
    assert compat_check.main(["--only", "oldest", str(here / "test_broken.py")]) == 1
    assert capfd.readouterr().out.split()[-4:] == ["0", "1", "0", "FAILED"]


def test_an_environment_is_out_of_date_with_another_bound(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(compat_check, "ROOT", tmp_path)
    stamps = set()
    for bound in ("torch>=2.11", "torch>=2.12"):
        (tmp_path / "pyproject.toml").write_text(bound)
        stamps |= {compat_check.stamp_of(options) for options in ([], ["--resolution", "lowest"])}
    assert len(stamps) == 4
