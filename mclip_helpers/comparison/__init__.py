"""Which tool for the task: the ways to adapt a model, compared fairly.

ways          what each way trains
runs          one way, trained and measured
choose        learning rate and length, in the same way for all
bootstrap     how sure a difference is
study         what was measured on nano: data/study.jsonl
"""

from .bootstrap import Difference, difference
from .runs import Run, Task, run
from .ways import WAYS, adapt_batch_norm, first_layers

__all__ = [
    "WAYS",
    "Difference",
    "Run",
    "Task",
    "adapt_batch_norm",
    "difference",
    "first_layers",
    "run",
]
