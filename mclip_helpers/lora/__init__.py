"""LoRA on a MobileCLIP, with PEFT's ordinary adapters underneath (notebook 02).

targets.py     which layers carry an adapter
attention.py   attention rewritten as Linear layers, which adapters need, and back
batch_norm.py  running statistics that don't move
fold.py        frozen branches of the trunk as one convolution each, and back
inject.py      fresh adapters on a model
state.py       the base's weights underneath, the merged ones, and a fingerprint
adapters.py    save, load, merge
folder.py      an adapter's folder: what is noted in it, and whether it is still that
verify.py      whether a saved adapter is one that can be computed, and fits a model
card.py        the model card of a saved adapter; its text is in card_template.md
markdown.py    text that the card shows as it was given
"""

from .adapters import load_adapter, merge_adapter, merged_copy, save_adapter
from .attention import SplitAttention, fuse_attention, is_fused_attention, split_attention
from .batch_norm import batch_norms, freeze_batch_norm, unfreeze_batch_norm
from .fold import fold, unfold
from .inject import inject_lora, lora_layers
from .state import base_state_dict, fingerprint, merged_state_dict, tensor_bytes
from .targets import TARGET_SETS, lora_targets, regions, why_not

__all__ = [
    "TARGET_SETS",
    "SplitAttention",
    "base_state_dict",
    "batch_norms",
    "fingerprint",
    "fold",
    "freeze_batch_norm",
    "fuse_attention",
    "inject_lora",
    "is_fused_attention",
    "load_adapter",
    "lora_layers",
    "lora_targets",
    "merge_adapter",
    "merged_copy",
    "merged_state_dict",
    "regions",
    "save_adapter",
    "split_attention",
    "tensor_bytes",
    "unfold",
    "unfreeze_batch_norm",
    "why_not",
]
