"""A chain that is broken on purpose is stopped at the gate that should stop it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import fresh
from PIL import Image
from shipped import adapted, exported, task

import mclip_helpers as mh
from mclip_helpers.data import Pair
from mclip_helpers.export import EXACT, HALF, Chain, Gate, OnnxClip, TorchStage, graph, plain
from mclip_helpers.export.parting import first_parted
from mclip_helpers.export.precision import write_variant
from mclip_helpers.export.stages import TOWERS, Stage
from mclip_helpers.lora import batch_norms, merged_copy

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)


@pytest.fixture
def start() -> Chain:
    return Chain(TorchStage("as trained", adapted()), task(), progress=False)


def broken(start: Chain, stage: Stage, gate: Gate = EXACT) -> mh.GateError:
    """The error with which `gate` stops `stage`; the chain stays as it was."""
    before = start.stage
    with pytest.raises(mh.GateError) as caught:
        start.add(stage, gate)
    assert start.stage is before and start.links == []
    assert caught.value.between == (before.name, stage.name)
    assert not caught.value.value >= caught.value.bar
    return caught.value


def nothing_is_left(folder: Path) -> bool:
    """Not even the folder in which it was written."""
    return list(folder.parent.iterdir()) == []


# -------------------------------------------------------------- links broken on purpose, end to end


def test_batch_norm_in_training_mode(tmp_path: Path, monkeypatch):
    """A trunk that was not folded, in which a forgotten `.train()` is still at work."""

    def forgotten(model: torch.nn.Module, keep: object) -> None:
        for norm in batch_norms(model):
            norm.train()

    monkeypatch.setattr(plain, "fold", forgotten)
    with pytest.raises(mh.GateError) as caught:
        mh.export_onnx(adapted(), tmp_path / "a", task(), progress=False)
    error = caught.value
    assert error.between == ("merged", "folded") and error.number == "smallest cosine"
    assert error.value < error.bar == EXACT.cosine
    layer = fresh("nano").model.get_submodule(error.layer)
    assert isinstance(layer, torch.nn.BatchNorm2d)
    assert error.layer.startswith("visual.trunk.stem.0.")
    assert nothing_is_left(tmp_path / "a")


def test_a_batch_of_one_baked_in(tmp_path: Path, monkeypatch):
    two = graph.example
    monkeypatch.setattr(graph, "example", lambda model, tower: two(model, tower)[:1])
    with pytest.raises(mh.GateError) as caught:
        mh.export_onnx(adapted(), tmp_path / "a", task(), progress=False)
    error = caught.value
    assert error.between == ("folded", "ONNX")
    assert (error.number, error.value, error.bar, error.layer) == ("largest batch", 1, 2, "pixels")
    assert nothing_is_left(tmp_path / "a")


def test_a_wrong_mean(tmp_path: Path):
    """As in a program that takes OpenAI's for every CLIP."""
    clip = adapted()
    clip.model.visual.preprocess_cfg = clip.model.visual.preprocess_cfg | {"mean": OPENAI_MEAN}
    with pytest.raises(mh.GateError) as caught:
        mh.export_onnx(clip, tmp_path / "a", task(), progress=False)
    error = caught.value
    assert error.between == ("folded", "ONNX")
    assert (error.number, error.layer) == ("smallest cosine", "pixels")
    assert nothing_is_left(tmp_path / "a")


def test_eight_bits_without_calibration(tmp_path: Path):
    """Blank pictures tell nothing of how large activations become."""
    blank = Pair("blank", ("nothing",), "blank", lambda: Image.new("RGB", (64, 64)))
    with pytest.raises(mh.GateError) as caught:
        mh.export_onnx(
            adapted(),
            tmp_path / "a",
            task(),
            precision="int8",
            calibration=mh.PictureDataset([blank]),
            keep=(),
            progress=False,
        )
    error = caught.value
    assert error.between == ("ONNX", "int8") and error.number == "top-1 agreement"
    assert error.value < error.bar == 0.95
    assert error.layer.startswith("visual.trunk.")
    assert nothing_is_left(tmp_path / "a")


# ------------------------------------------------------------------------------- other broken links


def test_a_batch_of_one_baked_in_behind_an_open_input(start: Chain, tmp_path: Path):
    """The input lets every batch in; a reshape within knows one picture only."""
    one = graph.traced(merged_copy(adapted().model), "image", torch.zeros(1, 3, 64, 64))
    one.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    del one.graph.output[0].type.tensor_type.shape.dim[:], one.graph.value_info[:]
    write_variant(tmp_path, exported(), {"image": one, "text": exported().graph("text")}, "fp32")
    error = broken(start, OnnxClip(tmp_path, "baked"))
    assert (error.number, error.value, error.bar) == ("largest batch", 1, 2)
    assert error.layer.startswith("visual.trunk.stages.3.blocks.0.token_mixer")


@pytest.mark.parametrize(
    "layer",
    [
        "visual.trunk.stages.2.blocks.1.mlp.fc1",
        "visual.trunk.head.fc",
        "text.transformer.resblocks.1.mlp.c_fc",
    ],
)
def test_the_layer_that_was_changed_is_named(start: Chain, layer: str):
    clip = adapted()
    with torch.no_grad():
        clip.model.get_parameter(f"{layer}.weight").mul_(1.2)
    assert broken(start, TorchStage("changed", clip)).layer == layer


def test_a_layer_of_the_graph_that_was_changed_is_named(start: Chain, tmp_path: Path):
    changed = {tower: exported().graph(tower) for tower in TOWERS}
    (node,) = [
        node
        for node in changed["image"].graph.node
        if graph.module_of(node) == "visual.trunk.stages.1.blocks.0.mlp.fc1"
    ]
    stored = next(t for t in changed["image"].graph.initializer if t.name == node.input[1])
    weight = torch.frombuffer(bytearray(stored.raw_data), dtype=torch.float32)
    stored.raw_data = (weight * 1.2).numpy().tobytes()
    write_variant(tmp_path, exported(), changed, "fp32")
    error = broken(start, OnnxClip(tmp_path, "changed"))
    assert error.layer == "visual.trunk.stages.1.blocks.0.mlp.fc1"


def test_another_tokenizer_is_named(start: Chain):
    clip = adapted()
    tokenizer = clip.tokenizer
    clip.tokenizer = lambda texts: tokenizer([text + " !" for text in texts])
    assert broken(start, TorchStage("changed", clip)).layer == "tokens"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_pass_no_gate(start: Chain, value: float):
    clip = adapted()
    with torch.no_grad():
        clip.model.get_parameter("visual.trunk.head.fc.bias")[0] = value
    error = broken(start, TorchStage("changed", clip), Gate())
    assert error.number == "share of features of length 1"
    assert error.layer == "visual.trunk.head.fc"


class Raw(TorchStage):
    """Features that nobody has normalised."""

    def features(self, tower: str, inputs: torch.Tensor) -> torch.Tensor:
        return 3 * super().features(tower, inputs)


def test_features_of_another_length_pass_no_gate(start: Chain):
    assert broken(start, Raw("raw", adapted()), Gate()).value == 0


def test_agreement_and_r1_have_gates_of_their_own(start: Chain):
    """The model without its adapter: another one, though each feature is a unit vector."""
    base = TorchStage("base", fresh("nano"))
    link = start.compare(base)
    assert link.agreement < 0.99 and link.r1_after < link.r1_before
    assert broken(start, base, HALF).number == "top-1 agreement"
    assert broken(start, base, Gate(lost=0.02)).number == "R@1"
    assert start.add(base, Gate()) == link == start.links[0]


def test_an_error_says_all_in_one_sentence_and_a_half(start: Chain):
    error = broken(start, TorchStage("base", fresh("nano")))
    assert str(error) == (
        f"as trained → base: the smallest cosine is {error.value:.7g}, and the gate asks for at "
        f"least 0.99999. The first layer at which the two part: {error.layer}"
    )


# -------------------------------------------------------------------------- where two stages part


@pytest.mark.parametrize("tower", TOWERS)
def test_stages_that_are_the_same_part_nowhere_but_at_the_end(tower: str):
    items = [p for p, _ in task(4)] if tower == "image" else task(4).captions
    before = TorchStage("as trained", adapted())
    old = before.activations(tower, before.inputs(tower, items))
    new = exported().activations(tower, exported().inputs(tower, items))
    assert len([name for name in old if name in new and old[name].shape == new[name].shape]) > 15
    assert first_parted(before, exported(), tower, items) == "features"
