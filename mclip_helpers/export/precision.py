"""Half precision and eight bits, by ONNX Runtime's own tools.

Eight bits: q = round(x / scale) + zero, with a scale for each channel of a weight and one for all
of an activation. The scales of activations come from calibration: pictures of the task go through
the graph, and the range is what 99.999 % of the values lie in. Weights are signed, activations are
not. On x86 processors without VNNI, sums of such products can overflow in 16 bits: what was gated
on one machine should be gated on an old one as well, before it goes there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..data import PictureDataset, require_dataset
from .folder import GRAPHS, as_metadata, write_notes
from .graph import INPUTS, module_of, quiet, save_graph
from .needed import ship_package
from .stages import TOWERS, OnnxClip
from .tokenizer import write_tokenizer

if TYPE_CHECKING:
    import onnx

BATCH = 4  # pictures that are calibrated with at a time: all activations of a batch are kept
MULTIPLIED = ("Conv", "MatMul", "Gemm")  # what is computed in eight bits
LOOKED_UP = "Gather"  # a table of embeddings is stored in eight bits


def halved(clip: OnnxClip) -> dict[str, onnx.ModelProto]:
    """The graphs of `clip`, by tower, with numbers of 16 bits inside; inputs and features stay."""
    float16 = ship_package("onnxruntime.transformers.float16")
    tools = ship_package("onnxruntime.transformers.onnx_model")
    graphs = {}
    for tower in TOWERS:
        with quiet():
            graph = float16.convert_float_to_float16(clip.graph(tower), keep_io_types=True)
            model = tools.OnnxModel(graph)
            model.topological_sort()  # the converter puts the casts of inputs last
        graphs[tower] = model.model
    return graphs


class Quantizer:
    """Eight-bit graphs of an exported model, with scales from the pictures and captions of a task.

    A layer is named as in open_clip's model. TypeError and ValueError for no dataset, or an empty
    one.
    """

    def __init__(self, clip: OnnxClip, calibration: PictureDataset):
        self.clip, self.calibration = clip, require_dataset(calibration, "calibration")

    def layers(self, tower: str) -> dict[str, list[str]]:
        """The layers of a tower that eight bits can be used in, each with its nodes' names."""
        graph = self._graphs[tower]
        numbers = ship_package("onnx").TensorProto.FLOAT
        tables = {table.name for table in graph.graph.initializer if table.data_type == numbers}
        layers: dict[str, list[str]] = {}
        for node in graph.graph.node:
            is_table = node.op_type == LOOKED_UP and node.input[0] in tables
            if node.op_type in MULTIPLIED or is_table:
                layers.setdefault(module_of(node) or node.name, []).append(node.name)
        return layers

    def graph(self, tower: str, layers: Collection[str]) -> onnx.ModelProto:
        """The graph of a tower in which `layers` compute in eight bits, and no others."""
        quantization = ship_package("onnxruntime.quantization")
        known = self.layers(tower)
        graph = ship_package("onnx").ModelProto()
        graph.CopyFrom(self._graphs[tower])
        nodes = [node for layer in layers for node in known[layer]]
        if not nodes:  # to ONNX Runtime, an empty list means all
            return graph
        with quiet():
            quantizer = quantization.QDQQuantizer(
                graph,
                per_channel=True,
                reduce_range=False,
                weight_qType=quantization.QuantType.QInt8,
                # On x86, ONNX Runtime computes most convolutions of signed activations in fp32.
                activation_qType=quantization.QuantType.QUInt8,
                tensors_range=self._ranges[tower],
                nodes_to_quantize=nodes,
                nodes_to_exclude=[],
                op_types_to_quantize=[*MULTIPLIED, LOOKED_UP],
                extra_options={},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        return quantizer.model.model

    def graphs(self, keep: Collection[str] = ()) -> dict[str, onnx.ModelProto]:
        """Both graphs, by tower, in eight bits but for the layers `keep`.

        ValueError for a layer that is in neither, or that eight bits can't be used in.
        """
        known = {tower: self.layers(tower) for tower in TOWERS}
        if unknown := sorted(set(keep) - {layer for layers in known.values() for layer in layers}):
            raise ValueError(
                f"keep names {unknown[0]!r}, which is no layer that is computed in eight bits"
            )
        return {
            tower: self.graph(tower, [layer for layer in layers if layer not in keep])
            for tower, layers in known.items()
        }

    @cached_property
    def _graphs(self) -> dict[str, onnx.ModelProto]:
        infer = ship_package("onnx").shape_inference.infer_shapes
        return {tower: infer(self.clip.graph(tower)) for tower in TOWERS}

    @cached_property
    def _ranges(self) -> dict[str, Any]:
        return {tower: self._calibrated(tower) for tower in TOWERS}

    def _calibrated(self, tower: str) -> Any:
        """The range of each activation that is multiplied, over the calibration's items."""
        quantization = ship_package("onnxruntime.quantization")
        pairs = self.calibration.pairs
        starts = range(0, len(pairs), BATCH)
        with tempfile.TemporaryDirectory() as scratch, quiet():
            calibrator = quantization.create_calibrator(
                str(self.clip.folder / GRAPHS[tower]),
                [*MULTIPLIED, LOOKED_UP],
                augmented_model_path=str(Path(scratch) / "augmented.onnx"),
                calibrate_method=quantization.CalibrationMethod.Percentile,
            )
            for at in starts:
                some = pairs[at : at + BATCH]
                items = [p.load() if tower == "image" else p.captions[0] for p in some]
                calibrator.collect_data(_Once(tower, self.clip.inputs(tower, items)))
            return calibrator.compute_data()


class _Once:
    """What ONNX Runtime's calibration reads: one batch."""

    def __init__(self, tower: str, inputs: torch.Tensor):
        self.left = [{INPUTS[tower]: inputs.numpy()}]

    def get_next(self) -> dict[str, Any] | None:
        return self.left.pop() if self.left else None


def write_variant(
    folder: Path,
    clip: OnnxClip,
    graphs: Mapping[str, onnx.ModelProto],
    precision: str,
    full_precision: Sequence[str] = (),
) -> None:
    """Write `graphs`, made from those of `clip`, to `folder`, with all that belongs to them."""
    notes = clip.notes | {"precision": precision, "full_precision": list(full_precision)}
    for tower, graph in graphs.items():
        ship_package("onnx").helper.set_model_props(graph, as_metadata(notes))
        save_graph(graph, folder / GRAPHS[tower])
    write_tokenizer(folder)
    write_notes(folder, notes)
