"""Exercises of notebook 02: the LoRA layer, its cost, the merge, and adapters that are dead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .programs import Mistake, Program
from .questions import Question, Wrong
from .values import Said


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


def what(value: object) -> Said:
    """What a part of a layer is, in two words."""
    if isinstance(value, nn.Parameter):
        return Said("a parameter")
    if isinstance(value, torch.Tensor):
        return Said("a plain tensor")
    if isinstance(value, nn.Module):
        return Said("a layer")
    return Said("missing" if value is None else type(value).__name__)


def use_layer(
    answer: Callable, base: nn.Linear, rank: int, alpha: float, x: torch.Tensor
) -> dict[str, object]:
    """What is asked of a LoRA layer: fresh, filled with numbers, and after a backward pass.

    Nothing in it depends on which random numbers A starts from. It ends early where what follows
    has no meaning.
    """
    plain, x = base(x).detach(), x.clone().requires_grad_()
    with uninitialised_is_nan():
        layer = answer(base, rank, alpha)
    found: dict[str, object] = {"the class": Said("an nn.Module")}
    if not isinstance(layer, nn.Module):
        return {"the class": Said("no nn.Module")}
    A, B = getattr(layer, "A", None), getattr(layer, "B", None)
    found |= {"A": what(A), "B": what(B)}
    if not (isinstance(A, nn.Parameter) and isinstance(B, nn.Parameter)):
        return found
    fresh = layer(x)
    found["`forward`"] = Said("a tensor") if isinstance(fresh, torch.Tensor) else fresh
    if not isinstance(fresh, torch.Tensor):
        return found
    trained = [p for p in layer.parameters() if p.requires_grad]
    others = [p for p in trained if p is not A and p is not B]
    found |= {
        "A and B are trained": [A.requires_grad, B.requires_grad],
        "numbers of `base` that are trained": sum(
            p.numel() for p in others if any(p is own for own in base.parameters())
        ),
        "numbers trained besides A and B": sum(p.numel() for p in others),
        "shape of A": tuple(A.shape),
        "shape of B": tuple(B.shape),
        "shape of the output": tuple(fresh.shape),
        "A and B hold a number everywhere": bool(A.isfinite().all() and B.isfinite().all()),
    }
    if fresh.shape != plain.shape:
        return found
    zeros = [not A.any(), not B.any()]
    found["zero at the start"] = Said(("neither of A and B", "one of A and B", "both")[sum(zeros)])
    if sum(zeros) == 1:  # only then has the rest of a fresh layer a meaning
        rows = B.T if zeros[0] else A
        found["rows of A, or columns of B, differ"] = len(rows.unique(dim=0)) > 1
        found["a fresh layer gives what `base` gives"] = torch.allclose(fresh, plain, atol=1e-5)
    with torch.no_grad():
        A.copy_(torch.linspace(-1, 1, A.numel()).view_as(A))
        B.copy_(torch.linspace(0.5, 2, B.numel()).view_as(B))
    output = layer(x)
    found["output minus that of `base`, A and B filled"] = output.detach() - plain
    if output.requires_grad:
        output.square().sum().backward()
    arrived = [p.grad is not None and bool(p.grad.any()) for p in (A, B)]
    found["A and B get a gradient"] = arrived
    if all(arrived):
        found["gradient of x"] = x.grad if x.grad is not None else Said("none")
    return found


def _merge(k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """W (out, in), A (rank, in), B (out, rank), α, of three sizes; a fresh adapter in run 3."""
    out, width, rank = 4 + 2 * k, 3 + 2 * k, 2 + k % 2
    B = torch.randn(out, rank) * (k != 3)
    return torch.randn(out, width), torch.randn(rank, width), B, 5.0 + k


def _shapes(k: int) -> tuple[list[tuple[int, int]], int]:
    """Layers (out, in), and a budget near a multiple of what rank 1 costs, or at it.

    The widest layer is neither the first nor the last. Run 4 can't afford rank 1, run 5 rank 70.
    """
    shapes = [(4 + k, 3), (13 + k, 5 + k), (2, 9)][: 1 + k]
    cost = sum(a + b for a, b in shapes)
    rank, rest = 3 + k, (cost - 1, 1, 0)[k % 3]
    if k == 4:
        rank, rest = 0, cost - 1
    if k == 5:
        rank = 70
    return shapes, rank * cost + rest


LAYERS = (
    "blocks.0.proj",
    "visual.head.linear",
    "text.blocks.1.out_proj",
    "visual.trunk.stages.3.blocks.0.mlp.fc1",
    "blocks.4.proj",
    "text.head",
    "visual.trunk.stages.2.blocks.1.mlp.fc2",
)


def _gradients(k: int) -> tuple[dict[str, torch.Tensor | None]]:
    """`.grad` of each A and B after the first backward pass: B zero, A random at the start.

    Two ways of being dead (never called; called, and multiplied by zero behind it) and five of
    being alive: at random, with zeros in it, of numbers that add up to zero, none of them above
    zero, and all of them very small.
    """
    alive = torch.randn(4, 2)
    kinds = [
        alive,
        None,
        torch.zeros(4, 2),
        alive * torch.tensor([[0.0], [1], [1], [1]]),
        torch.tensor([[1.0, -1], [2, -2], [-1, 1], [-2, 2]]),
        -alive.abs() * torch.tensor([[1.0], [0], [1], [1]]),
        1e-7 * alive.tanh(),
    ]
    found: dict[str, torch.Tensor | None] = {}
    for i, layer in enumerate(LAYERS[: 3 + k]):
        grad = kinds[(i + k) % len(kinds)]
        found[f"{layer}.lora_A"] = None if grad is None else torch.zeros(2, 3)
        found[f"{layer}.lora_B"] = grad
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
    remark="""
With one of the two at zero, the correction is exactly zero. The gradient of that one has the other
as a factor, and is not. LoRA takes B for it.
""",
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
            "factor rounded down",
            "`//` drops what comes after the point of α / r.",
            {"alpha / rank": "alpha // rank"},
        ),
        Mistake(
            "base not frozen",
            "More numbers are trained than those in A and B: the layer's own weights still learn.",
            {"base.requires_grad_(False)": "base.requires_grad_(True)"},
        ),
        Mistake(
            "no_grad instead of freezing",
            "Without a gradient, the weights of `base` are still parameters that count as trained. "
            "What freezes a parameter?",
            {
                "base.requires_grad_(False)": "base",
                "self.base(x) +": "torch.no_grad()(self.base)(x) +",
            },
        ),
        Mistake(
            "gradient to x cut off",
            "Frozen means that W does not change. Your layer also stops the gradient on its way to "
            "the layers before it.",
            {"self.base(x) +": "torch.no_grad()(self.base)(x) +"},
        ),
        Mistake(
            "everything frozen",
            "A and B are frozen as well. Who is left to learn?",
            {"        self.scale =": "        self.requires_grad_(False)\n        self.scale ="},
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
            "A fresh layer already differs from `base`. What must B A be before the first step?",
            {"torch.zeros(base.out_features, rank)": "torch.randn(base.out_features, rank)"},
        ),
        Mistake(
            "A zero as well",
            "A and B both start at zero. Each gets its gradient through the other: who begins?",
            {"nn.init.kaiming_uniform_(self.A, a=5**0.5)": "nn.init.zeros_(self.A)"},
        ),
        Mistake(
            "A constant",
            "All rows of A are equal. Can they ever learn different things?",
            {"nn.init.kaiming_uniform_(self.A, a=5**0.5)": "nn.init.ones_(self.A)"},
        ),
        Mistake(
            "plain tensors",
            "A and B are plain tensors: `parameters()` does not list them, so no optimizer would "
            "train them.",
            {
                "nn.Parameter(torch.empty(rank, base.in_features))": "torch.empty(rank, "
                "base.in_features)",
                "nn.Parameter(torch.zeros(base.out_features, rank))": "torch.zeros("
                "base.out_features, rank)",
            },
        ),
        Mistake(
            "layers for A and B",
            "Your A and B are layers, which hold their numbers in `weight`. Asked are two "
            "parameters of the class itself.",
            """
class MyLoRALinear(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.A = nn.Linear(base.in_features, rank, bias=False)
        self.B = nn.Linear(rank, base.out_features, bias=False)
""",
        ),
        Mistake(
            "other names",
            "Your layer has nothing under the names `A` and `B`. The check, and whoever loads the "
            "layer, looks for them there.",
            """
class MyLoRALinear(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
""",
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
            "A and B lie on their sides",
            "The product is right, and A and B are stored with their axes exchanged: A is "
            "(rank, in).",
            {
                "torch.empty(rank, base.in_features)": "torch.empty(base.in_features, rank)",
                "torch.zeros(base.out_features, rank)": "torch.zeros(rank, base.out_features)",
                "self.A.T @ self.B.T": "self.A @ self.B",
            },
        ),
        Mistake(
            "the base is left out",
            "Only the correction comes out. LoRA is added to what the frozen layer gives.",
            {"self.base(x) + ": ""},
        ),
        Mistake(
            "the base scaled, too",
            "The factor also multiplies W x + b. It belongs to the correction alone.",
            {
                "self.base(x) + self.scale * (x @ self.A.T @ self.B.T)": "self.scale * "
                "(self.base(x) + x @ self.A.T @ self.B.T)"
            },
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
            {"(x @ self.A.T @ self.B.T)": "(x @ self.A.T @ self.B.T).detach()"},
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
            8 * 384 * 1152,
            "numbers",
        ),
        Wrong(
            "the size of W",
            "That is the size of W, which is frozen.",
            384 * 1152,
            "numbers",
        ),
        Wrong(
            "the bias counted, too",
            "The layer's bias is in it as well. Is it trained?",
            8 * (384 + 1152) + 1152,
            "numbers",
        ),
        Wrong(
            "the rank for A only",
            "One of the two matrices is multiplied by the rank, and the other is not.",
            8 * 384 + 1152,
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
            8 * (384 + 1152) + 384 * 1152,
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
            "factor rounded down",
            "`//` drops what comes after the point of α / r.",
            {"alpha / rank": "alpha // rank"},
        ),
        Mistake(
            "root of the rank",
            "Your factor is α / √r, of a variant (rsLoRA). Here it is r itself.",
            {"alpha / rank": "alpha / rank**0.5"},
        ),
        Mistake(
            "the product transposed",
            "Your product is (in, out), and W is (out, in). Which of A and B acts on x first?",
            {"B @ A": "(A.T @ B.T)"},
        ),
        Mistake(
            "the rank of the product",
            "You measure the rank of B A: of a fresh adapter, with B = 0, it is 0. Asked is the "
            "rank that the shapes have.",
            {"len(A)": "torch.linalg.matrix_rank(B @ A)"},
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
            "the first rank that is too dear",
            "Your loop stops at the first rank that the budget does not allow. Which one is asked?",
            {"return budget // at_rank_1": "return budget // at_rank_1 + 1"},
        ),
        Mistake(
            "at least one",
            "Where not even rank 1 can be paid, you take it all the same.",
            {"budget // at_rank_1": "max(1, budget // at_rank_1)"},
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
            "the first layer only",
            "You count one of the layers. All of them want an adapter.",
            {"sum(out + width for out, width in layers)": "sum(layers[0])"},
        ),
        Mistake(
            "the last layer only",
            "You count one of the layers. All of them want an adapter.",
            {"sum(out + width for out, width in layers)": "sum(layers[-1])"},
        ),
        Mistake(
            "the same budget for each layer",
            "You give each layer an equal share. The rank is the same for all, the price is not.",
            """
def highest_rank(layers, budget):
    return min(budget // len(layers) // (out + width) for out, width in layers)
""",
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
            "the sum is zero",
            "+1 and −1 add up to zero, and both teach something.",
            {"not grad.any()": "grad.sum() == 0"},
        ),
        Mistake(
            "the largest is zero",
            "A gradient of negative numbers teaches as much as one of positive numbers.",
            {"not grad.any()": "grad.max() <= 0"},
        ),
        Mistake(
            "small taken for dead",
            "You name those with a small gradient, too. AdamW makes a full step of it.",
            {"not grad.any()": "grad.norm() < 1e-3"},
        ),
        Mistake(
            "None compared with zero",
            "Where no gradient came, there is None, and None has no numbers to ask.",
            {"(grad is None or not grad.any())": "(grad == 0).all()"},
        ),
        Mistake(
            "None asked for its numbers",
            "Where no gradient came, there is None, and None has no numbers to ask.",
            {"(grad is None or not grad.any())": "not grad.any()"},
        ),
        Mistake(
            "truth of a whole tensor",
            "A tensor of several numbers is neither true nor false. What do you want to know of "
            "its numbers?",
            {"(grad is None or not grad.any())": "not grad"},
        ),
        Mistake(
            "a dot left over",
            "The right ones, and each name ends with a dot.",
            {'removesuffix(".lora_B")': 'removesuffix("lora_B")'},
        ),
        Mistake(
            "the first three parts of a name",
            "Some of your names end too early: not every layer has a name of three parts.",
            {'name.removesuffix(".lora_B")': '".".join(name.split(".")[:3])'},
        ),
        Mistake(
            "letters stripped",
            "`rstrip` takes away letters, not a word. What of a layer that ends with one of them?",
            {'removesuffix(".lora_B")': 'rstrip(".lora_B")'},
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
