"""`check_machine`: every row says what to do when what it looks at is missing, and OK otherwise."""

from __future__ import annotations

import sys
import threading
import time
from collections import namedtuple
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

import mclip_helpers as mh
from mclip_helpers import machine
from mclip_helpers import model as models
from mclip_helpers.data import emoji as emojis
from mclip_helpers.display import Table
from mclip_helpers.draw import graphviz
from mclip_helpers.model.compute import Compute

LACK = "→ "


def row(what: str) -> tuple[str, str, str]:
    """What is here, what is needed, and what to do, in the row that begins with `what`."""
    (found,) = [r for r in mh.check_machine().rows if r[0] == what]
    return tuple(found[1:])


def refuse(error: Exception):
    """A function that raises `error`, whatever it is called with."""

    def refused(*_args, **_options):
        raise error

    return refused


@pytest.fixture(autouse=True)
def a_machine_with_everything(monkeypatch: pytest.MonkeyPatch):
    """So that the tests say the same on every machine; each then takes one thing away."""
    Memory = namedtuple("Memory", "available total")
    cpu = Compute(torch.device("cpu"), torch.float32, 0, "CPU")
    monkeypatch.setattr(machine.compute, "choose_compute", lambda: cpu)
    monkeypatch.setattr(machine.shutil, "which", {}.get)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: Memory(6 * 2**30, 8 * 2**30))
    monkeypatch.setattr(
        machine.compute.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False
    )
    monkeypatch.setattr(machine.hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(machine, "_answers", lambda _url: True)
    monkeypatch.setattr(graphviz, "lay_out", lambda _source: None)


def test_a_machine_with_everything_has_nothing_to_do():
    table = mh.check_machine()
    assert [r[3] for r in table.rows] == ["OK"] * len(table.rows)
    names = [r[0] for r in table.rows]
    assert names[:5] == ["Python", "torch", "open-clip-torch", "peft", "other packages"]
    assert len(set(names)) == len(names) == 12


def test_what_is_needed_comes_from_the_projects_metadata():
    here, needed, do = row("torch")
    assert here == torch.__version__.partition("+")[0] or here == torch.__version__
    assert f"torch{needed}" in metadata.requires("mclip-helpers")
    assert do == "OK"
    bare = [r for r in metadata.requires("mclip-helpers") if "extra ==" not in r]
    assert row("other packages")[1] == str(len(bare) - 3)


def test_an_old_python(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine.platform, "python_version", lambda: "3.9.2")
    here, needed, do = row("Python")
    assert here == "3.9.2"
    assert do == f"→ make a new environment with Python {needed}"


@pytest.mark.parametrize("name", ["torch", "open-clip-torch", "peft"])
@pytest.mark.parametrize("version", ["0.0.1", None])
def test_a_package_too_old_or_missing(
    name: str, version: str | None, monkeypatch: pytest.MonkeyPatch
):
    change_version(monkeypatch, name, version)
    here, needed, do = row(name)
    assert here == (version or "missing")
    assert do.startswith("→ pip install ")
    assert needed in do
    assert "restart the kernel" in do
    assert row("other packages")[2] == "OK"


def test_the_other_packages_are_named_in_one_row(monkeypatch: pytest.MonkeyPatch):
    change_version(monkeypatch, "timm", "0.9.0")
    change_version(monkeypatch, "tqdm", None)
    here, needed, do = row("other packages")
    assert here == f"{int(needed) - 2} of {needed}"
    assert '"timm>=' in do and '"tqdm>=' in do and "numpy" not in do


@pytest.mark.parametrize("version", ["2.15.0+cu128", "3.0.0a0+git1234"])
def test_builds_of_one_s_own_count_as_their_version(version: str, monkeypatch: pytest.MonkeyPatch):
    change_version(monkeypatch, "torch", version)
    assert row("torch")[2] == "OK"


def change_version(monkeypatch: pytest.MonkeyPatch, name: str, version: str | None) -> None:
    real = metadata.version

    def changed(asked: str) -> str:
        if asked.lower().replace("_", "-") != name:
            return real(asked)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(machine.metadata, "version", changed)


def test_a_project_that_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        machine.metadata, "metadata", refuse(metadata.PackageNotFoundError("mclip-helpers"))
    )
    assert "pip install -e ." in row("this project")[2]
    assert row("memory")[2] == "OK"  # the rest is still looked at


def test_a_gpu_that_this_pytorch_cannot_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine.shutil, "which", lambda _: "/usr/bin/found")
    here, _, do = row("GPU")
    assert "can't use" in here
    assert "PyTorch with CUDA" in do


def test_colab_without_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "google.colab", machine)
    here, _, do = row("GPU")
    assert here == "none"
    assert do.startswith(LACK) and "T4" in do


def test_a_gpu_that_works(monkeypatch: pytest.MonkeyPatch):
    pretend_cuda(monkeypatch, lambda *_, **__: torch.zeros(2))
    said = "Tesla T4: fp16 autocast with a gradient scaler, adapters and loss in fp32, "
    assert row("GPU") == (f"{said}2 loader workers", "none for nano", "OK")


def test_a_gpu_on_which_a_sum_fails(monkeypatch: pytest.MonkeyPatch):
    error = RuntimeError("no kernel image is available\nand more that nobody reads")
    pretend_cuda(monkeypatch, refuse(error))
    here, _, do = row("GPU")
    assert "fails" in here
    assert 'device="cpu"' in do and do.endswith("no kernel image is available")


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, ones) -> None:
    t4 = Compute(torch.device("cuda"), torch.float16, 2, "Tesla T4")
    monkeypatch.setattr(machine.compute, "choose_compute", lambda: t4)
    monkeypatch.setattr(machine, "torch", SimpleNamespace(ones=ones))


def test_a_single_core(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine.compute.os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert row("CPU cores")[0] == "1"
    assert row("CPU cores")[2].startswith(LACK)


def test_cores_where_the_system_does_not_say_which(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(machine.compute.os, "sched_getaffinity")
    monkeypatch.setattr(machine.compute.os, "cpu_count", lambda: 7)
    assert row("CPU cores")[0] == "7"
    monkeypatch.setattr(machine.compute.os, "cpu_count", lambda: None)
    assert row("CPU cores")[0] == "1"


def test_little_memory(monkeypatch: pytest.MonkeyPatch):
    Memory = namedtuple("Memory", "available total")
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: Memory(2**30, 4 * 2**30))
    here, needed, do = row("memory")
    assert here == "1.0 of 4.0 GB free"
    assert needed == "2 GB"
    assert do.startswith("→ close")


def test_no_network(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "_answers", lambda _url: False)
    here, _, do = row("Hugging Face hub")
    assert here == "not reachable"
    assert do.startswith("→ for Apple's models")


def test_the_hub_switched_off_is_not_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine.hub_constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(machine, "_answers", refuse(AssertionError("asked all the same")))
    here, _, do = row("Hugging Face hub")
    assert "HF_HUB_OFFLINE" in here
    assert "unset HF_HUB_OFFLINE" in do


class Answer:
    """What urlopen gives for a page that is there."""

    status = 200

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_whether_the_hub_answers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()  # the real `_answers`
    ask = "urlopen"
    monkeypatch.setattr(machine.urllib.request, ask, lambda *_, **__: Answer())
    assert machine._answers("https://hub.example")
    monkeypatch.setattr(machine.urllib.request, ask, refuse(OSError("no route")))
    assert not machine._answers("https://hub.example")
    assert not machine._answers("not an address")


def test_a_network_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    given_up = threading.Event()

    def hang(*_, **__):
        given_up.wait(30)
        raise OSError("no route")  # what the real one ends with, long after

    monkeypatch.setattr(machine.urllib.request, "urlopen", hang)
    begun = time.monotonic()
    assert not machine._answers("https://hub.example", seconds=0.1)
    assert time.monotonic() - begun < 5
    given_up.set()


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (ModuleNotFoundError("No module named 'emoji'"), "pip install --force-reinstall emoji"),
        (OSError("cannot open resource"), "pip install --force-reinstall emoji"),
        (emojis.PillowWithoutRaqm("pip install --force-reinstall pillow"), "reinstall pillow"),
    ],
)
@pytest.mark.parametrize("function", ["emoji_catalogue", "draw_emoji"])
def test_no_emoji_pictures(
    function: str, error: Exception, cure: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(emojis, function, refuse(error))
    here, _, do = row("emoji pictures")
    assert here == "not to be had"
    assert do.startswith(f"→ {error}")
    assert do.count("pip install") == 1
    assert cure in do


def test_a_catalogue_with_nothing_in_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(emojis, "emoji_catalogue", tuple)
    assert row("emoji pictures")[2].startswith(LACK)


def test_no_weights(monkeypatch: pytest.MonkeyPatch):
    error = models.WeightsError("nano.safetensors is missing; git checkout it")
    monkeypatch.setattr(models, "load_model", refuse(error))
    here, _, do = row("nano's weights")
    assert here == "can't be loaded"
    assert do == f"→ {error}"


def test_no_graphviz(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graphviz, "lay_out", refuse(graphviz.GraphvizMissing("none")))
    here, needed, do = row("Graphviz")
    assert (here, needed) == ("none", "pygraphviz")
    assert "pip install pygraphviz" in do


def test_a_graphviz_that_does_not_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graphviz, "lay_out", refuse(ValueError("refused")))
    assert row("Graphviz") == ("broken", "pygraphviz", "→ refused")


# ------------------------------------------------------------------------------ what nobody foresaw


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "/r\udce4ad\x1b[31m only"),
        RuntimeError("Could not determine home directory."),
        AssertionError(),
        TypeError("expected string or bytes-like object, got 'NoneType'"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cant_be_looked_at_has_a_row_that_says_why(error):
    [found] = machine._looked_at("memory", refuse(error))
    assert found[:2] == ("memory", "can't be looked at")
    assert found[3].startswith(LACK) and type(error).__name__ in found[3]
    shown = str(Table(["", "here", "needed", "what to do"], [found]))
    shown.encode()
    assert "\x1b" not in shown


def test_when_one_thing_cant_be_looked_at_the_others_are(monkeypatch):
    monkeypatch.setattr(machine, "_memory", refuse(OSError("no /proc here")))
    assert row("memory")[0] == "can't be looked at"
    assert row("Graphviz")[2] == "OK"


def test_an_error_of_a_gpu_without_words_is_shown(monkeypatch):
    gpu = Compute(torch.device("cuda"), torch.float32, 0, "a GPU")
    monkeypatch.setattr(machine.compute, "choose_compute", lambda: gpu)
    monkeypatch.setattr(machine.torch, "ones", refuse(RuntimeError()))
    assert row("GPU")[2].startswith("→ use the CPU")
