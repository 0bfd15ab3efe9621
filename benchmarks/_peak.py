"""How much memory a process has held: what several benchmarks measure."""

from __future__ import annotations

import resource
import sys

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in what ru_maxrss counts


def held() -> float:
    """The most MB that this process has held so far (resident set)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT / 1e6
