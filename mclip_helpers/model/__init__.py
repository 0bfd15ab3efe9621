"""A MobileCLIP with everything that belongs to it, and what it is computed on (notebook 01).

clip.py      Clip, load_model
nano.py      the architecture of `nano`, and its compact weight file
weights.py   weight files: where they are, how they are read, what can be wrong with them
compute.py   device, precision, loader workers, memory
modes.py     eval mode for a while
"""

from .clip import (
    Clip,
    ClipModel,
    base_name,
    load_model,
    mobileclip_names,
    require_clip,
    require_model,
)
from .compute import Compute, OutOfMemory, choose_compute
from .modes import in_eval, in_train
from .nano import NANO
from .weights import APPLE_LICENCE, RANDOM, WeightsError, hub_repository, is_apples

__all__ = [
    "APPLE_LICENCE",
    "NANO",
    "RANDOM",
    "Clip",
    "ClipModel",
    "Compute",
    "OutOfMemory",
    "WeightsError",
    "base_name",
    "choose_compute",
    "hub_repository",
    "in_eval",
    "in_train",
    "is_apples",
    "load_model",
    "mobileclip_names",
    "require_clip",
    "require_model",
]
