"""The tested helpers behind the notebooks: `import mclip_helpers as mh`.

Folders mirror the notebooks, from what comes first to what uses it:

    files · names · display · loss → data · model → lora → evaluation → training
    names · display → gradient → draw → widgets → machine
"""

from . import draw, widgets
from .data.emoji import SPLITS, draw_emoji, emoji_catalogue, emoji_dataset
from .data.images import on_white
from .data.pairs import (
    DataError,
    DistinctBatches,
    Pair,
    PictureDataset,
    loader,
    set_epoch,
    split,
)
from .data.sources import folder_dataset, hub_dataset, shard_dataset, xm3600
from .evaluation import Retrieval, embed, evaluate, retrieval, zero_shot
from .files import data_folder
from .gradient.derivatives import in_words
from .gradient.recorder import gradients, trace
from .lora.adapters import (
    base_state_dict,
    load_adapter,
    merge_adapter,
    merged_state_dict,
    save_adapter,
)
from .lora.attention import SplitAttention, fuse_attention, split_attention
from .lora.inject import (
    freeze_batch_norm,
    inject_lora,
    lora_layers,
    lora_targets,
    unfreeze_batch_norm,
    why_not,
)
from .loss import contrastive_loss
from .machine import check_machine
from .model.clip import APPLE_LICENCE, Clip, WeightsError, load_model, mobileclip_names
from .model.compute import Compute, OutOfMemory, choose_compute
from .names import tower_of
from .training.loop import (
    History,
    TrainingDiverged,
    budget,
    train,
    trainable_parameters,
    warmup_cosine,
)
from .training.recipes import Recipe, recipe

__version__ = "0.1.0"

# The public names, under the notebook that introduces them; `make docs` makes docs/api.md of it.
__all__ = [
    # 00_start_here
    "check_machine",
    "data_folder",
    "budget",
    # 01_load_mobileclip
    "load_model",
    "mobileclip_names",
    "Clip",
    "WeightsError",
    "APPLE_LICENCE",
    "choose_compute",
    "Compute",
    "OutOfMemory",
    "tower_of",
    "emoji_dataset",
    "emoji_catalogue",
    "draw_emoji",
    "on_white",
    "PictureDataset",
    "Pair",
    "embed",
    "zero_shot",
    "evaluate",
    "retrieval",
    "Retrieval",
    "draw",
    "widgets",
    # 02_inject_lora
    "inject_lora",
    "lora_targets",
    "why_not",
    "lora_layers",
    "trainable_parameters",
    "gradients",
    "split_attention",
    "fuse_attention",
    "SplitAttention",
    "freeze_batch_norm",
    "unfreeze_batch_norm",
    "save_adapter",
    "load_adapter",
    "merge_adapter",
    "merged_state_dict",
    "base_state_dict",
    # 03_contrastive_loss
    "contrastive_loss",
    "loader",
    "DistinctBatches",
    # 04_follow_the_gradient
    "trace",
    "in_words",
    # 05_train
    "recipe",
    "Recipe",
    "SPLITS",
    "split",
    "folder_dataset",
    "hub_dataset",
    "shard_dataset",
    "xm3600",
    "DataError",
    "train",
    "History",
    "TrainingDiverged",
    "warmup_cosine",
    "set_epoch",
]
