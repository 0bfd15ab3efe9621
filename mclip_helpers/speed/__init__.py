"""Notebook 07: the same gradient in less time, or in less memory.

encode       how a batch becomes features
captions     a frozen text tower, computed once
prefix       the frozen layers before the first adapter, computed once
grad_cache   the gradient of a large batch in the memory of a small one
memory       how large a batch, or a chunk of it, may be
processes    several processes that take one step together
timing       times that can be compared
"""

from .captions import CaptionTable, is_constant, moves
from .encode import Encoders, plain_encoders
from .grad_cache import cached_backward
from .memory import LiveBytes, StepMemory, step_memory
from .prefix import PrefixCache, cache_prefix
from .processes import (
    average_gradients,
    gather,
    gather_numbers,
    is_distributed,
    is_main,
    require_alike,
    share,
)
from .timing import ratio, take_turns

__all__ = [
    "CaptionTable",
    "Encoders",
    "LiveBytes",
    "PrefixCache",
    "StepMemory",
    "average_gradients",
    "cache_prefix",
    "cached_backward",
    "gather",
    "gather_numbers",
    "is_constant",
    "is_distributed",
    "is_main",
    "moves",
    "plain_encoders",
    "ratio",
    "require_alike",
    "share",
    "step_memory",
    "take_turns",
]
