"""Install what this project needs and this Python lacks; move nothing that is there.

    python tools/install_missing.py

For Colab and Kaggle, where a version that changes under a live kernel breaks it. Every installed
package is held at its exact version by a constraints file, so that pip fails rather than move one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parent.parent


EXTRA = "ship"  # what notebook 08 needs beside the rest


def requirements(pyproject: Path) -> list[Requirement]:
    """What the notebooks need on this machine."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extra = project.get("optional-dependencies", {}).get(EXTRA, [])
    wanted = [Requirement(line) for line in [*project["dependencies"], *extra]]
    here = [r for r in wanted if r.marker is None or r.marker.evaluate()]
    for requirement in here:
        requirement.marker = None  # it has done its work
    return here


def installed() -> dict[str, str]:
    """Name → version of every package in this Python."""
    versions = {}
    for package in metadata.distributions():
        name = package.metadata["Name"]
        try:
            Version(package.version)
        except (InvalidVersion, TypeError):  # a leftover that pip could not read either
            continue
        if name:
            versions.setdefault(name, package.version)  # the first on the path is the one in use
    return versions


def version(requirement: Requirement) -> str | None:
    """The installed version of what is required; None if it is missing."""
    try:
        return metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None


def too_old(wanted: Iterable[Requirement]) -> list[str]:
    """A line for each installed package below its bound. They are named, and left as they are."""
    lines = []
    for requirement in wanted:
        here = version(requirement)
        if here and not requirement.specifier.contains(here, prereleases=True):
            lines.append(f"{requirement.name} {here} is here, {requirement} is needed")
    return lines


def pip(*arguments: str) -> None:
    """Run pip of this Python; its message is the error's if it fails."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pip install {' '.join(arguments)} failed:\n{done.stderr.strip()}")


def main(root: Path = ROOT) -> None:
    """Install what is missing, then the project itself; say what was done in one line."""
    wanted = requirements(root / "pyproject.toml")
    missing = [str(requirement) for requirement in wanted if version(requirement) is None]
    kept = installed()
    if missing:
        _install_holding(kept, missing)
    if version(Requirement("mclip-helpers")) is None:
        pip("--no-deps", "--editable", str(root))
    for line in too_old(wanted):
        print(f"WARNING: {line}. It was left alone; some cells may fail.")
    added = ", ".join(missing) or "nothing was missing"
    print(f"{len(kept)} packages left as they were. Installed: {added}.")


def _install_holding(kept: dict[str, str], missing: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        lines = [f"{name}=={version}\n" for name, version in sorted(kept.items())]
        constraints.write_text("".join(lines), encoding="utf-8")
        pip("--constraint", str(constraints), *missing)


if __name__ == "__main__":
    main()
