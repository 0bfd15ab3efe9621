"""One click in Colab: the address stands in one place, and the first cell moves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

import address
import colab_check
import install_missing

ROOT = Path(__file__).parent.parent.parent
OTHER = "https://github.com/somebody/another-place"
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what holds the address."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


# ------------------------------------------------------------------------------------- the address


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_badges_and_setup_cell_have_the_address_of_pyproject(name: str):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    url = address.address()
    assert notebook.cells[0].source.startswith(address.badges(url, name))
    (setup,) = [cell for cell in notebook.cells if cell.id == "setup"]
    assert setup.source == address.setup_cell(url)
    assert notebook.cells.index(setup) == 1


def test_the_readme_has_the_address_of_pyproject():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert address.badges(address.address(), "00_start_here") in text


def test_nowhere_is_there_another_address():
    owner = address.address().removeprefix("https://github.com/").partition("/")[0]
    for path in (*(ROOT / "notebooks").glob("*.ipynb"), ROOT / "README.md"):
        text = path.read_text(encoding="utf-8")
        repository = address.address().rpartition("/")[2]
        assert text.count(f"/{repository}") == text.count(f"{owner}/{repository}")


def test_a_new_address_goes_everywhere_and_outputs_stay(project: Path):
    first = project / "notebooks" / "03_contrastive_loss.ipynb"
    before = nbformat.read(first, as_version=4)
    address.set_address(OTHER + ".git", project)
    changed = address.write_all(project)
    assert len(changed) == len(NOTEBOOKS) + 1
    assert address.address(project) == OTHER
    after = nbformat.read(first, as_version=4)
    assert [c.id for c in after.cells] == [c.id for c in before.cells]
    assert [c.get("outputs") for c in after.cells] == [c.get("outputs") for c in before.cells]
    assert OTHER in after.cells[1].source
    assert "somebody/another-place" in (project / "README.md").read_text(encoding="utf-8")
    assert address.write_all(project) == []  # twice is once


def test_a_notebook_without_badges_gets_them(project: Path):
    path = project / "notebooks" / "00_start_here.ipynb"
    notebook = nbformat.read(path, as_version=4)
    del notebook.cells[1]
    notebook.cells[0].source = "# Bare"
    nbformat.write(notebook, path)
    assert path in address.write_all(project)
    after = nbformat.read(path, as_version=4)
    assert after.cells[0].source.endswith("\n\n# Bare")
    assert after.cells[1].id == "setup"


@pytest.mark.parametrize("url", ["http://github.com/a/b", "https://github.com/a", "a/b"])
def test_an_address_that_is_none_changes_nothing(url: str, project: Path):
    before = (project / "pyproject.toml").read_text()
    with pytest.raises(ValueError, match="is not of the form"):
        address.set_address(url, project)
    assert (project / "pyproject.toml").read_text() == before


# ---------------------------------------------------------------------------------- the first cell


def run_cell(folder: Path, after: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Run the setup cell in a fresh interpreter that stands in `folder`."""
    code = address.setup_cell(OTHER) + "\n" + after
    clean = {k: v for k, v in os.environ.items() if k not in colab_check.as_on_colab(OTHER)}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**clean, "PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def origin(tmp_path: Path) -> dict[str, str]:
    """The environment of a Colab whose OTHER leads to a small repository with a fake installer."""
    folder = tmp_path / "origin"
    (folder / "tools").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    (folder / "mclip_helpers").mkdir()
    (folder / "notebooks" / "kept").write_text("")
    (folder / "mclip_helpers" / "__init__.py").write_text("")
    (folder / "tools" / "install_missing.py").write_text("print('installed what was missing')")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return {
        "COLAB_RELEASE_TAG": "x",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{folder}.insteadOf",
        "GIT_CONFIG_VALUE_0": OTHER,
    }


def test_elsewhere_the_cell_does_nothing(tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run_cell(empty, "print(os.getcwd(), project if 'project' in globals() else None)")
    assert done.stdout.split() == [str(empty), "None"], done.stderr
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("place", ["COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"])
def test_there_it_fetches_installs_and_goes_to_the_notebooks(place, origin, tmp_path: Path):
    origin[place] = origin.pop("COLAB_RELEASE_TAG")
    content = tmp_path / "content"
    content.mkdir()
    done = run_cell(content, "import mclip_helpers; print(mclip_helpers.__file__)", **origin)
    assert done.returncode == 0, done.stderr
    said, where = done.stdout.splitlines()
    assert said == "installed what was missing"
    assert where == str(content / "another-place" / "mclip_helpers" / "__init__.py")


def test_after_a_restart_nothing_is_fetched_and_nothing_lost(origin, tmp_path: Path):
    content = tmp_path / "content"
    content.mkdir()
    run_cell(content, "os.makedirs('../runs'); open('../runs/adapter', 'w').close()", **origin)
    origin["GIT_CONFIG_KEY_0"] = "url.file:///nowhere.insteadOf"  # a second clone would fail
    again = run_cell(content, "print(os.path.exists('../runs/adapter'))", **origin)
    assert again.stdout.split()[-1] == "True", again.stderr


def test_run_twice_in_one_kernel_it_does_its_work_once(origin, tmp_path: Path):
    content = tmp_path / "content"
    content.mkdir()
    done = run_cell(content, address.setup_cell(OTHER) + "\nprint(os.getcwd())", **origin)
    assert done.stdout.splitlines() == [
        "installed what was missing",
        str(content / "another-place" / "notebooks"),
    ]


def test_without_a_network_it_says_what_to_do(origin, tmp_path: Path):
    content = tmp_path / "content"
    content.mkdir()
    origin["GIT_CONFIG_KEY_0"] = "url.file:///nowhere.insteadOf"
    done = run_cell(content, **origin)
    assert done.returncode != 0
    assert "git clone" in done.stderr and "Is there a network?" in done.stderr
    assert list(content.iterdir()) == []


def test_the_line_for_drive_puts_runs_there(origin, tmp_path: Path):
    line = next(line for line in address.setup_cell(OTHER).splitlines() if "ln -sT" in line)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = line.removeprefix("# !")
    assert f"!{command}" in readme
    content, drive = tmp_path / "content", tmp_path / "MyDrive"
    content.mkdir()
    command = command.replace("/content/drive/MyDrive", str(drive))
    keep = f"os.system({command!r}); os.makedirs('../runs', exist_ok=True)"
    done = run_cell(content, f"{keep}; open('../runs/adapter', 'w').close()", **origin)
    assert done.returncode == 0, done.stderr
    assert (drive / "mobileclip" / "adapter").exists()


# -------------------------------------------------------------------------- nothing may be moved


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[str, ...], str]]:
    """What pip was called with, and the constraints that it was given; pip itself does not run."""
    seen = []

    def pip(*arguments: str) -> None:
        held = ""
        if arguments[0] == "--constraint":
            held = Path(arguments[1]).read_text(encoding="utf-8")
        seen.append((arguments, held))

    monkeypatch.setattr(install_missing, "pip", pip)
    return seen


def small_project(folder: Path, *dependencies: str) -> Path:
    lines = "\n".join(f'    "{line}",' for line in dependencies)
    text = f'[project]\nname = "x"\nversion = "1"\ndependencies = [\n{lines}\n]\n'
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_only_what_is_missing_is_installed_and_everything_here_is_held(calls, tmp_path, capsys):
    install_missing.main(small_project(tmp_path, "torch>=2", "no-such-package>=3", "numpy>=1"))
    (arguments, held), *rest = calls
    assert arguments[2:] == ("no-such-package>=3",)
    lines = held.splitlines()
    assert f"torch=={install_missing.installed()['torch']}" in lines
    assert len(lines) == len(install_missing.installed()) > 100
    assert rest == []  # this project is installed already
    assert "Installed: no-such-package>=3." in capsys.readouterr().out


def test_what_this_machine_has_no_use_for_is_not_installed(calls, tmp_path, capsys):
    markers = ("platform_machine == 'abacus'", "platform_machine != 'abacus'")
    wanted = [f"no-such-{n}; {marker}" for n, marker in enumerate(markers)]
    install_missing.main(small_project(tmp_path, *wanted))
    assert [arguments[2:] for arguments, _ in calls] == [("no-such-1",)]
    assert "Installed: no-such-1." in capsys.readouterr().out


def test_where_nothing_is_missing_pip_is_not_called(calls, tmp_path, capsys):
    install_missing.main(small_project(tmp_path, "torch>=2"))
    assert calls == []
    assert "nothing was missing" in capsys.readouterr().out


def test_a_version_that_is_too_old_is_named_and_left_alone(calls, tmp_path, capsys):
    install_missing.main(small_project(tmp_path, "numpy>=999"))
    assert calls == []
    said = capsys.readouterr().out
    assert "WARNING: numpy" in said and "numpy>=999 is needed" in said


def test_what_pip_says_is_not_lost(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SystemExit, match=r"pip install --no-index no-such-package failed"):
        install_missing.pip("--no-index", "no-such-package")


def test_the_requirements_are_the_projects_without_its_extras():
    names = {r.name for r in install_missing.requirements(ROOT / "pyproject.toml")}
    assert {"torch", "open_clip_torch", "peft"} <= names
    assert not names & {"jupyterlab", "pytest", "datasets"}
    assert all(r.marker is None for r in install_missing.requirements(ROOT / "pyproject.toml"))
    assert install_missing.version(Requirement("no-such-package")) is None


def test_a_package_that_moved_is_found_and_one_that_was_added_is_none(capsys):
    before = {"torch": "2.11.0", "numpy": "2.1.3", "pillow": "11.3"}
    after = {"torch": "2.11.0", "numpy": "2.2.0", "ftfy": "6.3"}
    assert colab_check.compare(before, after) == ["numpy 2.1.3 → 2.2.0", "pillow 11.3 → gone"]
    said = capsys.readouterr().out
    assert "preinstalled 3, moved 2, added 1: ftfy 6.3" in said
