"""The model in the form in which it is exported."""

from __future__ import annotations

import copy

from ..lora import fold, merged_copy, split_attention
from ..model import ClipModel


def folded_copy(model: ClipModel) -> ClipModel:
    """A copy of a plain model with all branches folded, and attention as four plain layers.

    So attention has half as many nodes, and each layer its name. And with what becomes of
    nn.MultiheadAttention in a graph, ONNX Runtime 1.32 crashes in half precision on x86.
    """
    copied = copy.deepcopy(model)
    fold(copied, keep=())
    split_attention(copied)
    return copied


def plain_folded(model: ClipModel) -> ClipModel:
    """`folded_copy` of a model that may have adapters, which are merged; on the CPU."""
    return folded_copy(merged_copy(model).cpu())
