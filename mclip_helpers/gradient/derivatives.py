"""What each operation of a backward pass does with the gradient that comes to it, in words.

G is the gradient that comes in; it has the shape of the operation's result. What goes out to an
input has the shape of that input. In normalisations x̂ is the normalised input, σ its spread, w the
weight and b the bias; σ( ) is the sigmoid, φ and Φ are the bell curve and the area under it.
"""

from __future__ import annotations

import re

UNKNOWN = "its own rule, which has no words here: G times its local derivative, for each input"

# Without "Backward" and the number behind it, which counts the operation's variants.
WORDS = {
    # ---- the end of the way
    "AccumulateGrad": "adds what arrives to the tensor's .grad: here the way ends",
    "CheckpointFunction": "runs its piece of the forward pass once more, then that piece backwards",
    # ---- products of matrices
    "Mm": "two products, one to each input: G·Bᵀ to the left matrix, Aᵀ·G to the right one",
    "Bmm": "for each pair of matrices two products: G·Bᵀ to the left one, Aᵀ·G to the right one",
    "Addmm": "G·Bᵀ to the left matrix, Aᵀ·G to the right one; to the bias the sum of G's rows",
    "Baddbmm": "for each pair G·Bᵀ to the left, Aᵀ·G to the right; to what was added, G itself",
    "Mv": "to the matrix the outer product of G and the vector; to the vector Aᵀ·G",
    "Dot": "to each vector: the other one, times G (which is one number)",
    "Convolution": "to the input G spread by the kernel; to the kernel G times the patches it saw",
    "ScaledDotProduct": "to V: weightsᵀ·G; G·Vᵀ goes back through the softmax, then to Q and to K",
    # ---- number by number
    "Add": "hands the same G to both inputs; summed where one was repeated to fit",
    "Sub": "G to the left input, −G to the right one; summed where one was repeated to fit",
    "Rsub": "−G to what was taken away, G to what it was taken from",
    "Neg": "−G",
    "Mul": "to each factor: G times the other factor; summed where one was repeated to fit",
    "Div": "of a / b: G / b to a, and −G·a / b² to b; summed where one was repeated to fit",
    "Pow": "of xⁿ: G·n·xⁿ⁻¹ to x",
    "Exp": "G times the result itself: eˣ is its own derivative",
    "Log": "G / x",
    "Sqrt": "G / (2·√x)",
    "Rsqrt": "of 1/√x: −G / (2·x·√x)",
    "Abs": "G times the sign of x",
    "Relu": "G where the input was positive, zero elsewhere",
    "Gelu": "G times the slope of the GELU curve at the input: Φ(x) + x·φ(x)",
    "Silu": "of x·σ(x): G times the slope σ + x·σ·(1 − σ)",
    "Sigmoid": "G·s·(1 − s), where s is the result",
    "Tanh": "G·(1 − t²), where t is the result",
    "Clamp": "G where the input lay within the bounds, zero where it was cut off",
    "ClampMin": "G where the input was not below the bound, zero where the bound took its place",
    "ClampMax": "G where the input was not above the bound, zero where the bound took its place",
    "Where": "G to the input that was chosen at each place, zero to the other one there",
    "MaskedFill": "G where the input stayed, zero where it was filled over",
    "NativeDropout": "zero where the input was dropped; elsewhere G, scaled up as the input was",
    # ---- sums, means, lengths, probabilities
    "Sum": "each number that was added up gets the whole G of its sum",
    "Mean": "each number that was averaged gets the same share: G divided by how many they were",
    "Var": "G·2·(x − mean) / (n − 1), or / n, as the variance was defined",
    "Max": "G to the place of the largest number, zero to all others",
    "Min": "G to the place of the smallest number, zero to all others",
    "Amax": "G to the place of the largest number, shared if several are; zero to all others",
    "Amin": "G to the place of the smallest number, shared if several are; zero to all others",
    "Maximum": "G to the larger one of the two at each place, half to each where they are equal",
    "Minimum": "G to the smaller one of the two at each place, half to each where they are equal",
    "LinalgVectorNorm": "G times the vector divided by its length: straight away from the origin",
    "Softmax": "s·(G − Σ s·G), where s is the result, and the sum runs over the same row",
    "LogSoftmax": "G minus softmax(x) times the sum of G's row",
    "Logsumexp": "G times softmax(x)",
    "NllLoss": "−G (for a mean: ÷ the number of rows) at each row's right answer, zero elsewhere",
    "NllLoss2D": "−G (for a mean: ÷ the number of rows) at each row's right answer, zero elsewhere",
    "MseLoss": "G·2·(x − y), for a mean ÷ how many there are; to y the same with a minus",
    "BinaryCrossEntropyWithLogits": "G·(σ(x) − y), for a mean ÷ how many there are",
    # ---- normalisations
    "NativeLayerNorm": "G·w less its mean and its part along x̂, ÷ σ; to w and b: sums of G·x̂ and G",
    "NativeBatchNorm": "G·w ÷ σ, in training less mean and part along x̂; to w and b sums of G·x̂, G",
    "NativeGroupNorm": "G·w less its mean and its part along x̂, ÷ σ; to w and b: sums of G·x̂ and G",
    # ---- the same numbers in another place
    "View": "the same numbers, put back into the shape of the input",
    "T": "G transposed: rows and columns change places again",
    "Transpose": "the same numbers; the two axes change places again",
    "Permute": "the same numbers; all axes go back to where they were",
    "Expand": "the input was repeated: it gets the sum of G over all its copies",
    "Repeat": "the input was repeated: it gets the sum of G over all its copies",
    "Clone": "hands G on as it is",
    "ToCopy": "hands G on, in the input's own number format and on its own device",
    "Copy": "G to the tensor that was copied; zero to what it took the place of",
    "CopySlices": "G as it is around the part written to; in it, what the writing step makes of G",
    "Unbind": "the pieces' gradients, stacked as the pieces lay; zeros for a piece without one",
    "Split": "the pieces' gradients, side by side as the pieces lay; zeros for one without any",
    "Cat": "G, cut into the pieces that were put side by side",
    "Stack": "G, cut into the pieces that were stacked",
    "Select": "G back at the place that was picked, zeros everywhere else",
    "Slice": "G back at the places that were cut out, zeros everywhere else",
    "Index": "G back at the places that were picked, added up where picked twice; elsewhere zero",
    "Gather": "G back at the places that were picked, added up where picked twice; elsewhere zero",
    "Embedding": "G's rows, added up at the table's rows that were looked up; zero in all others",
    "AsStrided": "G back at the places in memory that were read, added up where one was read twice",
    "ConstantPadNd": "G without its border: the padding needs none",
    # ---- pictures
    "AvgPool2D": "each place of a window gets the same share of the window's G",
    "MaxPool2DWithIndices": "G to the place of each window's largest number, zero to the others",
}

# Different programs for the same derivative.
_SAME = {
    "View": ("UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Alias", "Reshape", "Flatten"),
    "Select": ("SelectCopy",),
    "Index": ("IndexSelect",),
    "Split": ("SplitWithSizes", "Chunk"),
    "AvgPool2D": ("AdaptiveAvgPool2D",),
    "NativeBatchNorm": ("CudnnBatchNorm", "MiopenBatchNorm"),
    "Convolution": ("CudnnConvolution", "MiopenConvolution", "MkldnnConvolution"),
    "ScaledDotProduct": (
        "ScaledDotProductFlashAttention",
        "ScaledDotProductFlashAttentionForCpu",
        "ScaledDotProductEfficientAttention",
        "ScaledDotProductCudnnAttention",
        "ScaledDotProductFusedAttentionOverrideable",
    ),
}
WORDS |= {name: WORDS[word] for word, names in _SAME.items() for name in names}


def stem(operation: str) -> str:
    """Its name without what all of them have: "torch::autograd::MmBackward0" → "Mm"."""
    return re.sub(r"Backwards?\d*$", "", operation.rpartition("::")[2])


def in_words(operation: str) -> str:
    """What the operation does with the gradient that comes to it, for a reader of school calculus.

    `operation` is a name as autograd gives it: "MmBackward0". One that is not known gets a sentence
    that says so (`UNKNOWN`).
    """
    return WORDS.get(stem(operation), UNKNOWN)
