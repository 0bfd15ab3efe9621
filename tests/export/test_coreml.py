"""What `export_coreml` writes: names, shapes and metadata. Running it takes a Mac."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fresh
from safetensors.torch import load_file
from shipped import adapted, exported, task

import check_coreml
from mclip_helpers.export import export_coreml

FORMS = {"image": ("pixels", [1, 3, 64, 64]), "text": ("tokens", [1, 24])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("coremltools", reason="coremltools (the extra coreml) is not installed")
    return export_coreml(adapted(), tmp_path_factory.mktemp("coreml") / "model", task(6))


@pytest.mark.parametrize("tower", FORMS)
def test_names_shapes_and_metadata(folder: Path, tower: str):
    import coremltools

    spec = coremltools.utils.load_spec(str(folder / f"{tower}.mlpackage"))
    (given,), (output,) = spec.description.input, spec.description.output
    numbers = coremltools.proto.FeatureTypes_pb2.ArrayFeatureType
    kind = {"image": numbers.FLOAT32, "text": numbers.INT32}[tower]
    array = given.type.multiArrayType
    assert (given.name, list(array.shape), array.dataType) == (*FORMS[tower], kind)
    array = output.type.multiArrayType
    assert (output.name, list(array.shape)) == ("features", [1, 256])
    assert array.dataType == numbers.FLOAT32
    notes = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    said = dict(spec.description.metadata.userDefined)
    assert said["model"] == notes["model"] == "nano/nano"
    assert json.loads(said["mean"]) == notes["mean"]
    assert float(said["logit_scale"]) == exported().logit_scale
    assert spec.description.metadata.license == "apache-2.0"


def test_what_to_expect_on_a_mac_is_what_onnx_computes(folder: Path):
    expected = load_file(folder / "expected.safetensors")
    for tower, (name, _) in FORMS.items():
        features = exported().features(tower, expected[name])
        torch.testing.assert_close(features, expected[f"{tower}_features"], atol=1e-5, rtol=0)
    assert expected["tokens"].dtype == torch.int32


def test_the_check_tells_the_same_from_another_model(folder: Path):
    stored = {k: v.numpy() for k, v in load_file(folder / "expected.safetensors").items()}
    right = {name: stored[name] for name in ("image_features", "text_features")}
    rounded = {name: value.astype(np.float16) for name, value in right.items()}
    numbers = check_coreml.compare(right, rounded)
    assert min(numbers["image_features"], numbers["text_features"]) > check_coreml.SMALLEST_COSINE
    assert numbers["agreement"] == 1
    wrong = right | {"image_features": right["image_features"][::-1]}
    assert check_coreml.compare(right, wrong)["agreement"] < check_coreml.AGREEMENT


@pytest.mark.skipif(sys.platform == "darwin", reason="on a Mac the models run")
def test_elsewhere_the_check_says_that_it_checked_nothing(monkeypatch, capsys, tmp_path: Path):
    monkeypatch.setattr(sys, "argv", ["check_coreml.py", str(tmp_path)])
    assert check_coreml.main() == 2
    assert "nothing was checked" in capsys.readouterr().err


def test_without_coremltools_it_says_what_to_install(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(ModuleNotFoundError, match="pip install coremltools"):
        export_coreml(fresh("nano"), tmp_path / "a")
