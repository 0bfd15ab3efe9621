"""`make compat-check`: the tests with the oldest and the newest versions that may be installed.

`make test` shows that everything works with the versions in constraints.txt. But pyproject.toml
promises more: lower bounds and no upper ones. So two environments are built (a few GB): "oldest",
where each package that pyproject.toml names is the oldest that its bound and the others' allow, and
"newest", where everything is. All tests run in both, and the notebooks with the claims that they
make. What stands after `--` goes to pytest:

    make compat-check ARGS="--session oldest -- tests/lora"
    make compat-check ARGS="-- -m 'not notebook'"
"""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.envdir = ".compat-check"

SHOWN = ("torch", "torchvision", "open_clip_torch", "timm", "peft")
VERSIONS = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"


@nox.session
def oldest(session: nox.Session) -> None:
    """The oldest versions of what pyproject.toml names."""
    run_tests(session, "lowest-direct")


@nox.session
def newest(session: nox.Session) -> None:
    """The newest versions of everything."""
    run_tests(session, "highest")


def run_tests(session: nox.Session, resolution: str) -> None:
    # --upgrade: the versions follow from pyproject.toml alone, and not from what an earlier
    # check has left in the environment.
    session.install("--upgrade", "--resolution", resolution, "-e", ".[lab,sources,ship,test]")
    session.run("python", "-c", VERSIONS, *SHOWN)
    session.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *session.posargs)
