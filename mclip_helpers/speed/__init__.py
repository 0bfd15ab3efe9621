"""Notebook 07: the same gradient in less time, or in less memory.

encode       how a batch becomes features
captions     a frozen text tower, computed once
prefix       the frozen layers before the first adapter, computed once
grad_cache   the gradient of a large batch in the memory of a small one
"""

from .captions import CaptionTable, is_constant, moves
from .encode import Encoders, plain_encoders
from .grad_cache import cached_backward
from .prefix import PrefixCache, cache_prefix

__all__ = [
    "CaptionTable",
    "Encoders",
    "PrefixCache",
    "cache_prefix",
    "cached_backward",
    "is_constant",
    "moves",
    "plain_encoders",
]
