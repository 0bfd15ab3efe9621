"""Weight files: the right one is read into the model, or an error says what to do.

The hub is played by folders laid out as its cache is, and by a small server on this machine; no
test needs a network.
"""

from __future__ import annotations

import hashlib
import http.server
import pickle
import re
import shutil
import socket
import threading
import time
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
from huggingface_hub import constants as hub_constants
from PIL import Image
from safetensors.torch import save, save_file
from torch import nn

import mclip_helpers as mh
from mclip_helpers.model import clip as clip_module
from mclip_helpers.model import weights

S0 = "MobileCLIP2-S0"
REPO = "timm/MobileCLIP2-S0-OpenCLIP"
FILE = "open_clip_model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MOBILECLIPS = mh.mobileclip_names()[1:]
ORDINARY_BUILD = clip_module._build
SOME = "text.positional_embedding"  # one of the weights; each of them is as good for the tests


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """The hub client is offline unless a test says otherwise, whatever the environment says."""
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)


def cached(cache: Path, repo: str = REPO, name: str = FILE) -> Path:
    """Where `name` lies in a hub cache; the folders around it are made, as the hub makes them."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True, exist_ok=True)
    return folder / "snapshots" / COMMIT / name


@pytest.fixture
def as_small(monkeypatch):
    """Build nano's architecture under every name: for tests about the file, not about the size."""
    monkeypatch.setattr(
        clip_module, "_build", lambda name, transform: ORDINARY_BUILD("nano", transform)
    )


@pytest.fixture(scope="module")
def small_weights() -> dict[str, torch.Tensor]:
    return ORDINARY_BUILD("nano", clip_module.PLAIN)[0].state_dict()


@pytest.fixture
def small_state(as_small, small_weights) -> dict[str, torch.Tensor]:
    """Weights that fit what `as_small` builds."""
    return dict(small_weights)


def error_of(name: str = S0, **options) -> str:
    """The message of the WeightsError that loading `name` must raise."""
    with pytest.raises(mh.WeightsError) as caught:
        mh.load_model(name, device="cpu", **options)
    return str(caught.value)


# --------------------------------------------------------------------------------------------- tags


def test_every_mobileclip_has_default_weights_on_the_hub():
    assert mh.mobileclip_names()[0] == "nano"
    assert S0 in MOBILECLIPS
    assert len(MOBILECLIPS) >= 7
    for name in MOBILECLIPS:
        tag = weights.default_tag(name)
        assert re.fullmatch(r"[\w-]+/[\w.-]+/?", open_clip.get_pretrained_cfg(name, tag)["hf_hub"])


def test_weights_that_are_not_on_the_hub_are_an_error(monkeypatch):
    elsewhere = {"url": "https://example.org/weights.pt", "mean": None, "std": None}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: elsewhere)
    assert f"{S0}/dfndr2b are not on the hub as safetensors" in error_of()


@pytest.mark.parametrize(
    ("name", "pretrained", "expected"),
    [
        ("MobileCLIP2-S0", "dfndr2b", True),
        ("MobileCLIP-S1", "datacompdr", True),
        ("MobileCLIP2-S0", "random", False),
        ("nano", "nano", False),
        ("ViT-B-32", "openai", False),
    ],
)
def test_apples_licence_holds_for_apples_weights_alone(name, pretrained, expected):
    assert weights.is_apples(name, pretrained) == expected


# -------------------------------------------------------------------------- the hub, from its cache


@pytest.fixture(scope="module")
def s0(tmp_path_factory):
    """A hub cache with a MobileCLIP2-S0 made by open_clip alone, and that model. Some 300 MB."""
    torch.manual_seed(0)
    model = open_clip.create_model(S0).eval()
    with torch.no_grad():
        for name, value in model.named_buffers():  # an untrained model has only zeros and ones
            if name.endswith(("running_mean", "running_var")):
                value.uniform_(0.5, 1.5)
    cache = tmp_path_factory.mktemp("hub")
    link = cached(cache)
    content = save(model.state_dict())
    blob = link.parent.parent.parent / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(content)
    try:
        link.symlink_to(blob)
    except OSError:  # Windows without the right to make links: the hub keeps a plain file then
        blob.rename(link)
    yield cache, model
    shutil.rmtree(cache)


@pytest.mark.parametrize("where", ["cache_dir", "the usual cache"])
def test_mobileclip2_s0_comes_bit_for_bit_out_of_the_hub_cache_offline(s0, where, monkeypatch):
    cache, model = s0
    if where == "cache_dir":
        clip = mh.load_model(S0, cache_dir=cache, device="cpu")
    else:
        monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(cache))
        clip = mh.load_model(S0, pretrained="dfndr2b", device="cpu")
    expected, state = model.state_dict(), clip.model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())
    assert (clip.name, clip.pretrained, clip.model.name_or_path) == (
        S0,
        "dfndr2b",
        f"{S0}/dfndr2b",
    )
    assert not any(module.training for module in clip.model.modules())

    picture = Image.effect_noise((300, 260), 60).convert("RGB")
    image = clip.preprocess(picture)
    assert image.shape == (3, 256, 256)
    assert clip.unknown_tokens("a xylophone") == []
    with torch.no_grad():
        images = model.encode_image(image[None], normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer(S0)(["a dog"]), normalize=True)
    assert torch.allclose(clip.encode_images([picture]), images, atol=1e-4)
    assert torch.allclose(clip.encode_texts(["a dog"]), texts, atol=1e-4)


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated"])
def test_a_damaged_file_in_the_cache_is_an_error_that_says_which_to_delete(
    tmp_path, small_state, damage
):
    path = cached(tmp_path)
    whole = save(small_state)
    left = {"empty": b"", "garbage": b"x" * 5000, "truncated": whole[:-1000]}
    path.write_bytes(left[damage])
    message = error_of(cache_dir=tmp_path)
    assert f"{path} is damaged" in message
    assert f"delete {path.resolve()} and load again" in message


@pytest.mark.parametrize("change", ["another model", "one missing", "one too many", "a shape"])
def test_the_file_of_another_model_is_an_error_and_no_part_of_it_is_used(
    tmp_path, small_state, change
):
    state = small_state
    if change == "another model":
        state = {"weight": torch.zeros(2)}
    elif change == "one missing":
        del state[SOME]
    elif change == "one too many":
        state["visual.extra"] = torch.zeros(2)
    else:
        state[SOME] = torch.zeros(2, 2)
    save_file(state, cached(tmp_path))
    message = error_of(cache_dir=tmp_path)
    assert "does not hold the weights of this model" in message
    assert open_clip.__version__ in message
    assert f"delete {cached(tmp_path).resolve()}" in message


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "name",
    [
        "open_clip_pytorch_model.bin",
        "open_clip_model.bin",
        "open_clip_model.pt",
        "pytorch_model.bin",
        FILE,
    ],
)
def test_a_pickle_in_the_cache_is_never_opened(tmp_path, as_small, name):
    sprung = tmp_path / "sprung"
    path = cached(tmp_path, name=name)
    path.write_bytes(pickle.dumps(Trap(sprung)))
    error_of(cache_dir=tmp_path)
    assert not sprung.exists()
    pickle.loads(path.read_bytes())
    assert sprung.exists(), "the trap would have shown it"


# ---------------------------------------------------------------------------- the hub, out of reach


def refuses_to_build(*_) -> nn.Module:
    raise AssertionError("a model was built before its weights were there")


def test_offline_and_not_in_the_cache_is_an_error_that_names_cache_repository_and_nano(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(clip_module, "_build", refuses_to_build)
    message = error_of(cache_dir=tmp_path)
    assert all(part in message for part in (str(tmp_path), REPO, FILE))
    assert "Load the model once with a network" in message
    assert "load_model('nano') works" in message


def test_without_cache_dir_the_error_names_the_usual_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path))
    assert str(tmp_path) in error_of()


def go_online(monkeypatch, port: int) -> None:
    """The hub client may use the network again, and takes this machine's `port` for the hub."""
    hub = f"http://127.0.0.1:{port}"
    template = hub + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_constants, "ENDPOINT", hub)
    monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    huggingface_hub.close_session()  # a new one reads the settings above


def test_a_hub_that_cannot_be_reached_is_the_same_error(tmp_path, monkeypatch):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        go_online(monkeypatch, taken.getsockname()[1])
        monkeypatch.setattr(time, "sleep", lambda _: None)  # the client tries again and again
        message = error_of(cache_dir=tmp_path)
    assert "the hub can't be reached" in message
    assert "load_model('nano') works" in message


class FakeHub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does; `answer` is a file's content or the code of an error."""

    answer: bytes | str = b""

    def respond(self) -> None:
        found = isinstance(self.answer, bytes) and self.path.endswith(f"/resolve/main/{FILE}")
        body = self.answer if found else b""
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        if not found:
            error = self.answer if isinstance(self.answer, str) else "EntryNotFound"
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET = respond

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def fake_hub(monkeypatch):
    """A hub on this machine; call it with what it is to answer."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    go_online(monkeypatch, server.server_port)
    yield lambda answer: monkeypatch.setattr(FakeHub, "answer", answer)
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()


def test_what_the_hub_gives_is_loaded_and_then_works_without_it(
    fake_hub, small_state, tmp_path, monkeypatch
):
    fake_hub(save(small_state))
    for offline in (False, True):
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", offline)
        clip = mh.load_model(S0, cache_dir=tmp_path, device="cpu")
        state = clip.model.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in small_state.items())


def test_a_repository_without_safetensors_is_an_error_that_says_why_not_the_others(
    fake_hub, tmp_path
):
    fake_hub("EntryNotFound")
    message = error_of(cache_dir=tmp_path)
    assert f"{REPO} on the hub has no {FILE}" in message
    assert "unpickling a file can run code" in message
    assert "load_model('nano') works" in message


def test_any_other_refusal_of_the_hub_is_passed_on_with_its_reason(fake_hub, tmp_path):
    fake_hub("RepoNotFound")
    message = error_of(cache_dir=tmp_path)
    assert f"downloading {REPO}/{FILE} from the hub failed" in message
    assert "RepositoryNotFoundError" in message
    assert "load_model('nano') works" in message


def test_no_way_of_failing_ends_with_a_model(fake_hub, tmp_path, monkeypatch):
    monkeypatch.setattr(weights.WeightsFile, "fill", refuses_to_build)
    for answer in ("EntryNotFound", "RepoNotFound", "GatedRepo", "RevisionNotFound"):
        fake_hub(answer)
        error_of(cache_dir=tmp_path / answer)
