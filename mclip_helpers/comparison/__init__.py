"""Which tool for the task: the ways to adapt a model, compared fairly.

ways          what each way trains
runs          one way, trained and measured
choose        learning rate and length, in the same way for all
bootstrap     how sure a difference is
study         what was measured on nano: data/study.jsonl
"""

from .bootstrap import Difference, difference
from .choose import choose
from .runs import Run, Task, run
from .study import Study, read_study
from .ways import WAYS, Way, adapt_batch_norm, first_layers, regions

__all__ = [
    "WAYS",
    "Difference",
    "Run",
    "Study",
    "Task",
    "Way",
    "adapt_batch_norm",
    "choose",
    "difference",
    "first_layers",
    "read_study",
    "regions",
    "run",
]
