"""The words for local derivatives: there are some for whatever occurs, and they are true."""

from __future__ import annotations

import pytest
import torch
from recorded_steps import step_of
from torch.nn import functional as F

from mclip_helpers.gradient.derivatives import UNKNOWN, WORDS, in_words, stem

STEPS = {
    "nano, LoRA": ("nano", True),
    "nano, all of it": ("nano", False),
    "MobileCLIP2-S0, LoRA": ("MobileCLIP2-S0", True),
    "ViT-B-32, LoRA": ("ViT-B-32", True),
}


@pytest.mark.parametrize("step", STEPS)
def test_every_operation_of_a_step_has_words_of_its_own(step):
    operations = {node.operation for node in step_of(*STEPS[step]).nodes}
    assert {"AccumulateGrad", "MmBackward0", "LogSoftmaxBackward0"} <= operations
    assert not [name for name in operations if in_words(name) == UNKNOWN]


def test_an_operation_that_nobody_knows_gets_a_sentence_that_says_so():
    assert in_words("FrobnicateBackward0") == UNKNOWN
    assert "no words" in UNKNOWN
    assert UNKNOWN not in WORDS.values()


@pytest.mark.parametrize(
    "name", ["Mm", "MmBackward", "MmBackward0", "torch::autograd::MmBackward7"]
)
def test_the_number_of_the_variant_does_not_matter(name):
    assert in_words(name) == WORDS["Mm"]


def test_a_name_is_cut_at_its_end_alone():
    assert stem("CopyBackwards") == "Copy"
    assert stem("MyBackwardThing") == "MyBackwardThing"
    assert stem("MaxPool2DWithIndicesBackward0") == "MaxPool2DWithIndices"


@pytest.mark.parametrize("name", WORDS)
def test_words_are_one_short_line(name):
    assert len(WORDS[name]) < 110
    assert "\n" not in WORDS[name] and WORDS[name] == WORDS[name].strip().rstrip(".")


# ------------------------------------------------------------------------------- are they true?


def numbers(*shape: int, seed: int = 0, positive: bool = False) -> torch.Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (made.abs() + 0.1 if positive else made).requires_grad_()


X, Y, P = numbers(3, 4), numbers(3, 4, seed=1), numbers(3, 4, seed=2, positive=True)
A, B, BIAS, ROW = numbers(3, 5, seed=3), numbers(5, 4, seed=4), numbers(4, seed=5), numbers(4)
BATCH, BATCH2 = numbers(2, 3, 5, seed=6), numbers(2, 5, 4, seed=8)
RIGHT = torch.tensor([2, 0, 3])
PICK = torch.tensor([1, 1, 0])


def normalised(x: torch.Tensor, dims: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    spread = (x.var(dims, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return (x - x.mean(dims, keepdim=True)) / spread, spread


def through_norm(g, x, w, dims):
    """ "G·w less its mean and its part along x̂, ÷ σ"."""
    hat, spread = normalised(x, dims)
    gw = g * w
    along = hat * (gw * hat).mean(dims, keepdim=True)
    return (gw - gw.mean(dims, keepdim=True) - along) / spread


def one_hot(places: torch.Tensor, columns: int) -> torch.Tensor:
    return F.one_hot(places, columns).double()


def back_at(g: torch.Tensor, rows: int) -> torch.Tensor:
    """G back at the rows PICK of so many, added up."""
    return torch.stack(
        [sum((g[i] for i in range(3) if PICK[i] == r), g[0] * 0) for r in range(rows)]
    )


def slope_of_gelu(x):
    normal = torch.distributions.Normal(0.0, 1.0)
    return normal.cdf(x) + x * normal.log_prob(x).exp()


W4 = numbers(4, seed=7)
# name: (a part of its words, the result, what the words say goes out when G comes in)
TRUE = {
    "Mm": ("G·Bᵀ to the left matrix, Aᵀ·G to the right", A @ B, lambda g: [g @ B.T, A.T @ g]),
    "Addmm": (
        "G·Bᵀ to the left matrix, Aᵀ·G to the right one; to the bias the sum of G's rows",
        torch.addmm(BIAS, A, B),
        lambda g: [g.sum(0), g @ B.T, A.T @ g],
    ),
    "Bmm": (
        "G·Bᵀ to the left one, Aᵀ·G to the right",
        torch.bmm(BATCH, BATCH2),
        lambda g: [g @ BATCH2.transpose(1, 2), BATCH.transpose(1, 2) @ g],
    ),
    "Add": ("the same G to both inputs; summed", X + ROW, lambda g: [g, g.sum(0)]),
    "Sub": ("G to the left input, −G to the right", X - ROW, lambda g: [g, -g.sum(0)]),
    "Rsub": ("−G to what was taken away", 1 - X, lambda g: [-g]),
    "Mul": ("G times the other factor", X * ROW, lambda g: [g * ROW, (g * X).sum(0)]),
    "Div": ("G / b to a, and −G·a / b² to b", X / P, lambda g: [g / P, -g * X / P**2]),
    "Pow": ("G·n·xⁿ⁻¹", P**3, lambda g: [g * 3 * P**2]),
    "Exp": ("G times the result itself", X.exp(), lambda g: [g * X.exp()]),
    "Log": ("G / x", P.log(), lambda g: [g / P]),
    "Sqrt": ("G / (2·√x)", P.sqrt(), lambda g: [g / (2 * P.sqrt())]),
    "Rsqrt": ("−G / (2·x·√x)", P.rsqrt(), lambda g: [-g / (2 * P * P.sqrt())]),
    "Relu": ("G where the input was positive", X.relu(), lambda g: [g * (X > 0)]),
    "Gelu": ("Φ(x) + x·φ(x)", F.gelu(X), lambda g: [g * slope_of_gelu(X)]),
    "Silu": (
        "σ + x·σ·(1 − σ)",
        F.silu(X),
        lambda g: [g * (X.sigmoid() + X * X.sigmoid() * (1 - X.sigmoid()))],
    ),
    "Sigmoid": ("G·s·(1 − s)", X.sigmoid(), lambda g: [g * X.sigmoid() * (1 - X.sigmoid())]),
    "Tanh": ("G·(1 − t²)", X.tanh(), lambda g: [g * (1 - X.tanh() ** 2)]),
    "ClampMin": ("not below the bound", X.clamp_min(0.2), lambda g: [g * (X >= 0.2)]),
    "Clamp": ("lay within the bounds", X.clamp(-0.5, 0.5), lambda g: [g * (X.abs() <= 0.5)]),
    "Mean": ("G divided by how many", X.mean(1), lambda g: [(g / 4)[:, None].expand(3, 4)]),
    "Sum": ("the whole G of its sum", X.sum(1), lambda g: [g[:, None].expand(3, 4)]),
    "LinalgVectorNorm": (
        "G times the vector divided by its length",
        torch.linalg.vector_norm(X, dim=1),
        lambda g: [g[:, None] * X / (X**2).sum(1, keepdim=True).sqrt()],
    ),
    "Softmax": (
        "s·(G − Σ s·G)",
        X.softmax(1),
        lambda g: [X.softmax(1) * (g - (X.softmax(1) * g).sum(1, keepdim=True))],
    ),
    "LogSoftmax": (
        "G minus softmax(x) times the sum of G's row",
        X.log_softmax(1),
        lambda g: [g - X.softmax(1) * g.sum(1, keepdim=True)],
    ),
    "Logsumexp": ("G times softmax", X.logsumexp(1), lambda g: [g[:, None] * X.softmax(1)]),
    "NllLoss": (
        "−G (for a mean: ÷ the number of rows) at each row's right answer",
        F.nll_loss(X, RIGHT),
        lambda g: [-g / 3 * one_hot(RIGHT, 4)],
    ),
    "MseLoss": (
        "G·2·(x − y), for a mean ÷ how many",
        F.mse_loss(X, Y),
        lambda g: [g * 2 * (X - Y) / 12, -g * 2 * (X - Y) / 12],
    ),
    "NativeLayerNorm": (
        "G·w less its mean and its part along x̂, ÷ σ; to w and b: sums of G·x̂ and G",
        F.layer_norm(X, (4,), W4, BIAS),
        lambda g: [through_norm(g, X, W4, (1,)), (g * normalised(X, (1,))[0]).sum(0), g.sum(0)],
    ),
    "NativeBatchNorm": (
        "in training less mean and part along x̂; to w and b sums of G·x̂, G",
        F.batch_norm(X, None, None, W4, BIAS, training=True),
        lambda g: [through_norm(g, X, W4, (0,)), (g * normalised(X, (0,))[0]).sum(0), g.sum(0)],
    ),
    "View": ("the same numbers", X.view(4, 3), lambda g: [g.reshape(3, 4)]),
    "T": ("transposed", X.t(), lambda g: [g.T]),
    "Transpose": ("two axes change places", BATCH.transpose(0, 2), lambda g: [g.transpose(0, 2)]),
    "Permute": ("go back", BATCH.permute(1, 2, 0), lambda g: [g.permute(2, 0, 1)]),
    "Expand": ("the sum of G", ROW.expand(3, 4), lambda g: [g.sum(0)]),
    "Clone": ("hands G on as it is", X.clone(), lambda g: [g]),
    "Select": ("zeros everywhere else", X[1], lambda g: [torch.eye(3).double()[1][:, None] * g]),
    "Slice": ("zeros everywhere else", X[:2], lambda g: [torch.cat([g, g[:1] * 0])]),
    "Index": ("added up where picked twice", X[PICK], lambda g: [back_at(g, 3)]),
    "Embedding": (
        "added up at the table's rows that were looked up",
        F.embedding(PICK, X),
        lambda g: [back_at(g, 3)],
    ),
    "Cat": ("cut into the pieces", torch.cat([X, Y]), lambda g: [g[:3], g[3:]]),
    "Maximum": ("to the larger", torch.maximum(X, Y), lambda g: [g * (X > Y), g * (Y > X)]),
}


@pytest.mark.parametrize("name", TRUE)
def test_the_words_are_true_by_number(name):
    words, result, claimed = TRUE[name]
    assert stem(result.grad_fn.name()) == name
    assert words in in_words(result.grad_fn.name())
    g = numbers(*result.shape, seed=9).detach()
    # (Summing what was repeated is left to the engine: calling the node alone would not do it.)
    leaves = [behind.variable for behind, _ in result.grad_fn.next_functions if behind]
    gradients = torch.autograd.grad(result, leaves, g, retain_graph=True)
    for is_so, says in zip(gradients, claimed(g), strict=True):
        torch.testing.assert_close(is_so, says, rtol=1e-6, atol=1e-9)


def test_the_words_for_a_convolution_are_true_by_number():
    image, kernel = numbers(1, 2, 6, 6), numbers(3, 2, 3, 3, seed=1)
    result = F.conv2d(image, kernel)
    g = numbers(*result.shape, seed=2).detach()
    to_image, to_kernel, _ = result.grad_fn(g)
    spread, weighed = torch.zeros_like(image), torch.zeros_like(kernel)
    for y in range(4):
        for x in range(4):
            for channel in range(3):
                each = g[0, channel, y, x]
                spread[0, :, y : y + 3, x : x + 3] += each * kernel[channel]
                weighed[channel] += each * image[0, :, y : y + 3, x : x + 3]
    assert "to the input G spread by the kernel" in WORDS["Convolution"]
    assert "to the kernel G times the patches it saw" in WORDS["Convolution"]
    torch.testing.assert_close(to_image, spread)
    torch.testing.assert_close(to_kernel, weighed)


def test_the_words_for_batch_norm_are_true_when_it_is_not_training():
    mean, variance = numbers(4, seed=1).detach(), numbers(4, seed=2, positive=True).detach()
    result = F.batch_norm(X, mean, variance, W4, BIAS, training=False)
    g = numbers(3, 4, seed=9).detach()
    assert WORDS["NativeBatchNorm"].startswith("G·w ÷ σ, in training less")
    torch.testing.assert_close(result.grad_fn(g)[0], g * W4 / (variance + 1e-5).sqrt())


def test_the_words_for_attention_are_true_by_number():
    q, k, v = (numbers(1, 2, 4, 8, seed=seed) for seed in range(3))
    result = F.scaled_dot_product_attention(q, k, v)
    assert in_words(result.grad_fn.name()) == WORDS["ScaledDotProduct"]
    g = numbers(*result.shape, seed=9).detach()
    scale = 8**-0.5
    weights = (q @ k.transpose(2, 3) * scale).softmax(3)
    back = g @ v.transpose(2, 3)
    through = weights * (back - (weights * back).sum(3, keepdim=True)) * scale
    expected = through @ k, through.transpose(2, 3) @ q, weights.transpose(2, 3) @ g
    for is_so, says in zip(torch.autograd.grad(result, (q, k, v), g), expected, strict=True):
        torch.testing.assert_close(is_so, says)
