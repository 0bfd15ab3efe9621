"""From a model with adapters to files that run elsewhere, with a gate at every link (notebook 08).

chain.py      export_onnx: as trained → merged → folded → ONNX
gates.py      what a link may change, and the error if it changed more
links.py      what a link was measured to change
parting.py    the first layer at which two stages part
stages.py     the model as PyTorch computes it, and as ONNX Runtime does
graph.py      a tower as an ONNX graph
folder.py     `model.json`, and what may be replaced
tokenizer.py  the vocabulary beside the graphs
card.py       the card of an exported model; its text is in card_template.md
needed.py     the packages that only this folder needs
"""

from .chain import export_onnx
from .gates import EXACT, HALF, Chain, Gate, GateError
from .links import Link
from .stages import OnnxClip, TorchStage, load_onnx

__all__ = [
    "EXACT",
    "HALF",
    "Chain",
    "Gate",
    "GateError",
    "Link",
    "OnnxClip",
    "TorchStage",
    "export_onnx",
    "load_onnx",
]
