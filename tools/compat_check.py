"""Run the tests with the oldest and with the newest versions that pyproject.toml allows.

    python tools/compat_check.py
    python tools/compat_check.py --only oldest tests/test_attention.py

`make test` says that everything works with the one set of versions in constraints.txt. But
pyproject.toml promises more: lower bounds and no upper ones. This builds an environment at either
end, in .compat-check/ (a few GB), and runs the tests in both: "oldest", where each package that
pyproject.toml names is the oldest that its bound and the others' bounds allow (uv's
`lowest-direct`), and "newest", where everything is. They are built again when pyproject.toml or
the Python changes, or with --fresh, which you want when "newest" has grown old. The table at the
end says which versions were met and what came of it; the exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".compat-check"
ENVIRONMENTS = {"oldest": ["--resolution", "lowest-direct"], "newest": []}
SHOWN = ("torch", "torchvision", "open_clip_torch", "timm", "peft")
VERSIONS = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"


def python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def find_uv() -> list[str]:
    """The command that starts uv; without one on this machine, pip fetches it into a corner."""
    on_path = shutil.which("uv")
    if on_path and subprocess.run([on_path, "--version"], capture_output=True).returncode == 0:
        return [on_path]
    corner = FOLDER / "uv"
    own = [str(python_of(corner)), "-m", "uv"]
    if not python_of(corner).exists():
        subprocess.run([sys.executable, "-m", "venv", str(corner)], check=True)
    subprocess.run([own[0], "-m", "pip", "install", "--quiet", "uv"], check=True)
    return own


def stamp_of(options: Sequence[str]) -> str:
    """What an environment was made from: with another stamp it is out of date."""
    project = (ROOT / "pyproject.toml").read_bytes()
    return f"{hashlib.sha256(project).hexdigest()} {sys.version.split()[0]} {' '.join(options)}"


def build(name: str, *, fresh: bool = False) -> Path:
    """Make the environment `name`, unless it is there and up to date. Returns its Python."""
    environment, stamp = FOLDER / name, FOLDER / f"{name}.stamp"
    wanted = stamp_of(ENVIRONMENTS[name])
    if not fresh and stamp.exists() and stamp.read_text() == wanted:
        return python_of(environment)
    stamp.unlink(missing_ok=True)
    shutil.rmtree(environment, ignore_errors=True)
    uv, python = find_uv(), str(python_of(environment))
    subprocess.run([*uv, "venv", "--quiet", "-p", sys.executable, str(environment)], check=True)
    install = [*uv, "pip", "install", "--quiet", "-p", python, *ENVIRONMENTS[name]]
    subprocess.run([*install, "-e", f"{ROOT}[lab,test]"], check=True)
    stamp.write_text(wanted)  # only now: a build that broke off is begun anew
    return python_of(environment)


def counts(report: Path) -> dict[str, int]:
    """How many tests passed, failed and were skipped, from pytest's JUnit report."""
    if not report.exists():
        return {"passed": 0, "failed": 0, "skipped": 0}  # pytest did not come to the tests
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    tests, failures, errors, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites)
        for key in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return {"passed": tests - failed - skipped, "failed": failed, "skipped": skipped}


def check(name: str, python: Path, tests: Sequence[str], *, notebooks: bool) -> list[str]:
    """Run the tests in one environment. Returns its row of the table, "ok" or "FAILED" last."""
    shown = [str(python), "-c", VERSIONS, *SHOWN]
    versions = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.split()
    print(f"\n== {name}: {', '.join(map(' '.join, zip(SHOWN, versions, strict=True)))}", flush=True)
    report = FOLDER / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += [] if notebooks else ["-m", "not notebook"]
    status = subprocess.run([*command, *tests], cwd=ROOT).returncode
    numbers = [str(number) for number in counts(report).values()]
    return [name, *versions, *numbers, "FAILED" if status else "ok"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", help="test files (default: all)")
    parser.add_argument("--only", choices=ENVIRONMENTS, help="one environment of the two")
    parser.add_argument("--notebooks", action="store_true", help="run the notebooks, too")
    parser.add_argument("--fresh", action="store_true", help="build the environments anew")
    options = parser.parse_args(arguments)

    FOLDER.mkdir(exist_ok=True)
    rows = []
    for name in [options.only] if options.only else ENVIRONMENTS:
        python = build(name, fresh=options.fresh)
        rows.append(check(name, python, options.tests, notebooks=options.notebooks))

    table = [["", *SHOWN, "passed", "failed", "skipped", ""], *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print()
    for row in table:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    return int(any(row[-1] == "FAILED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
