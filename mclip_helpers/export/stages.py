"""The model at the points of the chain: as PyTorch has it, and as ONNX Runtime runs it.

A stage does all that leads from a picture or a caption to its unit vector, with what it has itself:
the exported one resizes as `model.json` says, and reads the vocabulary beside it. So what is
compared is what a user gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from PIL import Image
from torch import nn

from ..display import Table
from ..model import Clip
from ..names import clean_name, is_adapter
from .folder import GRAPHS, read_notes, transform_of
from .graph import FEATURES, INPUTS, module_values
from .links import Link, table_of
from .needed import ship_package
from .tokenizer import read_tokenizer

if TYPE_CHECKING:
    import onnx

TOWERS = tuple(INPUTS)


class Stage(Protocol):
    """A model that turns pictures and captions into features; `tower` is "image" or "text"."""

    name: str

    @property
    def size(self) -> int:
        """Bytes: of the files, or of parameters and buffers where there are none."""
        ...

    def inputs(self, tower: str, items: Sequence) -> torch.Tensor:
        """What the transform makes of pictures (N, 3, H, W), or the tokenizer of texts."""
        ...

    def features(self, tower: str, inputs: torch.Tensor) -> torch.Tensor:
        """Unit vectors (N, D)."""
        ...

    def activations(self, tower: str, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """What each module returns, by its name in open_clip's model, in the order of ending."""
        ...


class TorchStage:
    """A `Clip` as PyTorch computes it, in the mode in which its model is."""

    def __init__(self, name: str, clip: Clip):
        self.name, self.clip = name, clip

    @property
    def size(self) -> int:
        tensors = self.clip.model.state_dict().values()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def inputs(self, tower: str, items: Sequence) -> torch.Tensor:
        if tower == "text":
            return self.clip.tokenizer(list(items))
        return torch.stack([self.clip.preprocess(picture) for picture in items])

    @torch.no_grad()
    def features(self, tower: str, inputs: torch.Tensor) -> torch.Tensor:
        model, inputs = self.clip.model, inputs.to(self.clip.device)
        encode = model.encode_image if tower == "image" else model.encode_text
        return encode(inputs, normalize=True).float().cpu()

    def activations(self, tower: str, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}

        def note(name: str, module: nn.Module, args: tuple, output: object) -> None:
            if isinstance(output, torch.Tensor):
                found[name] = output.detach().float().cpu()

        modules = [
            (name, module)
            for name, module in self.clip.model.named_modules()
            if name and not is_adapter(name) and not isinstance(module, nn.Identity)
        ]
        hooks = [m.register_forward_hook(partial(note, clean_name(n))) for n, m in modules]
        try:
            found[INPUTS[tower]] = inputs
            found[FEATURES] = self.features(tower, inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return found


class OnnxClip:
    """An exported model, as ONNX Runtime computes it on the CPU, in as many threads as PyTorch.

    `notes` is what its `model.json` says. `str()` describes it in one line.
    """

    def __init__(self, folder: str | Path, name: str = "ONNX"):
        self.folder, self.name = Path(folder), name
        self.notes = read_notes(folder)
        if missing := [file for file in GRAPHS.values() if not (self.folder / file).is_file()]:
            raise FileNotFoundError(f"{folder} has no {missing[0]}; export the model again")
        self.preprocess: Callable[[Image.Image], torch.Tensor] = transform_of(self.notes)
        self.tokenizer = read_tokenizer(self.folder, self.notes["tokenizer"])

    def __str__(self) -> str:
        height, width = self.image_size
        return (
            f"{self.notes['model']} as ONNX, {self.notes['precision']}, {height}×{width} pixels, "
            f"{self.size / 1e6:.1f} MB"
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels, of what `preprocess` gives."""
        height, width = self.notes["image_size"]
        return height, width

    @property
    def logit_scale(self) -> float:
        """The multiplier of the cosines before the softmax."""
        return self.notes["logit_scale"]

    @property
    def links(self) -> list[Link]:
        """What was measured on the way here."""
        return [Link(**numbers) for numbers in self.notes.get("gates", ())]

    @property
    def gates(self) -> Table:
        """`links` as a table."""
        return table_of(self.links)

    @property
    def size(self) -> int:
        return sum((self.folder / file).stat().st_size for file in GRAPHS.values())

    def encode_images(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """Unit vectors (N, D) of RGB pictures."""
        return self.features("image", self.inputs("image", pictures))

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors (N, D) of texts."""
        return self.features("text", self.inputs("text", texts))

    def inputs(self, tower: str, items: Sequence) -> torch.Tensor:
        if tower == "text":
            return self.tokenizer(list(items)).int()
        return torch.stack([self.preprocess(picture) for picture in items])

    def features(self, tower: str, inputs: torch.Tensor) -> torch.Tensor:
        (features,) = run(self._sessions[tower], tower, inputs)
        return features

    def activations(self, tower: str, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        graph = self.graph(tower)
        modules = module_values(graph)
        expose(graph, modules.values())
        names = [output.name for output in graph.graph.output]
        whole = session(graph.SerializeToString(), optimised=False)
        outputs = dict(zip(names, run(whole, tower, inputs), strict=True))
        found = {module: outputs[value] for module, value in modules.items()}
        return {INPUTS[tower]: inputs, **found, FEATURES: outputs[FEATURES]}

    def graph(self, tower: str) -> onnx.ModelProto:
        """The graph of a tower, as the package `onnx` reads it."""
        return ship_package("onnx").load_model(self.folder / GRAPHS[tower])

    @cached_property
    def _sessions(self) -> dict[str, Any]:
        return {tower: session(str(self.folder / file)) for tower, file in GRAPHS.items()}


def load_onnx(folder: str | Path) -> OnnxClip:
    """The model that `export_onnx` wrote to `folder`, to be run by ONNX Runtime.

    ModuleNotFoundError without the extra `ship`, FileNotFoundError if there is no such model,
    ValueError if it is of another format.
    """
    ship_package("onnxruntime")
    return OnnxClip(folder)


def session(model: str | bytes, *, optimised: bool = True) -> Any:
    """A session of ONNX Runtime on the CPU, for the path or the bytes of a graph."""
    runtime = ship_package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is wrong comes as an error
    if not optimised:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(session: Any, tower: str, inputs: torch.Tensor) -> list[torch.Tensor]:
    """All outputs of a graph for `inputs` (N, …), in fp32."""
    given = inputs.int() if tower == "text" else inputs.float()
    outputs = session.run(None, {INPUTS[tower]: given.cpu().numpy()})
    return [torch.from_numpy(output).float() for output in outputs]


def expose(graph: onnx.ModelProto, values: Iterable[str]) -> None:
    """Make `values` outputs of `graph`, in place, behind those that it has."""
    onnx = ship_package("onnx")
    present = {output.name for output in graph.graph.output}
    graph.graph.output.extend(
        onnx.ValueInfoProto(name=value) for value in dict.fromkeys(values) if value not in present
    )
