"""The tested helpers behind the notebooks: `import mclip_helpers as mh`.

One module per idea; each imports only from those to its left:

    compute · pictures  →  data · models · attention · derivatives  →  emojis · sources · recipes ·
    lora · loss · card  →  adapters  →  evaluate · train · graph  →  autograd  →  draw  →
    diagrams  →  frames  →  player  →  widgets · machine
"""

from . import diagrams, draw, widgets
from .adapters import (
    base_state_dict,
    load_adapter,
    merge_adapter,
    merged_state_dict,
    save_adapter,
)
from .attention import SplitAttention, fuse_attention, split_attention
from .autograd import gradients, trace
from .compute import Compute, OutOfMemory, choose_compute
from .data import (
    DataError,
    DistinctBatches,
    Pair,
    PictureDataset,
    loader,
    set_epoch,
    split,
)
from .derivatives import in_words
from .emojis import SPLITS, emoji_catalogue, emoji_dataset
from .evaluate import Retrieval, embed, evaluate, retrieval, zero_shot
from .lora import (
    freeze_batch_norm,
    inject_lora,
    lora_layers,
    lora_targets,
    tower_of,
    unfreeze_batch_norm,
    why_not,
)
from .loss import contrastive_loss
from .machine import check_machine
from .models import APPLE_LICENCE, Clip, WeightsError, load_model, mobileclip_names
from .recipes import Recipe, recipe
from .sources import folder_dataset, hub_dataset, shard_dataset, xm3600
from .train import History, TrainingDiverged, budget, train, trainable_parameters, warmup_cosine

__version__ = "0.1.0"

__all__ = [
    "APPLE_LICENCE",
    "SPLITS",
    "Clip",
    "Compute",
    "DataError",
    "DistinctBatches",
    "History",
    "OutOfMemory",
    "Pair",
    "PictureDataset",
    "Recipe",
    "Retrieval",
    "SplitAttention",
    "TrainingDiverged",
    "WeightsError",
    "base_state_dict",
    "budget",
    "check_machine",
    "choose_compute",
    "contrastive_loss",
    "diagrams",
    "draw",
    "embed",
    "emoji_catalogue",
    "emoji_dataset",
    "evaluate",
    "folder_dataset",
    "freeze_batch_norm",
    "fuse_attention",
    "gradients",
    "hub_dataset",
    "in_words",
    "inject_lora",
    "load_adapter",
    "load_model",
    "loader",
    "lora_layers",
    "lora_targets",
    "merge_adapter",
    "merged_state_dict",
    "mobileclip_names",
    "recipe",
    "retrieval",
    "save_adapter",
    "set_epoch",
    "shard_dataset",
    "split",
    "split_attention",
    "tower_of",
    "trace",
    "train",
    "trainable_parameters",
    "unfreeze_batch_norm",
    "warmup_cosine",
    "why_not",
    "widgets",
    "xm3600",
    "zero_shot",
]
