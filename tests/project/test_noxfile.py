"""`make compat-check` gives pytest its arguments, and fails when the tests do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOXFILE = Path(__file__).parent.parent.parent / "noxfile.py"
TWO = "def test_good(): pass\ndef test_bad(): assert False\n"


@pytest.mark.parametrize(("chosen", "line"), [("good", "1 passed"), ("bad", "1 failed")])
def test_it_fails_when_the_tests_do(tmp_path: Path, chosen: str, line: str):
    """In this very environment instead of two new ones."""
    (tmp_path / "test_two.py").write_text(TWO)
    here = Path(sys.executable).parent
    command = [sys.executable, "-m", "nox", "-f", NOXFILE, "--no-venv", "--no-install", "--"]
    done = subprocess.run(
        [*command, tmp_path / "test_two.py", "-k", chosen],
        env={**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.count(line) == 2  # the oldest and the newest: the first does not end it
    assert (done.returncode == 0) == (chosen == "good"), done.stderr
