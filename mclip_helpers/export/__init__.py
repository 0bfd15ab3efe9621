"""From a model with adapters to files that run elsewhere, with a gate at every link (notebook 08).

chain.py      export_onnx: as trained → merged → folded → ONNX → fewer bits
gates.py      what a link may change, and the error if it changed more
links.py      what a link was measured to change
parting.py    the first layer at which two stages part
stages.py     the model as PyTorch computes it, and as ONNX Runtime does
graph.py      a tower as an ONNX graph
folder.py     `model.json`, and what may be replaced
tokenizer.py  the vocabulary beside the graphs
card.py       the card of an exported model; its text is in card_template.md
precision.py  half precision and eight bits
costs.py      what eight bits cost, layer by layer; size against R@1
coreml.py     export_coreml
plain.py      the form in which a model is exported
needed.py     the packages that only this folder needs
"""

from .chain import export_onnx
from .coreml import export_coreml
from .costs import LayerCost, Trade, costliest, layer_costs, size_against_recall
from .gates import EIGHT_BITS, EXACT, HALF, Chain, Gate, GateError
from .links import Link
from .plain import folded_copy
from .precision import Quantizer, halved, write_variant
from .stages import OnnxClip, TorchStage, load_onnx

__all__ = [
    "EIGHT_BITS",
    "EXACT",
    "HALF",
    "Chain",
    "Gate",
    "GateError",
    "LayerCost",
    "Link",
    "OnnxClip",
    "Quantizer",
    "TorchStage",
    "Trade",
    "costliest",
    "export_coreml",
    "export_onnx",
    "folded_copy",
    "halved",
    "layer_costs",
    "load_onnx",
    "size_against_recall",
    "write_variant",
]
