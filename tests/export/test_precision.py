"""Fewer bits: what they cost layer by layer, which layers are left out, and the trade."""

from __future__ import annotations

import functools
from pathlib import Path

import onnx
import onnxruntime
import pytest
from shipped import adapted, exported, task

import mclip_helpers as mh
from mclip_helpers.draw import trade as drawn
from mclip_helpers.export import (
    HALF,
    Chain,
    LayerCost,
    OnnxClip,
    Quantizer,
    Trade,
    costliest,
    halved,
    layer_costs,
    size_against_recall,
    write_variant,
)
from mclip_helpers.export.graph import module_of
from mclip_helpers.export.precision import LOOKED_UP, MULTIPLIED
from mclip_helpers.export.stages import TOWERS

STEM = "visual.trunk.stem.1.reparam_conv"


@functools.cache
def quantizer() -> Quantizer:
    return Quantizer(exported(), mh.emoji_dataset("thermal", "train").head(24))


@functools.cache
def costs() -> tuple[LayerCost, ...]:
    return tuple(layer_costs(quantizer(), progress=False))


def in_eight_bits(graph: onnx.ModelProto) -> set[str]:
    """The layers that multiply, or look up, what comes out of eight bits."""
    back = {node.output[0] for node in graph.graph.node if node.op_type == "DequantizeLinear"}
    return {
        module_of(node)
        for node in graph.graph.node
        if node.op_type in (*MULTIPLIED, LOOKED_UP) and node.input[0] in back
    }


def test_half_precision_takes_half_the_bytes_and_passes_its_gate(tmp_path: Path):
    write_variant(tmp_path, exported(), halved(exported()), "fp16")
    half = OnnxClip(tmp_path, "fp16")
    chain = Chain(exported(), task(), progress=False)
    link = chain.add(half, HALF)
    assert link.size_after / link.size_before == pytest.approx(0.5, abs=0.01)
    assert 1e-9 < 1 - link.cosine < 1e-4  # it is not the same, and nearly so
    for tower, kind in {"image": "tensor(float)", "text": "tensor(int32)"}.items():
        session = onnxruntime.InferenceSession(str(tmp_path / f"{tower}.onnx"))
        assert session.get_inputs()[0].type == kind
        assert session.get_outputs()[0].type == "tensor(float)"


@pytest.mark.parametrize("tower", TOWERS)
def test_eight_bits_are_used_in_every_layer_but_those_that_are_kept(tower: str):
    layers = set(quantizer().layers(tower))
    keep = {min(layers)}
    graph = quantizer().graphs(keep)[tower]
    onnx.checker.check_model(graph)
    used = in_eight_bits(graph)
    assert used == layers - keep


def test_with_no_layer_in_eight_bits_the_graph_is_the_same():
    graph = quantizer().graph("image", [])
    assert not in_eight_bits(graph)
    assert len(graph.graph.node) == len(exported().graph("image").graph.node)


def test_a_layer_that_is_not_there_can_not_be_kept():
    with pytest.raises(ValueError, match=r"keep names 'visual\.nowhere'"):
        quantizer().graphs(["visual.nowhere"])


def test_costs_are_those_of_each_layer_the_costliest_first():
    names = [cost.layer for cost in costs()]
    assert set(names) == {layer for tower in TOWERS for layer in quantizer().layers(tower)}
    damages = [cost.damage for cost in costs()]
    assert damages == sorted(damages, reverse=True) and damages[0] > 100 * damages[-1]


def test_few_layers_do_most_of_the_damage_and_the_first_ones_above_all():
    """Folded branches have weights and activations of very unequal size."""
    keep = costliest(costs())
    assert 0 < len(keep) < len(costs()) / 4
    assert STEM in keep[:3]
    assert (
        sum(layer.startswith(("visual.trunk.stem", "visual.trunk.stages.0")) for layer in keep) > 3
    )


def test_costliest_takes_as_few_layers_as_do_the_share():
    three = [
        LayerCost(name, "image", damage, 0.9) for name, damage in [("a", 6), ("b", 3), ("c", 1)]
    ]
    assert costliest(three, 0) == []
    assert costliest(three, 0.6) == ["a"]
    assert costliest(three, 0.61) == ["a", "b"]
    assert costliest(three, 1) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="share"):
        costliest(three, 1.5)


def test_leaving_the_costliest_out_is_worth_more_than_leaving_out_the_others(tmp_path: Path):
    chain = Chain(exported(), task(), progress=False)
    keep = costliest(costs())
    harmless = [cost.layer for cost in costs()[-len(keep) :]]
    means = {}
    for name, left in {"none": [], "costliest": keep, "harmless": harmless}.items():
        (tmp_path / name).mkdir()
        write_variant(tmp_path / name, exported(), quantizer().graphs(left), "int8", left)
        means[name] = chain.compare(OnnxClip(tmp_path / name, name)).mean_cosine
    lost = {name: 1 - mean for name, mean in means.items()}
    assert lost["costliest"] < lost["none"] / 2 < lost["harmless"]


def test_a_model_in_eight_bits_passes_its_gate_and_says_what_is_left_out(tmp_path: Path):
    keep = costliest(costs())
    shipped = mh.export_onnx(
        adapted(),
        tmp_path / "a",
        task(),
        precision="int8",
        calibration=quantizer().calibration,
        keep=keep,
        progress=False,
    )
    last = shipped.links[-1]
    assert (last.before, last.after) == ("ONNX", "int8")
    assert last.size_after < 0.3 * last.size_before
    assert shipped.notes["full_precision"] == keep
    assert f"`{STEM}`" in (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert mh.load_onnx(tmp_path / "a").links == shipped.links


def test_the_trade_has_a_point_for_each_way_and_a_picture():
    measured = size_against_recall(quantizer(), task(), costs(), kept=(0, 8), progress=False)
    assert [link.after for link in measured.links] == ["fp32", "fp16", "int8", "int8, 8 kept"]
    same, half, eight, better = measured.links
    assert same.cosine > 1 - 1e-12 and same.size_after == pytest.approx(same.size_before, rel=1e-3)
    assert eight.size_after < better.size_after < half.size_after < same.size_after
    assert eight.mean_cosine < better.mean_cosine < half.mean_cosine
    r1, agreement = measured.plot().axes
    assert len(agreement.get_lines()) == 4 and r1.get_ylabel().startswith("R@1")
    names = [text.get_text() for text in agreement.get_legend().get_texts()]
    assert names == ["R@1 before", "fp32", "fp16", "int8", "int8, 8 kept"]
    assert "int8, 8 kept" in str(measured.table)
    assert isinstance(measured, Trade)
    with pytest.raises(TypeError, match="pass the Trade"):
        drawn(measured.links)


def test_calibration_needs_pictures():
    with pytest.raises(TypeError, match="calibration"):
        Quantizer(exported(), [])
    with pytest.raises(ValueError, match="calibration is empty"):
        Quantizer(exported(), task().head(0))
