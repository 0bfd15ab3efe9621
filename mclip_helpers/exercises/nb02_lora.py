"""Exercises of notebook 02: the LoRA layer, its cost, the merge, and adapters that are dead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .programs import Mistake, Program
from .questions import Question, Wrong


def _layer(k: int) -> tuple[nn.Linear, int, float, torch.Tensor]:
    """A layer with a bias, a rank, α, and inputs; widths, rank and α all differ."""
    layer = nn.Linear(3 + k, 5 + k)
    return layer, 2 + k % 2, 3.0 + k, torch.randn(4, 3 + k)


@contextmanager
def uninitialised_is_nan() -> Iterator[None]:
    """A block in which `torch.empty` holds NaN, and not what happened to be in memory."""
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was)


def use_layer(
    answer: Callable, base: nn.Linear, rank: int, alpha: float, x: torch.Tensor
) -> dict[str, object]:
    """What is asked of a LoRA layer: fresh, filled with numbers, and after a backward pass."""
    plain = base(x).detach()
    with uninitialised_is_nan():
        layer = answer(base, rank, alpha)
    trained = [p for p in layer.parameters() if p.requires_grad]
    fresh = layer(x)
    if fresh is None:
        return {"fresh output": None}
    found: dict[str, object] = {
        "numbers that are trained": sum(p.numel() for p in trained),
        "shape of A": tuple(layer.A.shape),
        "shape of B": tuple(layer.B.shape),
        "fresh output minus that of the layer": fresh - plain,
        "A is all zeros": not layer.A.any(),
        "A has a number everywhere": bool(layer.A.isfinite().all()),
    }
    with torch.no_grad():
        layer.A.copy_(torch.linspace(-1, 1, layer.A.numel()).view_as(layer.A))
        layer.B.copy_(torch.linspace(0.5, 2, layer.B.numel()).view_as(layer.B))
    output = layer(x)
    output.square().sum().backward()
    grads = [p.grad for p in (layer.A, layer.B)]
    found["output minus that of the layer, A and B filled"] = output.detach() - plain
    found["A and B get a gradient"] = [g is not None and bool(g.any()) for g in grads]
    return found


def _merge(k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """W (out, in), A (rank, in), B (out, rank), α; square and with rank 2 in the first run."""
    out, width, rank = 3 + k, 3 + k // 2, 2 + k % 2
    return torch.randn(out, width), torch.randn(rank, width), torch.randn(out, rank), 5.0 + k


def _shapes(k: int) -> tuple[list[tuple[int, int]], int]:
    """Layers (out, in), and a budget near a multiple of what rank 1 costs, or at it."""
    shapes = [(4 + k, 3), (2, 6), (3 + k, 5 + k)][: 1 + k]
    cost = sum(a + b for a, b in shapes)
    return shapes, (3 + k) * cost + (cost - 1, 1, 0)[k % 3]


def _gradients(k: int) -> tuple[dict[str, torch.Tensor | None]]:
    """`.grad` of each A and B after the first backward pass: B zero, A random at the start."""
    found: dict[str, torch.Tensor | None] = {}
    for i in range(3 + k):
        layer = f"blocks.{i}.proj"
        kind = (i + k) % 4
        grad_a: torch.Tensor | None = torch.zeros(2, 3)
        grad_b: torch.Tensor | None = torch.randn(4, 2)
        if kind == 1:  # never called
            grad_a = grad_b = None
        if kind == 2:  # called, and multiplied by zero behind it
            grad_b = torch.zeros(4, 2)
        if kind == 3:  # alive, with zeros in it (a dead unit behind it)
            assert grad_b is not None
            grad_b[0] = 0
        found[f"{layer}.lora_A"], found[f"{layer}.lora_B"] = grad_a, grad_b
    return (found,)


LAYER = Program(
    id="02.1",
    title="The LoRA layer",
    difficulty=2,
    minutes=15,
    asks="""
Write LoRA for one Linear layer. A is (rank, in), B is (out, rank), and both are parameters of the
class, under these names. A fresh layer gives exactly the output of `base`, and still can learn. The
weights of `base` are frozen.
""",
    stub='''
class MyLoRALinear(nn.Module):
    """W x + b, frozen, plus (alpha / rank) · B A x, trained."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        ...  # your lines here

    def forward(self, x: torch.Tensor) -> torch.Tensor: ...  # your line here
''',
    solved='''
class MyLoRALinear(nn.Module):
    """W x + b, frozen, plus (alpha / rank) · B A x, trained."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(rank, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)
        self.scale = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)
''',
    inputs=_layer,
    use=use_layer,
    hint_text="""
Rows of x are inputs, so A x is `x @ A.T`. Exactly one of A and B starts with zeros: which one
leaves
the other a gradient to begin with? Either would; LoRA takes B.
""",
    remark="With B = 0 the correction is exactly zero. The gradient of B has A in it, and is not.",
    mistakes=(
        Mistake(
            "no α / rank",
            "The correction is there, and its factor is missing: α / r stands in front of B A.",
            {"self.scale * (x": "(x", "self.B.T)": "self.B.T)"},
        ),
        Mistake(
            "factor upside down",
            "Your factor is rank / α. A larger α should make the correction larger.",
            {"alpha / rank": "rank / alpha"},
        ),
        Mistake(
            "α without the rank",
            "Your factor is α alone. What is it divided by, so that a higher rank is no louder?",
            {"alpha / rank": "alpha"},
        ),
        Mistake(
            "base not frozen",
            "More numbers are trained than those in A and B: the layer's own weights still learn.",
            {"base.requires_grad_(False)": "base.requires_grad_(True)"},
        ),
        Mistake(
            "bias not frozen",
            "More numbers are trained than those in A and B: the layer also has a bias.",
            {
                "self.base = base.requires_grad_(False)": "self.base = base\n"
                "        base.weight.requires_grad_(False)"
            },
        ),
        Mistake(
            "B random as well",
            "A fresh layer already changes the output: one of the two has to start at zero.",
            {"torch.zeros(base.out_features, rank)": "torch.randn(base.out_features, rank)"},
        ),
        Mistake(
            "A zero as well",
            "A and B both start at zero. Each gets its gradient through the other: who begins?",
            {"nn.init.kaiming_uniform_(self.A, a=5**0.5)": "nn.init.zeros_(self.A)"},
        ),
        Mistake(
            "A never filled",
            "`torch.empty` only reserves memory: what is in there is whatever was there before. "
            "Who fills A?",
            {"        nn.init.kaiming_uniform_(self.A, a=5**0.5)\n": ""},
        ),
        Mistake(
            "A and B exchanged",
            "A and B have each other's shape: A takes the layer's inputs, B gives its outputs.",
            {
                "self.A = nn.Parameter(torch.empty(rank, base.in_features))": "self.A = "
                "nn.Parameter(torch.empty(base.out_features, rank))",
                "self.B = nn.Parameter(torch.zeros(base.out_features, rank))": "self.B = "
                "nn.Parameter(torch.zeros(rank, base.in_features))",
                "self.A.T @ self.B.T": "self.B.T @ self.A.T",
            },
        ),
        Mistake(
            "the base is left out",
            "Only the correction comes out. LoRA is added to what the frozen layer gives.",
            {"self.base(x) + ": ""},
        ),
        Mistake(
            "bias left out",
            "The frozen part is W x alone: the layer's bias is gone.",
            {"self.base(x)": "x @ self.base.weight.T"},
        ),
        Mistake(
            "the correction of the layer's output",
            "Your correction starts from what the layer gives, not from its input x.",
            """
class MyLoRALinear(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(rank, base.out_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scale = alpha / rank

    def forward(self, x):
        y = self.base(x)
        return y + self.scale * (y @ self.A.T @ self.B.T)
""",
        ),
        Mistake(
            "product detached",
            "The numbers are right, but A and B get no gradient: something cuts the graph.",
            {"(x @ self.A.T @ self.B.T)": "(x @ self.A.T @ self.B.T).detach() + 0 * self.A.sum()"},
        ),
    ),
)

ON_PAPER = Question(
    id="02.2",
    title="On paper",
    difficulty=1,
    minutes=3,
    asks="""
Somebody puts LoRA with rank 8 and α = 32 on a layer with 384 inputs and 1,152 outputs. How many
numbers are trained, and what is the factor in front of B A?
""",
    stub='answer = {"numbers": None, "factor": None}',
    right={"numbers": 8 * (384 + 1152), "factor": 32 / 8},
    hint_text="Section 1 counts by hand, and its first formula has the factor.",
    remark="12,288 numbers instead of 442,368.",
    mistakes=(
        Wrong(
            "r · in · out",
            "That is r · in · out. A and B are two separate thin matrices.",
            8 * 388 * 1152,
            "numbers",
        ),
        Wrong(
            "the size of W",
            "That is the size of W, which is frozen.",
            388 * 1152,
            "numbers",
        ),
        Wrong("only A", "That is A alone. How large is B?", 8 * 384, "numbers"),
        Wrong("only B", "That is B alone. How large is A?", 8 * 1152, "numbers"),
        Wrong(
            "the rank forgotten",
            "That is one row of A and one column of B. How many are there of each?",
            384 + 1152,
            "numbers",
        ),
        Wrong(
            "W counted, too",
            "W is in it as well, and W is frozen.",
            8 * (384 + 1152) + 388 * 1152,
            "numbers",
        ),
        Wrong("factor upside down", "That is r / α.", 8 / 32, "factor"),
        Wrong("α alone", "That is α. It is divided by something.", 32, "factor"),
        Wrong("α · r", "That is α times r. The rank divides.", 256, "factor"),
        Wrong(
            "root of the rank",
            "That is α / √r, of a variant (rsLoRA). Here it is r itself.",
            32 / 8**0.5,
            "factor",
        ),
    ),
)

MERGE = Program(
    id="02.3",
    title="Merge it away",
    difficulty=2,
    minutes=8,
    asks="""
Return the one weight matrix with which a plain Linear layer does what W, A and B do together. W
stays
as it is. The rank is in the shapes.
""",
    stub='''
def merge(W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    """The merged weight (out, in) of W (out, in), A (rank, in) and B (out, rank)."""
    ...  # your line here
''',
    solved='''
def merge(W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    """The merged weight (out, in) of W (out, in), A (rank, in) and B (out, rank)."""
    rank = len(A)
    return W + alpha / rank * B @ A
''',
    inputs=_merge,
    hint_text="W x + (α/r) B (A x) = (W + ?) x. Matrix products can be regrouped.",
    mistakes=(
        Mistake(
            "no α / rank",
            "The product is added, and its factor is missing.",
            {"alpha / rank * B @ A": "B @ A"},
        ),
        Mistake(
            "α without the rank",
            "Your factor is α alone. In the layer it was divided by something.",
            {"alpha / rank": "alpha"},
        ),
        Mistake(
            "factor upside down",
            "Your factor is the layer's upside down.",
            {"alpha / rank": "rank / alpha"},
        ),
        Mistake(
            "rank taken from the wrong side",
            "You divide by the number of outputs or inputs. Which side of A is the rank?",
            {"len(A)": "len(B)"},
        ),
        Mistake(
            "rank taken from A's other side",
            "You divide by the number of inputs. Which side of A is the rank?",
            {"len(A)": "A.shape[1]"},
        ),
        Mistake(
            "subtracted",
            "This takes the adapter's effect away from W: it is how one *un*merges.",
            {"W + alpha": "W - alpha"},
        ),
        Mistake(
            "only the correction",
            "This is ΔW alone. The merged layer also has to do what W did.",
            {"W + alpha": "alpha"},
        ),
        Mistake(
            "W changed in place",
            "The result is right, but W itself has changed: merged twice, the adapter would count "
            "twice.",
            {"return W + alpha / rank * B @ A": "W += alpha / rank * B @ A\n    return W"},
        ),
        Mistake(
            "W scaled, too",
            "The factor also multiplies W. It belongs to the correction alone.",
            {"W + alpha / rank * B @ A": "alpha / rank * (W + B @ A)"},
        ),
        Mistake(
            "added twice",
            "The correction is in it twice. (PEFT's adapter for attention does this to `out_proj`: "
            "the appendix.)",
            {"* B @ A": "* 2 * B @ A"},
        ),
    ),
)

BUDGET = Program(
    id="02.4",
    title="On a budget",
    difficulty=2,
    minutes=8,
    asks="""
You may train at most `budget` numbers, and want an adapter of the same rank on each of these
layers.
Return the highest rank that the budget allows.
""",
    stub='''
def highest_rank(layers: list[tuple[int, int]], budget: int) -> int:
    """The highest rank for layers (out, in) that trains at most `budget` numbers."""
    ...  # your lines here
''',
    solved='''
def highest_rank(layers: list[tuple[int, int]], budget: int) -> int:
    """The highest rank for layers (out, in) that trains at most `budget` numbers."""
    at_rank_1 = sum(out + width for out, width in layers)
    return budget // at_rank_1
''',
    inputs=_shapes,
    hint_text="The number of parameters is proportional to the rank. Count once, at rank 1.",
    remark="""
For the same price you get many adapters of low rank, or few of high rank. Which is better is a
question for the validation split.
""",
    mistakes=(
        Mistake(
            "rounded up",
            "One more than the budget allows: a part of a rank can't be bought.",
            {"budget // at_rank_1": "-(-budget // at_rank_1)"},
        ),
        Mistake(
            "rounded to the nearest",
            "Where the budget nearly reaches the next rank, you take it, and spend too much.",
            {"budget // at_rank_1": "round(budget / at_rank_1)"},
        ),
        Mistake(
            "not rounded",
            "A rank is a whole number.",
            {"budget // at_rank_1": "budget / at_rank_1"},
        ),
        Mistake(
            "in · out",
            "You count r · in · out for each layer: that is W's size, times r.",
            {"out + width": "out * width"},
        ),
        Mistake(
            "only A",
            "You count the inputs only: that is A. How large is B?",
            {"out + width": "width"},
        ),
        Mistake(
            "only B",
            "You count the outputs only: that is B. How large is A?",
            {"out + width": "out"},
        ),
        Mistake(
            "budget for each layer",
            "You spend the whole budget on the widest layer. All of them share it.",
            {"sum(": "max("},
        ),
        Mistake(
            "one too low",
            "There is room for one more: a rank may use up the budget to the last number.",
            {"budget // at_rank_1": "(budget - 1) // at_rank_1"},
        ),
        Mistake(
            "mean of the layers",
            "You count an average layer. Each of them wants its numbers.",
            {"budget // at_rank_1": "budget * len(layers) // at_rank_1"},
        ),
    ),
)

DEAD = Program(
    id="02.5",
    title="Find the dead adapter",
    difficulty=3,
    minutes=12,
    asks="""
A fresh model (each A random, each B zero) has made its first backward pass. You get each `.grad`
under its parameter's name, "blocks.3.proj.lora_A" or "….lora_B". Return the layers whose adapter is
dead: nothing that it would need to learn has arrived.
""",
    stub='''
def dead_layers(grads: dict[str, torch.Tensor | None]) -> set[str]:
    """The names of layers ("blocks.3.proj") whose adapter can't learn."""
    ...  # your lines here
''',
    solved='''
def dead_layers(grads: dict[str, torch.Tensor | None]) -> set[str]:
    """The names of layers ("blocks.3.proj") whose adapter can't learn."""
    dead = set()
    for name, grad in grads.items():
        if name.endswith(".lora_B") and (grad is None or not grad.any()):
            dead.add(name.removesuffix(".lora_B"))
    return dead
''',
    inputs=_gradients,
    rounds=6,
    hint_text="""
Which of A and B is *expected* to have a gradient of zero at the first step? Look at the other one.
None and zeros are two different things, and both are bad there.
""",
    remark="""
`mh.gradients(model)` gives these verdicts for a whole model. Ask it before every long training.
""",
    mistakes=(
        Mistake(
            "A's zeros taken for death",
            "You name every adapter whose A has no gradient: at the first step that is all of "
            "them. Why?",
            {"_B": "_A"},
        ),
        Mistake(
            "only None",
            "A gradient that is there and all zeros teaches nothing, either.",
            {"(grad is None or not grad.any())": "grad is None"},
        ),
        Mistake(
            "only zeros",
            "You leave out those to which no gradient came at all: None.",
            {"(grad is None or not grad.any())": "grad is not None and not grad.any()"},
        ),
        Mistake(
            "a single zero is enough",
            "You name those that have *some* zero in their gradient. Who still learns?",
            {"not grad.any()": "not grad.all()"},
        ),
        Mistake(
            "the living ones",
            "These are the ones that learn.",
            {
                "(grad is None or not grad.any())": "grad is not None and grad.any()",
            },
        ),
        Mistake(
            "names of parameters",
            "The right ones, by the names of their parameters. Asked are the layers.",
            {'name.removesuffix(".lora_B")': "name"},
        ),
    ),
)

BEGINNINGS = Question(
    id="02.6",
    title="Why not zero for both?",
    difficulty=2,
    minutes=6,
    asks="""
LoRA starts with A random and B zero. Somebody starts otherwise and trains for 40 steps. What
happens
to the loss? You can try it with `train_layer` of section 1.
""",
    stub='answer = {"both zero": "?", "both random": "?", "A zero, B random": "?"}',
    right={
        "both zero": "never moves",
        "both random": "starts worse",
        "A zero, B random": "falls as usual",
    },
    choices={
        "falls as usual": "it starts at the loss of the unchanged model, and falls",
        "never moves": "it stays at the loss of the unchanged model",
        "starts worse": "it starts above the loss of the unchanged model, and falls from there",
        "explodes": "it grows without limit",
    },
    hint_text="∂L/∂B has A as a factor, and ∂L/∂A has B. Put the zeros in.",
    remark="""
With exactly one of them at zero, training starts from the original model *and* can change it.
""",
    mistakes=(
        Wrong(
            "zeros thought to learn",
            "The gradient of A has B as a factor, and that of B has A. Which of them begins?",
            "falls as usual",
            "both zero",
        ),
        Wrong(
            "zeros thought to damage",
            "With both at zero, what is B A?",
            "starts worse",
            "both zero",
        ),
        Wrong(
            "random thought to be free",
            "With both random, what is B A before the first step?",
            "falls as usual",
            "both random",
        ),
        Wrong(
            "random thought to be stuck",
            "With both random, is any factor of the two gradients zero?",
            "never moves",
            "both random",
        ),
        Wrong(
            "random thought to explode",
            "A damaged model has a finite loss, and gradients that mend it.",
            "explodes",
            "both random",
        ),
        Wrong(
            "exchanged thought to be stuck",
            "A is zero, so B gets no gradient yet. And A, whose gradient has B in it?",
            "never moves",
            "A zero, B random",
        ),
        Wrong(
            "exchanged thought to damage",
            "B is random and A is zero: what is B A?",
            "starts worse",
            "A zero, B random",
        ),
    ),
)

EXERCISES = (LAYER, ON_PAPER, MERGE, BUDGET, DEAD, BEGINNINGS)
