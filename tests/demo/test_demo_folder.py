"""What `make demo` makes, without a browser."""

from __future__ import annotations

import gzip
import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

import demo
import mclip_helpers as mh

onnx = pytest.importorskip("onnx", reason="the extra `ship` is not installed")
import demo_folder  # noqa: E402
from mclip_helpers.export import OnnxClip, export_onnx  # noqa: E402


@pytest.fixture(scope="module")
def written() -> Path:
    """The folder of the model, as `make demo` builds it; made anew if need be."""
    demo.build_models(demo.BUILT)
    return demo.BUILT / "model"


def test_an_adapter_is_what_differs(written: Path, tmp_path: Path) -> None:
    """The page's sum, base XOR patch, computes what the adapted model does."""
    card = json.loads((written / "model.json").read_text())
    adapter = next(each for each in card["adapters"] if each["name"] == "thermal")
    assert list(adapter["patches"]) == ["image"]  # its text tower is the base's
    assert adapter["bytes"] < 200_000 < (written / "image.onnx.gz").stat().st_size
    clip = mh.load_model("nano", device="cpu")
    exported = export_onnx(clip, tmp_path / "base", progress=False).folder
    base = gzip.decompress((written / "image.onnx.gz").read_bytes())
    patch = gzip.decompress((written / adapter["patches"]["image"]).read_bytes())
    both = np.frombuffer(base, np.uint8) ^ np.frombuffer(patch, np.uint8)
    (exported / "image.onnx").write_bytes(both.tobytes())
    mh.load_adapter(clip.model, mh.data_folder() / "adapters" / "thermal")
    pictures = [pair.load() for pair in mh.emoji_dataset("thermal", "test").head(20).pairs]
    cosines = (OnnxClip(exported).encode_images(pictures) * clip.encode_images(pictures)).sum(1)
    assert cosines.min() > 1 - 1e-5


def test_what_the_page_is_told(written: Path) -> None:
    card = json.loads((written / "model.json").read_text())
    clip = mh.load_model("nano", device="cpu")
    assert card["logit_scale"] == pytest.approx(clip.model.logit_scale.exp().item())
    assert (written / card["tokenizer"]["file"]).exists()
    assert not clip.unknown_tokens("guitar")
    assert set(clip.tokenizer(["guitar"])[0].tolist()) - {0} <= set(card["known_tokens"])
    measured = card["adapters"][0]["measured"]
    assert measured["on"] > measured["base"] + 0.2


def test_labels_are_names_that_it_knows() -> None:
    names = {emoji.en: emoji for emoji in mh.emoji_catalogue()}
    assert len(set(demo_folder.LABELS)) == len(demo_folder.LABELS)
    assert set(demo_folder.LABELS) <= names.keys()
    assert all(names[example].split == "test" for example in demo_folder.EXAMPLES)


def test_examples_are_credited(tmp_path: Path) -> None:
    demo_folder.write_examples(tmp_path / "examples")
    content = json.loads((tmp_path / "examples" / "examples.json").read_text())
    assert any("Twemoji" in credit for credit in content["credits"])
    assert any("OpenMoji" in credit for credit in content["credits"])
    for look in content["looks"]:
        assert [picture["label"] for picture in look["pictures"]] == list(demo_folder.EXAMPLES)
        assert all((tmp_path / "examples" / p["file"]).exists() for p in look["pictures"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"resize_mode": "longest"}, "longest"),
        ({"image_size": [64, 32]}, "64×32"),
        ({"interpolation": "lanczos"}, "lanczos"),
    ],
)
def test_transforms_that_the_page_lacks(change: dict, said: str) -> None:
    notes = {"image_size": [64, 64], "resize_mode": "shortest", "interpolation": "bicubic"}
    demo_folder._require_possible(notes)
    with pytest.raises(ValueError, match=said):
        demo_folder._require_possible({**notes, **change})


def test_another_models_adapter() -> None:
    def model(*shape: int) -> onnx.ModelProto:
        weight = onnx.numpy_helper.from_array(np.ones(shape, np.float32), "w")
        return onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [weight]))

    assert not demo_folder._difference(model(4), model(4)).any()
    with pytest.raises(ValueError, match="of another shape"):
        demo_folder._difference(model(4), model(5))


def fake_npm(folder: Path, script: str) -> None:
    npm = folder / "npm"
    npm.write_text(f"#!{sys.executable}\n{script}")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)


def test_without_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(demo.DemoError, match=r"npm is missing.*install Node\.js"):
        demo.fetch_runtime(tmp_path / "ort")


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for npm is a script")
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit('npm error network no such host')", "needs a network.*no such host"),
        (
            "import sys, pathlib\n"
            "pathlib.Path(sys.argv[-1], 'onnxruntime-web.tgz').write_bytes(b'something else')",
            "is not onnxruntime-web@.*SHA-512",
        ),
    ],
)
def test_npm_fetches_nothing_or_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    fake_npm(tmp_path, script)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(demo.DemoError, match=said):
        demo.fetch_runtime(tmp_path / "ort")
    assert not (tmp_path / "ort").exists()


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with demo.server(tmp_path, 0) as first:
        port = first.server_port
        assert demo.main(["--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert f"port {port} is taken" in said and f"--port {port + 1}" in said


def test_an_adapter_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "fetch_runtime", lambda folder: folder.mkdir())
    with pytest.raises(demo.DemoError, match=r"no adapter.*adapter_config\.json"):
        demo.build(tmp_path / "page", adapters={"mine": tmp_path})


def test_made_once(tmp_path: Path) -> None:
    """What is there is kept, until it is to be made from something else."""
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        folder.mkdir()

    for source in ({"a": 1}, {"a": 1}, {"a": 2}):
        demo.make_from(tmp_path / "made", source, make)
    assert len(calls) == 2


def test_page_files_are_served_as_what_they_are() -> None:
    endings = {path.suffix for path in demo.PAGE.iterdir()} | {".gz", ".json", ".png"}
    assert endings <= demo.Handler.extensions_map.keys()


def test_only_relative_addresses() -> None:
    """The folder works wherever it is put, also below another path."""
    for path in demo.PAGE.iterdir():
        for line in path.read_text(encoding="utf-8").splitlines():
            assert "://" not in line or "www.w3.org" in line, f"{path.name}: {line}"
            assert not any(f'{attribute}="/' in line for attribute in ("src", "href")), line
