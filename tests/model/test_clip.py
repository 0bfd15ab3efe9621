"""Loading: the right weights, the right transform, or an error that says what to do.

The hub is played by folders laid out as its cache is, and by a small server on this machine; no
test needs a network.
"""

from __future__ import annotations

import hashlib
import http.server
import logging
import pickle
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
from huggingface_hub import constants as hub_constants
from PIL import Image
from safetensors.torch import load_file, save, save_file
from torch import nn

import mclip_helpers as mh
from mclip_helpers.files import data_folder
from mclip_helpers.model import clip as models

S0 = "MobileCLIP2-S0"
REPO = "timm/MobileCLIP2-S0-OpenCLIP"
FILE = "open_clip_model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MOBILECLIPS = mh.mobileclip_names()[1:]
ORDINARY_BUILD = models._build
SOME = "text.positional_embedding"  # one of the weights; each of them is as good for the tests


@pytest.fixture(scope="module")
def nano() -> mh.Clip:
    return mh.load_model("nano", device="cpu")


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
    monkeypatch.setattr(models, "_build", lambda name, transform: ORDINARY_BUILD("nano", transform))


@pytest.fixture(scope="module")
def small_weights() -> dict[str, torch.Tensor]:
    return ORDINARY_BUILD("nano", models.PLAIN)[0].state_dict()


@pytest.fixture
def small_state(as_small, small_weights) -> dict[str, torch.Tensor]:
    """Weights that fit what `as_small` builds."""
    return dict(small_weights)


def error_of(name: str = S0, **options) -> str:
    """The message of the WeightsError that loading `name` must raise."""
    with pytest.raises(mh.WeightsError) as caught:
        mh.load_model(name, device="cpu", **options)
    return str(caught.value)


# -------------------------------------------------------------------------------------------- nano


def test_nano_is_the_default_and_comes_in_eval_mode_with_its_names():
    clip = mh.load_model()
    assert (clip.name, clip.pretrained) == ("nano", "nano")
    assert clip.model.name_or_path == "nano/nano"
    assert not any(module.training for module in clip.model.modules())
    assert clip.device.type == mh.choose_compute().device.type


def test_nano_has_exactly_the_stored_weights_and_zeros_for_tokens_never_seen(nano):
    stored = load_file(models.data_folder() / "nano.safetensors")
    rows = stored.pop("text.token_embedding.rows").long()
    table = nano.model.text.token_embedding.weight
    assert torch.equal(table[rows], stored.pop("text.token_embedding.weight").float())
    unseen = torch.ones(len(table), dtype=torch.bool)
    unseen[rows] = False
    assert 0 < len(rows) < len(table)
    assert not table[unseen].any()
    assert table[rows].any(dim=1).all()
    state = nano.model.state_dict()
    for name, value in stored.items():
        assert torch.equal(state.pop(name), value.float()), name
    left = [name for name in state if not name.endswith("num_batches_tracked")]
    assert left == ["text.token_embedding.weight"], "no weight stays as it was initialised"


def test_nano_is_the_same_at_every_load(nano):
    torch.manual_seed(1)
    again = mh.load_model("nano", device="cpu").model.state_dict()
    state = nano.model.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in state.items())


def test_nano_sees_64_pixels_and_keeps_colours_between_0_and_1(nano):
    assert nano.model.visual.image_size in (64, (64, 64))
    for value in (0, 51, 255):
        image = nano.preprocess(Image.new("RGB", (100, 80), (value, value, value)))
        assert image.shape == (3, 64, 64)
        assert torch.allclose(image, torch.full_like(image, value / 255))


def test_nano_tokens_fit_its_text_tower(nano):
    tokens = nano.tokenizer(["a cat", "a very long sentence " * 20])
    assert tokens.shape == (2, nano.model.text.context_length) == (2, 24)


def test_pictures_and_texts_become_unit_vectors_of_one_length_without_a_graph(nano):
    pictures = [Image.new("RGB", (72, 72), colour) for colour in ("red", "blue", "white")]
    images, texts = nano.encode_images(pictures), nano.encode_texts(("red", "blue", "white"))
    assert images.shape == texts.shape == (3, 256)
    for features in (images, texts):
        assert not features.requires_grad
        assert torch.allclose(features.norm(dim=1), torch.ones(3), atol=1e-5)
        assert len(features.unique(dim=0)) == 3


def test_a_feature_belongs_to_its_own_picture_or_text_alone(nano):
    dataset = mh.emoji_dataset("twemoji", "val").subset(range(3))
    pictures = [picture for picture, _ in dataset]
    for encode, items in (
        (nano.encode_images, pictures),
        (nano.encode_texts, dataset.captions),
    ):
        together = encode(items)
        for i, item in enumerate(items):
            assert torch.allclose(encode([item])[0], together[i], atol=1e-5)


def test_nano_knows_twemoji_far_better_than_chance(nano):
    dataset = mh.emoji_dataset("twemoji", "val")
    assert mh.evaluate(nano, dataset).image_to_text[1] > 10 / len(dataset)


def test_random_weights_are_there_only_for_who_asks_by_that_word(nano):
    first, second = (mh.load_model("nano", pretrained="random", device="cpu") for _ in range(2))
    assert first.pretrained == "random"
    assert not first.model.training
    a, b, c = (clip.model.state_dict()[SOME] for clip in (first, second, nano))
    assert not torch.equal(a, b)
    assert not torch.equal(a, c)
    assert str(first.preprocess) == str(nano.preprocess)


def test_loading_logs_no_warning_and_leaves_logging_as_it_was(caplog):
    root = logging.getLogger()
    before = root.level
    mh.load_model("nano", device="cpu")
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert root.level == before


def test_it_says_in_one_line_what_it_is_and_what_it_is_computed_on(nano: mh.Clip):
    assert str(nano) == f"nano, weights 'nano', 64×64 pixels · {nano.compute}"


@pytest.mark.parametrize("name", ["nano", "MobileCLIP2-S0"])
def test_on_a_cpu_no_weight_gradient_takes_the_way_that_crashes(name: str):
    """In a process of its own: torch 2.15 writes beyond its memory there (see `_place`)."""
    code = f"""
import torch, mclip_helpers as mh
clip = mh.load_model({name!r}, pretrained="random", device="cpu")
model = clip.model.requires_grad_(True)
images, tokens = torch.rand(2, 3, *clip.image_size), clip.tokenizer(["a", "b"])
mh.contrastive_loss(model.encode_image(images), model.encode_text(tokens), 10).backward()
assert all(p.grad.isfinite().all() for n, p in model.named_parameters() if n != "logit_scale")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


# ----------------------------------------------------------------------------------- unknown tokens


def strange_word(clip: mh.Clip) -> str:
    """A plain word of one token that the weights have never seen."""
    table = clip.model.text.token_embedding.weight
    for number in (~table.any(dim=1)).nonzero().flatten().tolist():
        word = clip.tokenizer.decode([number]).strip()
        if re.fullmatch("[a-z]{5,}", word) and clip.tokenizer([word])[0, 1] == number:
            return word
    raise AssertionError("nano knows every word")


def test_nano_knows_every_word_of_the_emoji_it_was_trained_on(nano):
    unknown = {item.en: nano.unknown_tokens(item.en) for item in mh.emoji_catalogue()}
    assert {name: words for name, words in unknown.items() if words} == {}


def test_unknown_tokens_names_the_words_never_seen_and_no_others(nano):
    word = strange_word(nano)
    assert nano.unknown_tokens(word) == [word]
    assert nano.unknown_tokens(f"a cat with a {word}") == [word]
    assert nano.unknown_tokens("") == []


def test_neither_padding_nor_one_zero_in_a_row_makes_a_token_unknown(nano):
    fresh = mh.load_model("nano", pretrained="random", device="cpu")
    with torch.no_grad():
        fresh.model.text.token_embedding.weight[0] = 0  # the number of the padding
        fresh.model.text.token_embedding.weight[:, 0] = 0
    assert fresh.unknown_tokens(strange_word(nano)) == []


# ----------------------------------------------------------------------------------- names and tags


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("nanno", "nano"),
        ("Nano", "nano"),
        ("mobileclip2-s0", "MobileCLIP2-S0"),
        ("MobileCLIP_S1", "MobileCLIP-S1"),
        ("apple/MobileCLIP2-S4", "MobileCLIP2-S4"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one_and_hears_of_nano(name, guess):
    with pytest.raises(ValueError, match=re.escape(f"Did you mean '{guess}'?")) as caught:
        mh.load_model(name)
    assert "'nano' works offline" in str(caught.value)


def test_a_name_like_no_other_gets_the_list_and_no_guess():
    with pytest.raises(ValueError, match="'qqqq'") as caught:
        mh.load_model("qqqq")
    assert "Did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in mh.mobileclip_names())


def test_an_unknown_tag_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="'laion'") as caught:
        mh.load_model("MobileCLIP-B", pretrained="laion")
    tags = open_clip.list_pretrained_tags_by_model("MobileCLIP-B")
    assert len(tags) > 1
    assert all(tag in str(caught.value) for tag in tags)


def test_nano_has_no_tags_to_choose_from():
    with pytest.raises(ValueError, match="'datacompdr'"):
        mh.load_model("nano", pretrained="datacompdr")


def test_a_model_without_published_weights_is_never_random_in_silence():
    without = [
        name
        for name in open_clip.list_models()
        if name != "nano" and not open_clip.list_pretrained_tags_by_model(name)
    ]
    assert without
    with pytest.raises(ValueError, match=r"lists no weights.*pretrained='random'"):
        mh.load_model(without[0])


def test_every_mobileclip_has_default_weights_on_the_hub():
    assert mh.mobileclip_names()[0] == "nano"
    assert S0 in MOBILECLIPS
    assert len(MOBILECLIPS) >= 7
    for name in MOBILECLIPS:
        tag = models._first_tag(name)
        assert re.fullmatch(r"[\w-]+/[\w.-]+/?", open_clip.get_pretrained_cfg(name, tag)["hf_hub"])


def test_weights_that_are_not_on_the_hub_are_an_error(monkeypatch):
    elsewhere = {"url": "https://example.org/weights.pt", "mean": None, "std": None}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: elsewhere)
    assert f"{S0}/dfndr2b are not on the hub as safetensors" in error_of()


@pytest.mark.parametrize("pretrained", [None, "random"])
@pytest.mark.parametrize("name", MOBILECLIPS)
def test_each_model_gets_the_transform_of_its_own_weights(name, pretrained, monkeypatch):
    asked = []

    def build(name: str, transform: dict):
        asked.append(transform)
        return ORDINARY_BUILD("nano", transform)

    monkeypatch.setattr(models, "_build", build)
    monkeypatch.setattr(models, "_download", lambda *_: Path("weights"))
    monkeypatch.setattr(models, "_fill", lambda *_: None)
    own = open_clip.get_pretrained_cfg(name, models._first_tag(name))
    clip = mh.load_model(name, pretrained=pretrained, device="cpu")
    assert asked == [own]
    white = clip.preprocess(Image.new("RGB", (80, 80), "white"))
    expected = (1 - torch.tensor(own["mean"])) / torch.tensor(own["std"])
    assert torch.allclose(white.amax(dim=(1, 2)), expected)


@pytest.mark.parametrize("name", ["MobileCLIP2-S0", "MobileCLIP2-S2", "MobileCLIP-S1"])
def test_the_small_mobileclips_want_mean_0_and_deviation_1(name):
    transform = open_clip.get_pretrained_cfg(name, models._first_tag(name))
    assert set(transform["mean"]) == {0}
    assert set(transform["std"]) == {1}


# ---------------------------------------------------------------------------------- nano's own file


@pytest.fixture
def nano_file(monkeypatch, tmp_path) -> Path:
    """Where nano is looked for in this test; nothing lies there yet."""
    monkeypatch.setattr(models, "data_folder", lambda: tmp_path)
    return tmp_path / "nano.safetensors"


def test_a_missing_nano_file_is_an_error_that_says_how_to_get_it_back(nano_file):
    message = error_of("nano")
    assert f"{nano_file} is missing" in message
    assert f"git checkout {nano_file}" in message


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "folder"])
def test_a_damaged_nano_file_is_an_error_that_says_how_to_mend_it(nano_file, damage):
    if damage == "folder":
        nano_file.mkdir()
    else:
        whole = (data_folder() / "nano.safetensors").read_bytes()
        left = {"empty": b"", "garbage": b"x" * 5000, "truncated": whole[: len(whole) // 2]}
        nano_file.write_bytes(left[damage])
    message = error_of("nano")
    assert f"{nano_file} is damaged" in message
    assert f"git checkout {nano_file}" in message


@pytest.mark.parametrize("change", ["no rows", "narrower table", "row too far", "a tensor less"])
def test_another_models_file_in_nanos_place_is_an_error(nano_file, change):
    state = load_file(data_folder() / "nano.safetensors")
    if change == "no rows":
        del state["text.token_embedding.rows"]
    elif change == "narrower table":
        table = state["text.token_embedding.weight"][:, :64]
        state["text.token_embedding.weight"] = table.contiguous()
    elif change == "row too far":
        state["text.token_embedding.rows"][-1] = 10**6
    else:
        del state[SOME]
    save_file(state, nano_file)
    message = error_of("nano")
    assert f"{nano_file} does not hold the weights of this model" in message
    assert f"git checkout {nano_file}" in message


# ------------------------------------------------------------------------- the hub, from its cache


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
    blob = link.parent.parent.parent / "blobs" / hashlib.sha256(S0.encode()).hexdigest()
    blob.parent.mkdir()
    save_file(model.state_dict(), blob)
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


# --------------------------------------------------------------------------- the hub, out of reach


def refuses_to_build(*_) -> nn.Module:
    raise AssertionError("a model was built before its weights were there")


def test_offline_and_not_in_the_cache_is_an_error_that_names_cache_repository_and_nano(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(models, "_build", refuses_to_build)
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
    assert f"the hub did not give {REPO}/{FILE}" in message
    assert "RepositoryNotFoundError" in message
    assert "load_model('nano') works" in message


def test_no_way_of_failing_ends_with_a_model(fake_hub, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "_fill", refuses_to_build)
    for answer in ("EntryNotFound", "RepoNotFound", "GatedRepo", "RevisionNotFound"):
        fake_hub(answer)
        error_of(cache_dir=tmp_path / answer)
