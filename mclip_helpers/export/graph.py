"""A tower as an ONNX graph, in which every node knows the module that it comes from.

PyTorch's exporter notes a module path, a stack trace and more for each node. Of these the path
stays, under `MODULE`: by it, layers of the graph are compared with those of the model. The traces
go: they hold the paths of the machine that exported.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..model import ClipModel
from .needed import ship_package

if TYPE_CHECKING:
    import onnx

OPSET = 18  # the exporter's own; nothing is converted down or up
INPUTS = {"image": "pixels", "text": "tokens"}  # tower → its input
FEATURES = "features"
MODULE = "module"
SCOPES = "pkg.torch.onnx.name_scopes"
IN_TOWER = "model."  # what `Tower` puts before a module's name


class Tower(nn.Module):
    """One tower of `model` as a module: pixels or tokens in, unit vectors (N, D) out."""

    def __init__(self, model: ClipModel, tower: str):
        super().__init__()
        self.model = model
        self.encode = {"image": model.encode_image, "text": model.encode_text}[tower]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.encode(inputs, normalize=True)


def example(model: ClipModel, tower: str) -> torch.Tensor:
    """Two blank inputs: a batch of one would be baked in, as its size tells nothing."""
    if tower == "text":
        return torch.ones(2, model.context_length, dtype=torch.int32)
    size = model.visual.image_size
    return torch.zeros(2, 3, *((size, size) if isinstance(size, int) else size))


def write_graph(model: ClipModel, tower: str, file: Path, metadata: Mapping[str, str]) -> None:
    """Write a tower of `model`, which is on the CPU and in eval mode, to `file`."""
    graph = traced(model, tower, example(model, tower))
    ship_package("onnx").helper.set_model_props(graph, dict(metadata))
    save_graph(graph, file)


def traced(model: ClipModel, tower: str, inputs: torch.Tensor) -> onnx.ModelProto:
    """The graph of a tower, traced with `inputs` (N, …); N stays open unless it is 1."""
    ship_package("onnxscript")
    dynamic = {0: "N"} if len(inputs) > 1 else {}
    with quiet():
        program = torch.onnx.export(
            Tower(model, tower).eval(),
            (inputs,),
            dynamo=True,
            input_names=[INPUTS[tower]],
            output_names=[FEATURES],
            dynamic_shapes=(dynamic,),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    for node in graph.graph.node:
        note_module(node, _innermost(node))
    for holder in (graph, graph.graph, *graph.graph.value_info, *graph.graph.initializer):
        del holder.metadata_props[:]
    return graph


def save_graph(graph: onnx.ModelProto, file: Path) -> None:
    """Check `graph` and write it, weights included."""
    onnx = ship_package("onnx")
    onnx.checker.check_model(graph)
    onnx.save_model(graph, file)


def note_module(node: onnx.NodeProto, module: str) -> None:
    """Note the module that `node` comes from, in the place of all other notes."""
    del node.metadata_props[:]
    if module:
        note = node.metadata_props.add()
        note.key, note.value = MODULE, module


def module_of(node: onnx.NodeProto) -> str:
    """The innermost module that `node` comes from; "" for what the model itself computes."""
    return next((note.value for note in node.metadata_props if note.key == MODULE), "")


def module_values(graph: onnx.ModelProto) -> dict[str, str]:
    """Module → the value that it returns: the output of its last node, in the graph's order.

    As far as that is known: of several outputs it is one, and what the exporter has moved over the
    end of a module is missing. Compare shapes before numbers.
    """
    values: dict[str, str] = {}
    for node in graph.graph.node:
        path = module_of(node)
        while path:
            values.pop(path, None)  # back in at the end: the order is that of the last nodes
            values[path] = node.output[0]
            path = path.rpartition(".")[0]
    return values


def _innermost(node: onnx.NodeProto) -> str:
    """From the exporter's note: ["", "model.visual", …, "model.visual.head.fc", "linear_7"]."""
    scopes = next((note.value for note in node.metadata_props if note.key == SCOPES), "[]")
    modules = [scope for scope in ast.literal_eval(scopes) if scope.startswith(IN_TOWER)]
    return modules[-1].removeprefix(IN_TOWER) if modules else ""


@contextmanager
def quiet() -> Iterator[None]:
    """A block in which exporters and converters don't speak of their own affairs."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
