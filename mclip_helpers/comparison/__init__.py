"""Which tool for the task: the ways to adapt a model, compared fairly.

ways          what each way trains
runs          one way, trained and measured
choose        learning rate and length, in the same way for all
costs         time and memory of a step
bootstrap     how sure a difference is
result        several ways side by side, and which to take
advice        the same in words
own           your own pictures
study         what was measured on nano: data/study.jsonl
"""

from .advice import advice
from .bootstrap import Difference, difference
from .choose import choose
from .costs import Cost, costs
from .own import Plan, are_classes, compare, describe, plan
from .result import Comparison, Recommendation, recommend
from .runs import Run, Task, picture_ranks, recall, run
from .study import Study, read_study
from .ways import WAYS, Way, adapt_batch_norm

__all__ = [
    "WAYS",
    "Comparison",
    "Cost",
    "Difference",
    "Plan",
    "Recommendation",
    "Run",
    "Study",
    "Task",
    "Way",
    "adapt_batch_norm",
    "advice",
    "are_classes",
    "choose",
    "compare",
    "costs",
    "describe",
    "difference",
    "picture_ranks",
    "plan",
    "read_study",
    "recall",
    "recommend",
    "run",
]
