"""Follow the gradient: record one training step, and ask what its backward pass did.

While the step runs: `recorder` (the `with` block), `inventory` (names), `calls` (the forward pass),
`backward` (the backward pass), `kept` (saved tensors), `norms`. Then: `build` makes a graph of it,
with `explain` for what did not arrive. What is left is data: `nodes`, `verdicts`, `saved`. What can
be asked: `paths`, `groups` and `dark`, `scenes`, and of two recordings `diff`; `graph` has all of
it in one place. Values that stand for a judgement are in `reasons` and `kinds`, and their words in
`words` and `derivatives`.
"""

from .boxes import Collapsed, DarkGroup, Group, LeafGroup, OperationGroup
from .current import gradients
from .derivatives import in_words
from .diff import GradientDiff, gradient_diff
from .graph import Graph
from .groups import Norms
from .kinds import LEVELS, Darkness, Kind, Level, Scene
from .nodes import LEAF, BackwardGraph, Call, Node, Visit
from .paths import Path
from .reasons import Cause, Reason, Verdict
from .recorder import trace
from .saved import Saved
from .scenes import Frame, Frames
from .verdicts import Gradient, Gradients

__all__ = [
    "LEAF",
    "LEVELS",
    "BackwardGraph",
    "Call",
    "Cause",
    "Collapsed",
    "DarkGroup",
    "Darkness",
    "Frame",
    "Frames",
    "Gradient",
    "GradientDiff",
    "Gradients",
    "Graph",
    "Group",
    "Kind",
    "LeafGroup",
    "Level",
    "Node",
    "Norms",
    "OperationGroup",
    "Path",
    "Reason",
    "Saved",
    "Scene",
    "Verdict",
    "Visit",
    "gradient_diff",
    "gradients",
    "in_words",
    "trace",
]
