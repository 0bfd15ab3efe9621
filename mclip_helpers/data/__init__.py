"""Captioned pictures: read them, group what is equally good, split without leaks, make batches.

What the modules hold, each using only those above it:

    images        any picture file as RGB, and a digest of its pixels
    augment       pictures that lie a bit differently each time
    shifts        pictures as another sensor would give them
    pairs         Pair and PictureDataset, and which pairs are equally good
    duplicates    near-duplicates, by a perceptual hash
    splits        train, val and test, without leaks
    replay        known pictures among the new ones
    batches       batches without false negatives, and the loader
    emoji         the dataset of the notebooks
    reader        what the sources of your own pictures share: read all, then report every problem
    metadata      the metadata.csv or metadata.jsonl of a folder
    stamps        whether a file is still the one that was read
    folder · hub · shards
    decoded       pictures at the model's size, decoded once
"""

from .augment import Jitter
from .batches import (
    EPOCHS_PER_SEED,
    DistinctBatches,
    loader,
    set_epoch,
)
from .decoded import decode_once
from .emoji import draw_emoji, emoji_catalogue, emoji_dataset
from .folder import folder_dataset
from .hub import hub_dataset, xm3600
from .images import on_white
from .pairs import DataError, Pair, PictureDataset, require_dataset
from .replay import with_replay
from .shards import shard_dataset
from .shifts import sketch, thermal
from .splits import SPLITS, split

__all__ = [
    "EPOCHS_PER_SEED",
    "SPLITS",
    "DataError",
    "DistinctBatches",
    "Jitter",
    "Pair",
    "PictureDataset",
    "decode_once",
    "draw_emoji",
    "emoji_catalogue",
    "emoji_dataset",
    "folder_dataset",
    "hub_dataset",
    "loader",
    "on_white",
    "require_dataset",
    "set_epoch",
    "shard_dataset",
    "sketch",
    "split",
    "thermal",
    "with_replay",
    "xm3600",
]
