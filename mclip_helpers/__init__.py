"""The tested helpers behind the notebooks: `import mclip_helpers as mh`.

Folders mirror the notebooks, from what comes first to what uses it:

    files · names · display · loss → data · model → lora → evaluation → training
    names · display → gradient → draw → widgets → machine
"""

from . import draw, widgets
from .data import (
    SPLITS,
    DataError,
    DistinctBatches,
    Pair,
    PictureDataset,
    draw_emoji,
    emoji_catalogue,
    emoji_dataset,
    folder_dataset,
    hub_dataset,
    loader,
    on_white,
    set_epoch,
    shard_dataset,
    split,
    xm3600,
)
from .evaluation import Retrieval, embed, evaluate, retrieval, zero_shot
from .files import data_folder
from .gradient import Cause, Reason, Verdict, gradients, in_words, trace
from .lora import (
    SplitAttention,
    base_state_dict,
    freeze_batch_norm,
    fuse_attention,
    inject_lora,
    load_adapter,
    lora_layers,
    lora_targets,
    merge_adapter,
    merged_state_dict,
    save_adapter,
    split_attention,
    unfreeze_batch_norm,
    why_not,
)
from .loss import contrastive_loss
from .machine import check_machine
from .model import (
    APPLE_LICENCE,
    Clip,
    Compute,
    OutOfMemory,
    WeightsError,
    choose_compute,
    load_model,
    mobileclip_names,
)
from .names import tower_of
from .training.history import History
from .training.loop import TrainingDiverged, train
from .training.recipes import Recipe, budget, recipe
from .training.schedule import warmup_cosine
from .training.state import trainable_parameters

__version__ = "0.1.0"

__all__ = [
    "APPLE_LICENCE",
    "SPLITS",
    "Cause",
    "Clip",
    "Compute",
    "DataError",
    "DistinctBatches",
    "History",
    "OutOfMemory",
    "Pair",
    "PictureDataset",
    "Reason",
    "Recipe",
    "Retrieval",
    "SplitAttention",
    "TrainingDiverged",
    "Verdict",
    "WeightsError",
    "base_state_dict",
    "budget",
    "check_machine",
    "choose_compute",
    "contrastive_loss",
    "data_folder",
    "draw",
    "draw_emoji",
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
    "on_white",
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
