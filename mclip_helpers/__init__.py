"""The tested helpers behind the notebooks: `import mclip_helpers as mh`.

Folders mirror the notebooks, from what comes first to what uses it:

    checks · colours · files · progress_bar · names · display → loss → data · model → lora
        → evaluation → speed → training → comparison · export → exercises → draw
    names · display → gradient → draw → widgets → machine · commands
"""

from . import comparison, draw, exercises, export, speed, widgets
from .data import (
    SPLITS,
    DataError,
    DistinctBatches,
    Jitter,
    PictureDataset,
    decode_once,
    draw_emoji,
    emoji_catalogue,
    emoji_dataset,
    folder_dataset,
    hub_dataset,
    loader,
    on_white,
    set_epoch,
    shard_dataset,
    sketch,
    split,
    thermal,
    with_replay,
    xm3600,
)
from .evaluation import embed, evaluate, retrieval, zero_shot
from .exercises import exercise, last_test, progress
from .export import GateError, export_onnx, load_onnx
from .files import data_folder
from .gradient import Cause, Verdict, gradients, in_words, trace
from .lora import (
    fold,
    freeze_batch_norm,
    fuse_attention,
    inject_lora,
    load_adapter,
    lora_layers,
    lora_targets,
    merge_adapter,
    regions,
    save_adapter,
    split_attention,
    unfold,
    unfreeze_batch_norm,
)
from .loss import contrastive_loss
from .machine import check_machine
from .model import (
    APPLE_LICENCE,
    Clip,
    OutOfMemory,
    WeightsError,
    load_model,
    mobileclip_names,
)
from .names import tower_of
from .training.first_step import DeadAdapterError
from .training.history import History
from .training.loop import TrainingDiverged, train
from .training.recipes import budget, recipe
from .training.schedule import warmup_cosine
from .training.state import trainable_parameters

__version__ = "0.1.0"

# The public names, under the notebook that introduces them; `make docs` makes docs/api.md of it.
__all__ = [
    # 00_start_here
    "check_machine",
    "data_folder",
    "budget",
    "exercise",
    "exercises",
    "progress",
    # 01_load_mobileclip
    "load_model",
    "mobileclip_names",
    "Clip",
    "WeightsError",
    "APPLE_LICENCE",
    "OutOfMemory",
    "tower_of",
    "emoji_dataset",
    "emoji_catalogue",
    "draw_emoji",
    "thermal",
    "sketch",
    "on_white",
    "PictureDataset",
    "embed",
    "zero_shot",
    "evaluate",
    "retrieval",
    "draw",
    "widgets",
    # 02_inject_lora
    "inject_lora",
    "lora_targets",
    "lora_layers",
    "trainable_parameters",
    "gradients",
    "split_attention",
    "fuse_attention",
    "freeze_batch_norm",
    "unfreeze_batch_norm",
    "save_adapter",
    "load_adapter",
    "merge_adapter",
    # 03_contrastive_loss
    "contrastive_loss",
    "loader",
    "DistinctBatches",
    # 04_follow_the_gradient
    "trace",
    "Verdict",
    "Cause",
    "in_words",
    # 05_train
    "recipe",
    "SPLITS",
    "split",
    "folder_dataset",
    "hub_dataset",
    "shard_dataset",
    "xm3600",
    "DataError",
    "with_replay",
    "Jitter",
    "train",
    "History",
    "TrainingDiverged",
    "DeadAdapterError",
    "warmup_cosine",
    "set_epoch",
    "comparison",
    # 06_which_tool
    "regions",
    # 07_fast_and_large
    "fold",
    "unfold",
    "decode_once",
    "speed",
    # 08_ship_it
    "export_onnx",
    "load_onnx",
    "GateError",
    "export",
    "last_test",
]
