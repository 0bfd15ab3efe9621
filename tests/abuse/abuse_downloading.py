"""Promises about what comes over the network, or can't: weights, datasets, tokenizers, devices."""

from __future__ import annotations

import copy
import hashlib
import http.server
import logging
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import datasets
import huggingface_hub
import open_clip
import pytest
import torch
from cases import Case, files_in
from huggingface_hub import constants as hub_constants
from safetensors.torch import save

import mclip_helpers as mh
from mclip_helpers import network

NAME, REPOSITORY = "MobileCLIP2-S0", "timm/MobileCLIP2-S0-OpenCLIP"
FILE, COMMIT = "open_clip_model.safetensors", "0" * 40
PATIENCE = 1.0  # seconds that the hub gets here; 4 elsewhere
AT_MOST = 15.0  # seconds, on a machine that is busy; the hub's own client takes more than 20

# ------------------------------------------------------------------------- hubs that are no help


@contextmanager
def nobody() -> Iterator[int]:
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def silence() -> Iterator[int]:
    """A server that takes every call and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield server.getsockname()[1]


def answering(status: int, body: bytes = b"", **headers: str) -> Callable:
    """A server that answers everything with the same."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    @contextmanager
    def serve() -> Iterator[int]:
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield server.server_port
            finally:  # a server that nobody stops would spin, and slow down every test after it
                server.shutdown()

    return serve


PAGE = b"<html><body>Please log in to the network of this hotel.</body></html>"
HUBS = {
    "a hub that nobody is": nobody,
    "a hub that never answers": silence,
    "a hub that is overloaded": answering(429, Retry_After="60"),
    "a hub that is broken": answering(500),
    "a hub behind a broken gateway": answering(502, PAGE, Content_Type="text/html"),
    "a hub in maintenance": answering(503),
    "the page of a hotel instead of a hub": answering(200, PAGE, Content_Type="text/html"),
    "a detour to the page of a hotel": answering(302, Location="http://127.0.0.1:9/login"),
}


@contextmanager
def taken_for_the_hub(port: int, folder: Path) -> Iterator[None]:
    """The hub's client, with an empty cache, takes this machine's `port` for the hub."""
    hub = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setattr(network, "PATIENCE", PATIENCE)
        patch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        patch.setattr(hub_constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.setattr(hub_constants, "ENDPOINT", hub)
        template = hub + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(datasets.config, "HF_ENDPOINT", hub)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
        huggingface_hub.close_session()
        try:
            yield
        finally:
            huggingface_hub.close_session()


class Lines(logging.Handler):
    """What was logged as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def quickly_and_quietly(call: Callable[[], object]) -> None:
    """Call; AssertionError if that takes longer than AT_MOST, or logs a warning."""
    lines, raised = Lines(), []

    def run() -> None:
        try:
            call()
        except Exception as error:
            raised.append(error)

    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "datasets", "httpx")]
    for logger in loggers:
        logger.addHandler(lines)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(AT_MOST)
    for logger in loggers:
        logger.removeHandler(lines)
    assert not thread.is_alive(), f"it takes longer than {AT_MOST:g} s"
    assert lines.lines == []
    for error in raised:
        raise error


ASKED = {
    "load_model": (lambda: mh.load_model(NAME, device="cpu"), mh.WeightsError, "works."),
    "hub_dataset": (lambda: mh.hub_dataset("owner/name"), mh.DataError, "owner/name"),
    "xm3600": (lambda: mh.xm3600("ko"), mh.DataError, "data/ko-*.parquet"),
    "a SigLIP's tokenizer": (
        lambda: mh.load_model("ViT-B-16-SigLIP", pretrained="random", device="cpu"),
        mh.WeightsError,
        "ViT-B-16-SigLIP",
    ),
}


def asks(hub: Callable, call: Callable[[], object]) -> Callable[[Path], None]:
    def does(folder: Path) -> None:
        with hub() as port, taken_for_the_hub(port, folder):
            quickly_and_quietly(call)

    return does


def settings(folder: Path) -> tuple[object, ...]:
    """What the call must leave as it was in the user's session."""
    return hub_constants.HF_HUB_OFFLINE, hub_constants.ENDPOINT, logging.getLogger().level


UNREACHABLE = [
    Case(
        f"{asked} gives up {name} within {AT_MOST:g} s, in one sentence",
        prepare=lambda folder: folder,
        does=asks(hub, call),
        refused=refused,
        says=(says,),
        keeps=settings,
    )
    for name, hub in HUBS.items()
    for asked, (call, refused, says) in ASKED.items()
    # One that waits is enough for each: they take four seconds.
    if hub is not silence or asked in ("load_model", "hub_dataset")
]

# ----------------------------------------------------------------------------- files of weights


@cache
def small_model() -> tuple:
    """Model and transforms of nano's architecture, as open_clip makes them."""
    return open_clip.create_model_and_transforms("nano")


def small() -> dict[str, torch.Tensor]:
    """Weights that fit it."""
    return {name: value.clone() for name, value in small_model()[0].state_dict().items()}


@dataclass
class Cached:
    """A hub cache with one file in the place of MobileCLIP2-S0's weights."""

    folder: Path

    @property
    def path(self) -> Path:
        place = self.folder / f"models--{REPOSITORY.replace('/', '--')}"
        (place / "refs").mkdir(parents=True, exist_ok=True)
        (place / "refs" / "main").write_text(COMMIT)
        (place / "snapshots" / COMMIT).mkdir(parents=True, exist_ok=True)
        return place / "snapshots" / COMMIT / FILE

    def load(self) -> mh.Clip:
        """Load it offline, with nano's architecture under the large model's name."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
            built = copy.deepcopy(small_model())
            patch.setattr(open_clip, "create_model_and_transforms", lambda name, **_: built)
            return mh.load_model(NAME, device="cpu", cache_dir=self.folder)


def holding(content: Callable[[Path], bytes]) -> Callable[[Path], Cached]:
    def prepare(folder: Path) -> Cached:
        cached = Cached(folder)
        cached.path.write_bytes(content(folder))
        return cached

    return prepare


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], bytes]:
    return lambda folder: save({**small(), name: change(small()[name].clone()).contiguous()})


def with_one(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[0] = value
        return tensor

    return change


SOME, POINTER = "text.positional_embedding", b"version https://git-lfs.github.com/spec/v1\noid sha"
DAMAGED = {
    "an empty file": (lambda folder: b"", "is damaged"),
    "a file of zeros": (lambda folder: bytes(5000), "is damaged"),
    "a web page": (lambda folder: PAGE * 100, "is damaged"),
    "a pointer to the file": (lambda folder: POINTER + b"256:0\nsize 5", "is damaged"),
    "a pickle": (lambda folder: pickle.dumps(Trap(folder / "sprung")), "is damaged"),
    "half a file": (lambda folder: save(small())[:-500_000], "is damaged"),
    "a header of 2⁶³ bytes": (lambda folder: b"\xff" * 7 + b"\x7f" + b"{}", "is damaged"),
    "a header that is no JSON": (lambda folder: b"\x04" + bytes(7) + b"{{{{", "is damaged"),
    "no tensors": (lambda folder: save({}), "does not hold the weights of this model"),
    "another model": (lambda folder: save({"x": torch.ones(2)}), "does not hold the weights"),
    "another shape": (changed(SOME, lambda t: t[:2]), "does not hold the weights"),
    "one NaN": (changed(SOME, with_one(float("nan"))), "NaN or infinite, in 1 of"),
    "one infinite number": (changed(SOME, with_one(float("-inf"))), "NaN or infinite, in 1 of"),
    "nothing but NaN": (
        lambda folder: save(
            {k: v * float("nan") if v.is_floating_point() else v for k, v in small().items()}
        ),
        "NaN or infinite",
    ),
}


def a_folder_in_its_place(folder: Path) -> Cached:
    cached = Cached(folder)
    cached.path.mkdir()
    return cached


def a_flipped_bit(folder: Path) -> Cached:
    """As the hub lays it out: the file is a link to another, which is called by its checksum."""
    cached, content = Cached(folder), bytearray(save(small()))
    blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir()
    content[-1000] ^= 1
    blob.write_bytes(content)
    cached.path.symlink_to(blob)
    return cached


def cache_files(cached: Cached) -> dict[str, bytes | str]:
    return files_in(cached.folder)


WEIGHTS = [
    *(
        Case(
            f"weights that are {name} are refused, and the file is named",
            prepare=holding(content),
            does=Cached.load,
            refused=mh.WeightsError,
            says=(FILE, says, "Repair: delete"),
            keeps=cache_files,
        )
        for name, (content, says) in DAMAGED.items()
    ),
    Case(
        "a folder in the place of the weights is refused",
        prepare=a_folder_in_its_place,
        does=Cached.load,
        refused=mh.WeightsError,
        says=(FILE, "Repair: delete"),
        keeps=cache_files,
    ),
    Case(
        "a bit that flipped on the disk is found",
        prepare=a_flipped_bit,
        does=Cached.load,
        refused=mh.WeightsError,
        says=(FILE, "is damaged", "checksum"),
        keeps=cache_files,
    ),
    Case(
        "whole weights are loaded",
        prepare=holding(lambda folder: save(small())),
        does=Cached.load,
        holds=lambda _, clip: torch.equal(clip.model.state_dict()[SOME], small()[SOME]),
        keeps=cache_files,
    ),
]

# ------------------------------------------------------------------------------------- arguments


def a_file(folder: Path) -> Path:
    (folder / "cache").write_text("a file")
    return folder / "cache"


def loads(name: str, refused: type[Exception], says: str, **arguments: object) -> Case:
    def does(folder: Path) -> mh.Clip:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
            return mh.load_model(name, **arguments)

    words = ", ".join([repr(name), *(f"{k}={v!r}" for k, v in arguments.items())])
    return Case(
        f"load_model({words}) is refused",
        prepare=lambda folder: folder,
        does=does,
        refused=refused,
        says=(says,),
        keeps=files_in,
    )


ARGUMENTS = [
    *(
        loads("nano", ValueError, "device is", device=device)
        for device in ("cuda:7", "gpu", "GPU", 5, "", "meta", "tpu", "cuda:-1", "cpu0", True, [])
    ),
    *(
        loads(NAME, (TypeError, ValueError), says, pretrained=value)
        for value, says in [
            (5, "pretrained is a"),
            (True, "pretrained is a bool"),
            (["dfndr2b"], "pretrained is a list"),
            (Path("weights.safetensors"), "pretrained is a"),
            ("weights.safetensors", "has no weights"),
            ("/tmp/weights.pt", "has no weights"),
            ("", "has no weights"),
            ("openai", "has no weights"),
            ("DFNDR2B ", "has no weights"),
        ]
    ),
    *(
        loads("nano", ValueError, "nano has no weights", pretrained=value)
        for value in ("", "openai")
    ),
    *(
        loads("nano", TypeError, "pretrained is a", pretrained=value)
        for value in (5, False, ["nano"])
    ),
    *(
        loads(name, ValueError, "there is no model")
        for name in ("", "nan", "Nano", "../nano", "a\nb")
    ),
    *(
        loads(name, TypeError, "pass a model's name")
        for name in (None, 5, ["nano"], b"nano", Path("nano"))
    ),
    *(
        loads(NAME, TypeError, "cache_dir is", cache_dir=value)
        for value in (5, "", True, ["hub"], b"hub")
    ),
    Case(
        "a cache_dir that is a file is refused",
        prepare=a_file,
        does=lambda path: mh.load_model(NAME, cache_dir=path, device="cpu"),
        refused=mh.WeightsError,
        says=("cache", "no folder"),
        keeps=Path.read_bytes,
    ),
]

CASES = [*UNREACHABLE, *WEIGHTS, *ARGUMENTS]
