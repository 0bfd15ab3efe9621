"""What the files around the code say must agree: metadata, pins, conda environment, Makefile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from test_notebooks import SERIES, broken_links

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
DIRECT = [
    Requirement(line)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in group
]
# What Colab ships of these, August 2026. It is not to be replaced there.
COLAB = {
    "huggingface-hub": "1.27.0",
    "ipywidgets": "7.7.1",
    "matplotlib": "3.10.0",
    "nbclient": "0.10.4",
    "nbconvert": "7.17.1",
    "nbformat": "5.11.1",
    "numpy": "2.1.3",
    "peft": "0.20.0",
    "pillow": "11.3.0",
    "safetensors": "0.8.0",
    "setuptools": "75.2.0",
    "timm": "1.0.28",
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "tqdm": "4.67.3",
}
# coremltools has no wheel for Windows, and was tested with older versions of torch: it is pinned,
# and its tests run where somebody installs it.
EXTRAS = set(PROJECT["optional-dependencies"]) - {"coreml"}


def pins() -> dict[str, Version]:
    """The lines of constraints.txt: normalised name → version."""
    lines = [line for line in CONSTRAINTS.splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def extras(text: str) -> set[str]:
    """The extras in `-e .[a,b]`, or `"-e", ".[a,b]"`."""
    (names,) = re.findall(r"""-e\W+\.\[([a-z,]+)\]""", text)
    return set(names.split(","))


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_every_direct_dependency_is_pinned_within_its_bounds(requirement: Requirement):
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_installing_leaves_what_colab_ships_alone(requirement: Requirement):
    operators = {part.operator for part in requirement.specifier}
    assert operators == {">="}, "lower bounds only: exact versions belong in constraints.txt"
    shipped = COLAB.get(canonicalize_name(requirement.name))
    assert shipped is None or Version(shipped) in requirement.specifier


def test_the_list_of_colab_names_only_direct_dependencies():
    assert set(COLAB) <= {canonicalize_name(requirement.name) for requirement in DIRECT}


def test_constraints_hold_exact_versions_and_nothing_else():
    for line in CONSTRAINTS.splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
    assert "://" not in CONSTRAINTS


def test_conda_installs_what_make_installs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert extras("\n".join(pip)) == extras(makefile) == EXTRAS
    assert "-c constraints.txt" in pip
    assert "-c constraints.txt -e" in makefile
    assert len(pip) == 2  # nothing listed a second time, where it could drift
    assert "pip" in conda


def test_the_oldest_and_newest_versions_are_tried_with_all_extras():
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert extras(noxfile) == EXTRAS


def test_graphs_are_drawn_wherever_pygraphviz_has_a_wheel():
    (graphviz,) = [r for r in map(Requirement, PROJECT["dependencies"]) if "graphviz" in r.name]
    without = {"ARM64"}  # Windows' name; Linux says aarch64, and macOS arm64
    for machine in ("x86_64", "AMD64", "aarch64", "arm64", *without):
        assert graphviz.marker.evaluate({"platform_machine": machine}) == (machine not in without)


def test_every_python_of_the_conda_environment_is_supported():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (python,) = [e for e in environment["dependencies"] if str(e).startswith("python ")]
    offered = SpecifierSet(python.removeprefix("python "))
    supported = SpecifierSet(PROJECT["requires-python"])
    minors = [f"3.{minor}.0" for minor in range(40) if f"3.{minor}.0" in offered]
    assert minors
    assert all(version in supported for version in minors)
    assert len(minors) < 10, "without an upper bound conda may pick a Python that torch lacks"


@pytest.mark.parametrize(("user", "flag"), [(0, "--allow-root "), (1000, "")])
def test_jupyter_is_told_that_the_user_is_root_if_it_is(tmp_path: Path, user: int, flag: str):
    if not shutil.which("make"):
        pytest.skip("no make here")
    id_program = tmp_path / "id"
    id_program.write_text(f"#!/bin/sh\necho {user}\n")
    id_program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", "--no-print-directory", "--dry-run", "lab", "ARGS=--no-browser"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    last = " ".join(done.stdout.splitlines()[-1].split())
    assert last.endswith(f"-m jupyterlab {flag}--no-browser notebooks/00_start_here.ipynb")


def test_type_checkers_are_told_that_the_package_has_types():
    assert (ROOT / "mclip_helpers" / "py.typed").exists()


def project_files() -> list[Path]:
    """The files that are in git or would be with the next `git add`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in names.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_the_bug_form_knows_the_notebooks_and_asks_for_the_machine():
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8")
    fields = {field["id"]: field["attributes"] for field in yaml.safe_load(text)["body"]}
    assert set(SERIES) < set(fields["notebook"]["options"])
    assert {"cell", "message"} < set(fields)
    assert "mh.check_machine()" in fields["machine"]["description"]


def test_the_workflow_runs_what_everybody_runs():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make test"]
    assert all(re.search(r"@v\d+$", step["uses"]) for step in steps if "uses" in step)


def test_what_contributing_says_of_files_is_true():
    """Each row of its table names paths; a name without a folder is in that of the path before."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("## Where would I change")[2].partition("\n## ")[0]
    missing = []
    for row in re.findall(r"^\|.* \| (.*) \|$", table, flags=re.MULTILINE):
        folder = ROOT
        for name in re.findall(r"`([\w./]+[./]\w*)`", row):
            path = ROOT / name if "/" in name else folder / name
            folder = path if name.endswith("/") else path.parent
            missing += [] if path.exists() else [name]
    assert missing == []


def test_links_between_the_texts_lead_somewhere():
    broken = {
        str(path.relative_to(ROOT)): links
        for path in project_files()
        if path.suffix == ".md"
        and (links := broken_links(path.read_text(encoding="utf-8"), path.parent))
    }
    assert broken == {}
