"""Would the series run on Colab, and would it leave Colab's versions alone?

    python tools/colab_check.py [--python python3.13] [--only 00 03]

Builds an environment with the versions that Colab ships (tools/colab-2026-08.txt) in .colab-check/,
once. Then does what a person does there: puts the notebooks and nothing else into an empty folder
and runs them (short training), each in a fresh kernel, beginning with the cell that fetches the
project. It fetches the last commit of this repository, through a setting of git's. Fails if a
version moved or a cell raised. A stand-in for Google's machines: they have hundreds of packages
more, and a GPU.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".colab-check"
VERSIONS = Path(__file__).parent / "colab-2026-08.txt"
PYTHON = "3.13"
LIST = "import json; from install_missing import installed; print(json.dumps(installed()))"


def build(python: str | None) -> Path:
    """The interpreter of an environment with Colab's versions and nothing else.

    It is made once; what an earlier check has added to it is taken away again.
    """
    interpreter, stamp = PLACE / "bin" / "python", PLACE / "as-built.json"
    if stamp.exists() and stamp.stat().st_mtime > VERSIONS.stat().st_mtime:
        added = packages(interpreter).keys() - json.loads(stamp.read_text()).keys()
        if added:
            command = [interpreter, "-m", "pip", "uninstall", "--quiet", "--yes", *sorted(added)]
            subprocess.run(command, check=True)
        return interpreter
    shutil.rmtree(PLACE, ignore_errors=True)
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--seed", "--python", python or PYTHON, PLACE], check=True)
    install = [*uv, "pip", "install", "--python", interpreter]
    subprocess.run([*install, "--requirement", str(VERSIONS)], check=True)
    stamp.write_text(json.dumps(packages(interpreter)))
    return interpreter


def packages(interpreter: Path) -> dict[str, str]:
    """Name → version of all that is installed there."""
    done = subprocess.run(
        [interpreter, "-c", LIST], cwd=ROOT / "tools", check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def put_notebooks(folder: Path) -> Path:
    """The notebooks of the last commit, alone in an otherwise empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    command = ["git", "archive", "HEAD:notebooks"]
    archive = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def as_on_colab(url: str) -> dict[str, str]:
    """The environment of a Colab kernel, in which the address leads to this repository."""
    return {
        **os.environ,
        "COLAB_RELEASE_TAG": "a stand-in",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{ROOT}.insteadOf",
        "GIT_CONFIG_VALUE_0": url,
        "MCLIP_SHORT": "1",
        "HF_HUB_OFFLINE": "1",
    }


def run_series(folder: Path, only: Sequence[str]) -> None:
    """Run the notebooks of `folder` with this interpreter's kernel; NotebookFailed if one fails."""
    import run_notebooks

    environment = run_notebooks.kernel_environment(short=True, offline=True)
    for path in run_notebooks.find(folder, only):
        run_notebooks.execute(path, environment=environment)
        print(f"{path.stem}: every cell ran", flush=True)


def compare(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What moved or went, a line each; prints what was added."""
    moved = [
        f"{name} {version} → {after.get(name, 'gone')}"
        for name, version in sorted(before.items())
        if after.get(name) != version
    ]
    added = [f"{name} {after[name]}" for name in sorted(after.keys() - before.keys())]
    print(f"preinstalled {len(before)}, moved {len(moved)}, added {len(added)}: {', '.join(added)}")
    return moved


def report_stand_ins(here: dict[str, str]) -> None:
    """Which of Colab's packages are here in another build."""
    lines = [line for line in VERSIONS.read_text().splitlines() if not line.startswith("#")]
    wanted = dict(line.split("==") for line in lines)
    lower = {name.lower().replace("_", "-"): version for name, version in here.items()}
    missing = {n: v for n, v in wanted.items() if lower.get(n.lower().replace("_", "-")) != v}
    print(f"{len(wanted) - len(missing)} of {len(wanted)} listed versions are here exactly")
    for name, version in missing.items():
        print(f"  {name}: {version} is listed, {lower.get(name.lower().replace('_', '-'))} is here")
    print("torch and torchvision are the package index's builds of these versions, not +cu128's.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", help=f"a Python {PYTHON}, if it is not found by itself")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="e.g. 03 or 05_train")
    parser.add_argument("--inside", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        run_series(options.inside, options.only)
        return 0

    from address import address

    interpreter = build(options.python)
    before = packages(interpreter)
    report_stand_ins(before)
    content = put_notebooks(PLACE / "content")
    command = [interpreter, Path(__file__), "--inside", content]
    if options.only:
        command += ["--only", *options.only]
    done = subprocess.run(command, env=as_on_colab(address()), cwd=ROOT / "tools")
    moved = compare(before, packages(interpreter))
    for line in moved:
        print(f"MOVED: {line}")
    failed = done.returncode != 0 or bool(moved)
    print("A stand-in for Colab's machine:", "FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
