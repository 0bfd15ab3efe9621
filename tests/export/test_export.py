"""What `export_onnx` writes: the contract that a program without PyTorch relies on."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import open_clip
import pytest
import torch
from conftest import fresh
from shipped import ADAPTER, adapted, exported, task

import mclip_helpers as mh
from mclip_helpers.export.graph import module_of, module_values
from mclip_helpers.files import hashes
from mclip_helpers.names import clean_name

TOWERS = {"image": "pixels", "text": "tokens"}


def session(tower: str) -> onnxruntime.InferenceSession:
    path = exported().folder / f"{tower}.onnx"
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def inputs(clip: mh.Clip, tower: str, count: int) -> torch.Tensor:
    data = task(count)
    if tower == "text":
        return clip.tokenizer(data.captions)
    return torch.stack([clip.preprocess(picture) for picture, _ in data])


@torch.no_grad()
def expected(clip: mh.Clip, tower: str, given: torch.Tensor) -> torch.Tensor:
    encode = clip.model.encode_image if tower == "image" else clip.model.encode_text
    return encode(given, normalize=True)


@pytest.mark.parametrize(
    ("tower", "form", "kind"),
    [("image", ["N", 3, 64, 64], "tensor(float)"), ("text", ["N", 24], "tensor(int32)")],
)
def test_names_shapes_and_types_explain_themselves(tower, form, kind):
    graph = session(tower)
    (given,), (output,) = graph.get_inputs(), graph.get_outputs()
    assert (given.name, given.shape, given.type) == (TOWERS[tower], form, kind)
    assert (output.name, output.shape, output.type) == ("features", ["N", 256], "tensor(float)")


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_batch_gives_unit_vectors_of_the_adapted_model(tower, count):
    clip = adapted()
    given = inputs(clip, tower, count)
    numbers = given.numpy().astype(np.int32 if tower == "text" else np.float32)
    (features,) = session(tower).run(None, {TOWERS[tower]: numbers})
    assert features.shape == (count, 256)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(features, expected(clip, tower, given).numpy(), atol=1e-5)
    base = expected(fresh("nano"), "image", given).numpy() if tower == "image" else None
    assert base is None or np.abs(features - base).max() > 0.01  # the adapter does something


def test_model_json_and_the_graphs_say_the_same():
    notes = json.loads((exported().folder / "model.json").read_text(encoding="utf-8"))
    clip = adapted()
    assert {key: notes[key] for key in ("format", "model", "precision", "licence")} == {
        "format": 1,
        "model": "nano/nano",
        "precision": "fp32",
        "licence": "apache-2.0",
    }
    assert notes["image_size"] == [64, 64] and notes["embed_dim"] == 256
    assert (notes["resize_mode"], notes["interpolation"]) == ("shortest", "bicubic")
    assert notes["mean"] == [0, 0, 0] and notes["std"] == [1, 1, 1]
    assert notes["context_length"] == 24
    assert notes["logit_scale"] == pytest.approx(clip.model.logit_scale.exp().item())
    for tower in TOWERS:
        said = session(tower).get_modelmeta().custom_metadata_map
        for key in said:
            text = notes[key] if isinstance(notes[key], str) else json.dumps(notes[key])
            assert said[key] == text
        assert {"mean", "std", "logit_scale", "tokenizer", "image_size"} < set(said)


def test_transform_and_tokenizer_of_the_folder_are_those_of_the_model():
    clip, other = fresh("nano"), exported()
    for picture, caption in mh.emoji_dataset("openmoji", "val").head(5):
        tall = picture.resize((70, 130))
        assert torch.equal(clip.preprocess(tall), other.preprocess(tall))
        assert torch.equal(clip.tokenizer([caption]), other.tokenizer([caption]))
    texts = ["  An  &lt;APPLE&gt;,\tisn't it? ", "naïve café 42", "사과", "word " * 100, ""]
    assert torch.equal(clip.tokenizer(texts), other.tokenizer(texts))


def test_what_is_noted_of_the_tokenizer_is_true():
    notes = exported().notes["tokenizer"]
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    (ids,) = tokenizer(["a"]).tolist()
    start, end, pad = notes["start_id"], notes["end_id"], notes["pad_id"]
    assert ids == [start, tokenizer.encoder["a</w>"], end, *[pad] * 21]
    assert (exported().folder / notes["file"]).is_file()
    assert notes["special_tokens"] == {"<start_of_text>": start, "<end_of_text>": end}


def test_the_model_stays_as_it_is_also_in_training_mode(tmp_path: Path):
    clip = adapted()
    clip.model.train()
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    form = [(name, type(m), m.training) for name, m in clip.model.named_modules()]
    again = mh.export_onnx(clip, tmp_path / "a", task(4), progress=False)
    assert [(name, type(m), m.training) for name, m in clip.model.named_modules()] == form
    assert all(torch.equal(value, before[n]) for n, value in clip.model.state_dict().items())
    given = inputs(clip, "image", 4)
    assert torch.equal(again.features("image", given), exported().features("image", given))


def test_an_adapter_that_is_off_is_left_out(tmp_path: Path):
    clip = fresh("nano")
    lora_model = mh.load_adapter(clip.model, ADAPTER)
    with lora_model.disable_adapter():
        base = mh.export_onnx(clip, tmp_path / "base", task(4), progress=False)
    given = inputs(clip, "image", 4)
    plain = expected(fresh("nano"), "image", given)
    torch.testing.assert_close(base.features("image", given), plain, atol=1e-5, rtol=0)


def test_links_stand_in_the_folder_and_on_the_card():
    links = exported().links
    assert [(link.before, link.after) for link in links] == [
        ("as trained", "merged"),
        ("merged", "folded"),
        ("folded", "ONNX"),
    ]
    assert all(link.cosine > 1 - 1e-5 and link.agreement == 1 for link in links)
    assert links[-1].size_after == sum(
        (exported().folder / f"{tower}.onnx").stat().st_size for tower in TOWERS
    )
    card = (exported().folder / "README.md").read_text(encoding="utf-8")
    for words in ("license: apache-2.0", "| folded → ONNX | 1 − ", "24 pictures", "Twemoji"):
        assert words in card


def test_r1_of_the_last_link_is_that_of_evaluate():
    after = mh.evaluate(adapted(), task(), progress=False)
    assert exported().links[0].r1_before == after.image_to_text[1]
    assert exported().links[-1].r1_after == after.image_to_text[1]


def test_the_model_that_is_loaded_is_the_one_that_was_returned():
    other = mh.load_onnx(exported().folder)
    pictures = [picture for picture, _ in task(3)]
    assert torch.equal(other.encode_images(pictures), exported().encode_images(pictures))
    assert other.encode_texts(["a cat"]).shape == (1, 256)
    assert str(other).startswith("nano/nano as ONNX, fp32, 64×64 pixels, 35.")


@pytest.mark.parametrize("tower", TOWERS)
def test_every_layer_of_the_graph_has_its_name_in_the_model(tower):
    graph = exported().graph(tower)
    known = {clean_name(name) for name, _ in adapted().model.named_modules()}
    folded = {name for name in map(module_of, graph.graph.node) if "reparam_conv" not in name}
    unknown = folded - known - {""}
    assert all(name.endswith("_proj") for name in unknown), unknown  # attention is split
    assert len(module_values(graph)) > 20


def test_the_graphs_tell_nothing_of_the_machine():
    for tower in TOWERS:
        data = (exported().folder / f"{tower}.onnx").read_bytes()
        for trace in (b"site-packages", b"stack_trace", b".py", str(Path.cwd()).encode()):
            assert trace not in data


@pytest.mark.parametrize(("name", "size"), [("MobileCLIP2-S0", 256), ("MobileCLIP-B", 224)])
def test_every_mobileclip_goes_through_the_chain(name: str, size: int, tmp_path: Path):
    """The trunk of B is another one, a ViT; weights and adapters are random."""
    clip = fresh(name)
    lora_model = mh.inject_lora(clip.model, rank=2).eval()
    torch.manual_seed(0)
    for _, layer in mh.lora_layers(lora_model):
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
    shipped = mh.export_onnx(clip, tmp_path / "a", task(3), progress=False)
    assert [link.after for link in shipped.links] == ["merged", "folded", "ONNX"]
    assert shipped.image_size == (size, size) and shipped.notes["licence"] == "none"
    given = inputs(clip, "image", 3)
    # Random features lie close together: what counts is how they differ.
    expect = expected(clip, "image", given)
    expect -= expect.mean(0)
    found = shipped.features("image", given)
    found -= found.mean(0)
    assert (found - expect).norm() < 0.01 * expect.norm()


# ------------------------------------------------------------------------------- what is refused


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported().folder, tmp_path / "copied"))


def test_an_exported_model_is_replaced(copied: Path):
    mh.export_onnx(fresh("nano"), copied, task(4), progress=False)
    assert [link.before for link in mh.load_onnx(copied).links] == ["as trained", "folded"]


@pytest.mark.parametrize("change", ["another file", "a changed card", "a changed model.json"])
def test_what_somebody_worked_on_is_not_replaced(copied: Path, change: str):
    name = {"another file": "mine.txt", "a changed card": "README.md"}.get(change, "model.json")
    text = (copied / name).read_text(encoding="utf-8") if (copied / name).exists() else ""
    (copied / name).write_text(text.replace("nano", "mine") + " ", encoding="utf-8")
    before = hashes(copied)
    with pytest.raises(FileExistsError, match=name):
        mh.export_onnx(fresh("nano"), copied, task(4), progress=False)
    assert hashes(copied) == before and list(copied.parent.iterdir()) == [copied]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"thesis\.txt"):
        mh.export_onnx(fresh("nano"), tmp_path, task(4), progress=False)
    with pytest.raises(FileNotFoundError, match="not written by export_onnx"):
        mh.load_onnx(tmp_path)


def test_another_format_is_not_read(copied: Path):
    (copied / "model.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match="format 2, not 1"):
        mh.load_onnx(copied)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_says_what_to_install(package: str, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match="pip install onnx onnxruntime onnxscript"):
        mh.export_onnx(fresh("nano"), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_arguments_that_can_not_work_are_refused(tmp_path: Path):
    clip = fresh("nano")
    with pytest.raises(TypeError, match="pass the Clip"):
        mh.export_onnx(clip.model, tmp_path / "a")
    with pytest.raises(ValueError, match="one of fp32, fp16, int8"):
        mh.export_onnx(clip, tmp_path / "a", precision="int4")
    with pytest.raises(TypeError, match="dataset"):
        mh.export_onnx(clip, tmp_path / "a", [])
    clip.tokenizer = open_clip.SimpleTokenizer(context_length=24, clean="canonicalize")
    with pytest.raises(ValueError, match="cleans or cuts"):
        mh.export_onnx(clip, tmp_path / "a", task(4), progress=False)
    assert list(tmp_path.iterdir()) == []
