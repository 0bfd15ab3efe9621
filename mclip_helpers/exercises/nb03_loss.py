"""Exercises of notebook 03: the contrastive loss and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.overrides import TorchFunctionMode

from .programs import Mistake, Program, RefusedError
from .questions import Question, Wrong


def _pairs(k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of 2 + k pairs that are not of length 1, and θ, all of which want a gradient."""
    n = 2 + k
    images = 3 * torch.randn(n, 4)
    texts = images + torch.randn(n, 4)
    log_scale = torch.tensor(0.4 + 0.3 * k)
    return images.requires_grad_(), texts.requires_grad_(), log_scale.requires_grad_()


def _scores(k: int) -> tuple[torch.Tensor]:
    """Scores (N, N); from the fourth run on so large that exp overflows."""
    return ((torch.randn(2 + k, 2 + k) * (1.0 if k < 3 else 200.0)).requires_grad_(),)


class _WithoutSoftmax(TorchFunctionMode):
    """A block in which PyTorch's own softmax, its logarithm and its sum are refused.

    What is called counts, not what is written: a learner's helper may have any name.
    """

    def __torch_function__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        name = getattr(func, "__name__", "")
        if any(part in name for part in ("softmax", "cross_entropy", "nll_loss", "logsumexp")):
            raise RefusedError(name)
        return func(*args, **(kwargs or {}))


def use_without_softmax(answer: Callable, z: torch.Tensor) -> object:
    """The result of the answer, which has to do without PyTorch's softmax."""
    with _WithoutSoftmax():
        return answer(z)


def _gradient_of(z: torch.Tensor) -> torch.Tensor:
    return ((z.softmax(1) + z.softmax(0)) / 2 - torch.eye(len(z))) / len(z)


def _scores_and_gradient(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    z = 3 * torch.randn(2 + k, 2 + k)
    return z, _gradient_of(z)


def _scores_and_groups(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (N, N) and the number of each pair's group.

    From the fifth run on the scores have CLIP's size: spread out, and then all of them so low that
    a twin with any score of that size would still be a choice.
    """
    n = 3 + k
    groups = torch.arange(n)
    groups[1 + k // 2] = groups[0]  # one pair of twins, and more of them later
    if k > 3:
        groups[2] = groups[0]
    z = torch.randn(n, n)
    if k == 4:
        z = 15 * z
    elif k > 4:
        z = 4 * torch.rand(n, n) - 100
    return z.requires_grad_(), groups


FROM_FEATURES = Program(
    id="03.1",
    title="The loss, from raw features",
    difficulty=2,
    minutes=10,
    asks="""
Write the contrastive loss of N pairs from what the towers give: features that are not of length
1, and θ, the logarithm of the multiplier, as CLIP's models store it. The result is one number,
through which gradients flow to all three.
""",
    stub='''
def my_contrastive_loss(
    image_features: torch.Tensor, text_features: torch.Tensor, log_scale: torch.Tensor
) -> torch.Tensor:
    """The loss of pairs (N, D) and (N, D); row i of one belongs to row i of the other."""
    ...  # your lines here
''',
    solved='''
def my_contrastive_loss(
    image_features: torch.Tensor, text_features: torch.Tensor, log_scale: torch.Tensor
) -> torch.Tensor:
    """The loss of pairs (N, D) and (N, D); row i of one belongs to row i of the other."""
    u = image_features / image_features.norm(dim=1, keepdim=True)
    v = text_features / text_features.norm(dim=1, keepdim=True)
    logits = log_scale.exp() * u @ v.T
    labels = torch.arange(len(logits))
    loss_img = F.cross_entropy(logits, labels)
    loss_txt = F.cross_entropy(logits.T, labels)
    return (loss_img + loss_txt) / 2
''',
    without=("contrastive_loss", "ClipLoss"),
    inputs=_pairs,
    hint_text="Sections 2, 3, 4 and 7 have one line each: lengths, scores, labels, two directions.",
    remark="""
Nothing in these lines knows of pictures or of text: they train any two networks whose outputs
belong together row by row.
""",
    mistakes=(
        Mistake(
            "no normalising",
            "The features go into the product with the lengths that they came with. What should "
            "count of a vector: its length, or only its direction?",
            {
                "image_features / image_features.norm(dim=1, keepdim=True)": "image_features",
                "text_features / text_features.norm(dim=1, keepdim=True)": "text_features",
            },
        ),
        Mistake(
            "only the pictures normalised",
            "One of the two sides still has its own lengths.",
            {"text_features / text_features.norm(dim=1, keepdim=True)": "text_features"},
        ),
        Mistake(
            "only the captions normalised",
            "One of the two sides still has its own lengths.",
            {"image_features / image_features.norm(dim=1, keepdim=True)": "image_features"},
        ),
        Mistake(
            "normalised along the wrong axis",
            "What has length 1 now are columns: one number of all pictures. Which axis runs along "
            "the numbers of one picture?",
            {"norm(dim=1": "norm(dim=0"},
        ),
        Mistake(
            "one length for the whole matrix",
            "You divide by a single number, the length of the whole matrix. Each row has a length "
            "of its own.",
            {"norm(dim=1, keepdim=True)": "norm()"},
        ),
        Mistake(
            "scale not exponentiated",
            "θ itself multiplies your cosines. What is stored in θ: the multiplier, or its "
            "logarithm?",
            {"log_scale.exp()": "log_scale"},
        ),
        Mistake(
            "divided by the multiplier",
            "The cosines are divided where they should be multiplied: s is the inverse of the "
            "temperature.",
            {"log_scale.exp() * u": "u / log_scale.exp()"},
        ),
        Mistake(
            "no multiplier",
            "These are bare cosines. What lets the softmax become sharp?",
            {"log_scale.exp() * u": "u"},
        ),
        Mistake(
            "labels shifted by one",
            "Your labels are shifted by one: picture 0 is told that caption 1 belongs to it.",
            {"torch.arange(len(logits))": "(torch.arange(len(logits)) + 1) % len(logits)"},
        ),
        Mistake(
            "all labels zero",
            "Every picture is told that caption 0 belongs to it.",
            {"torch.arange(len(logits))": "torch.zeros(len(logits), dtype=torch.long)"},
        ),
        Mistake(
            "pictures choose only",
            "This is half of the loss: each picture looks for its caption. Who else is looking?",
            {"(loss_img + loss_txt) / 2": "loss_img"},
        ),
        Mistake(
            "captions choose only",
            "This is half of the loss: each caption looks for its picture (the softmax runs over "
            "the pictures). Who else is looking?",
            {"(loss_img + loss_txt) / 2": "loss_txt"},
        ),
        Mistake(
            "sum of both directions",
            "Both directions are there, and they are added. What is one loss made of two?",
            {"(loss_img + loss_txt) / 2": "loss_img + loss_txt"},
        ),
        Mistake(
            "sum over the pairs",
            "Your loss grows with the batch: it adds up over the pairs where it should average.",
            {"labels)": 'labels, reduction="sum")'},
        ),
        Mistake(
            "softmax twice",
            "`cross_entropy` takes scores and does the softmax itself; yours is done before it.",
            {
                "logits, labels": "logits.softmax(1), labels",
                "logits.T, labels": "logits.T.softmax(1), labels",
            },
        ),
        Mistake(
            "captions detached",
            "The number is right, but the captions' features are cut off from the graph: their "
            "tower would learn nothing.",
            {"v.T": "v.T.detach()"},
        ),
        Mistake(
            "θ detached",
            "The number is right, but no gradient reaches θ: the temperature would never learn.",
            {"log_scale.exp()": "log_scale.exp().item()"},
        ),
    ),
)

# The probabilities first, as in the notebook, and then their logarithm.
FRACTIONS = """
def my_loss(z):
    e = (z - z.amax(dim=1, keepdim=True)).exp()
    P = e / e.sum(dim=1, keepdim=True)
    e = (z - z.amax(dim=0, keepdim=True)).exp()
    Q = e / e.sum(dim=0, keepdim=True)
    return (-(P.diag()FLOOR).log().mean() - (Q.diag()FLOOR).log().mean()) / 2
"""

WITHOUT_SOFTMAX = Program(
    id="03.2",
    title="Without softmax",
    difficulty=1,
    minutes=10,
    asks="""
Write the loss of the scores z with arithmetic, `exp`, `log`, `sum` and `amax` alone: no `softmax`,
no `cross_entropy`, no `logsumexp`. It has to work for scores of several hundred, too. The result
is one number, through which gradients flow.
""",
    stub='''
def my_loss(z: torch.Tensor) -> torch.Tensor:
    """The contrastive loss of the scores z (N, N)."""
    ...  # your lines here
''',
    solved='''
def my_loss(z: torch.Tensor) -> torch.Tensor:
    """The contrastive loss of the scores z (N, N)."""

    def one_way(z: torch.Tensor) -> torch.Tensor:
        largest = z.amax(dim=1, keepdim=True)
        return ((z - largest).exp().sum(dim=1).log() + largest[:, 0] - z.diag()).mean()

    return (one_way(z) + one_way(z.T)) / 2
''',
    inputs=_scores,
    use=use_without_softmax,
    hint_text=(
        "−ln P of the right entry is ln Σ exp(z) − z. Subtract the largest score m of the row "
        "first: ln Σ exp(z) = m + ln Σ exp(z − m)."
    ),
    remark="""
ln Σ exp(z) lies between the row's largest score m and m + ln N. So when a wrong caption has the
largest score, its lead over the right one is the least that the row costs. Compare the drum's
scores in section 3 with its loss in section 6.
""",
    mistakes=(
        Mistake(
            "exp overflows",
            "With small scores it is right; exp of a few hundred is infinity. The maximum of a "
            "row can be taken out of its sum.",
            {"(z - largest)": "z", " + largest[:, 0]": ""},
        ),
        Mistake(
            "exp overflows in a fraction",
            "With small scores it is right; exp of a few hundred is infinity, and infinity divided "
            "by infinity is NaN. A factor that is above and below the line can be taken out.",
            """
def my_loss(z):
    P = z.exp() / z.exp().sum(dim=1, keepdim=True)
    Q = z.exp() / z.exp().sum(dim=0, keepdim=True)
    return (-P.diag().log().mean() - Q.diag().log().mean()) / 2
""",
        ),
        Mistake(
            "the log of a probability that became 0",
            "A probability of e⁻³⁰⁰ is 0 in the computer, and its log infinite. Can you have the "
            "log of the fraction without the fraction?",
            FRACTIONS.replace("FLOOR", ""),
        ),
        Mistake(
            "a small number added to the probabilities",
            "With 1e-8 added to its probability, no row can cost more than −ln 1e-8 = 18.4. Rows "
            "with scores of several hundred cost more.",
            FRACTIONS.replace("FLOOR", " + 1e-8"),
        ),
        Mistake(
            "scores clamped",
            "A clamp makes all scores above it alike: the loss no longer knows which is larger. "
            "What can be taken out of a sum of exponentials without changing the result?",
            """
def my_loss(z):
    e = z.clamp(max=80).exp()
    rows, columns = e.sum(dim=1).log() - z.diag(), e.sum(dim=0).log() - z.diag()
    return (rows.mean() + columns.mean()) / 2
""",
        ),
        Mistake(
            "one maximum for the whole matrix",
            "You subtract one maximum from the whole matrix. In a row that lies far below it, "
            "every exp is 0, and the log of their sum infinite.",
            """
def my_loss(z):
    m = z.max()
    rows = m + (z - m).exp().sum(dim=1).log() - z.diag()
    columns = m + (z - m).exp().sum(dim=0).log() - z.diag()
    return (rows.mean() + columns.mean()) / 2
""",
        ),
        Mistake(
            "the rows' maxima for the columns",
            "Your columns are computed from scores that lost the maxima of their *rows*: another "
            "number for each entry of a column.",
            """
def my_loss(z):
    z = z - z.amax(dim=1, keepdim=True)
    rows, columns = z.exp().sum(dim=1).log() - z.diag(), z.exp().sum(dim=0).log() - z.diag()
    return (rows.mean() + columns.mean()) / 2
""",
        ),
        Mistake(
            "maxima subtracted along the wrong axis",
            "The maximum of row i is subtracted from column i: a vector (N,) lies along the "
            "columns when it meets a matrix. `keepdim=True` lets it stand upright.",
            """
def my_loss(z):
    m, n = z.max(dim=1).values, z.max(dim=0).values
    rows = m + (z - m).exp().sum(dim=1).log() - z.diag()
    columns = n + (z - n).exp().sum(dim=0).log() - z.diag()
    return (rows.mean() + columns.mean()) / 2
""",
        ),
        Mistake(
            "the maximum is not put back",
            "You subtract the row's maximum before exp, and it is still missing behind the log.",
            {" + largest[:, 0]": ""},
        ),
        Mistake(
            "the maximum is added twice",
            "The maximum that is added behind the log was never taken out of the sum: look at "
            "both ends.",
            {"(z - largest)": "(z - largest + largest[:, :1])"},
        ),
        Mistake(
            "the right score is missing",
            "This is the logarithm of the sum alone. Which term says how good the *right* caption "
            "is?",
            {" - z.diag()": ""},
        ),
        Mistake(
            "the right score is added",
            "A higher score of the right caption raises your loss.",
            {" - z.diag()": " + z.diag()"},
        ),
        Mistake(
            "rows only",
            "The rows are right; the columns ask, too.",
            {"(one_way(z) + one_way(z.T)) / 2": "one_way(z)"},
        ),
        Mistake(
            "columns only",
            "The columns are right; the rows ask, too.",
            {"(one_way(z) + one_way(z.T)) / 2": "one_way(z.T)"},
        ),
        Mistake(
            "sum of both directions",
            "Both directions are there, and they are added. What is one loss made of two?",
            {"(one_way(z) + one_way(z.T)) / 2": "one_way(z) + one_way(z.T)"},
        ),
        Mistake(
            "sum over the pairs",
            "Your loss grows with the batch: it adds up where it should average.",
            {".mean()": ".sum()"},
        ),
        Mistake(
            "the sign",
            "Your loss falls as the model gets worse: look at the sign.",
            {"(one_way(z) + one_way(z.T)) / 2": "-(one_way(z) + one_way(z.T)) / 2"},
        ),
    ),
)

GRADIENT = Program(
    id="03.3",
    title="The gradient at the scores, by hand",
    difficulty=1,
    minutes=5,
    asks="""
Write the gradient of the loss with respect to the scores z, an N × N matrix, from the formula
that section 10 derives. No `backward()`, no autograd.
""",
    stub='''
def gradient_at_scores(z: torch.Tensor) -> torch.Tensor:
    """∂loss/∂z of the scores z (N, N); it has the shape of z."""
    ...  # your lines here
''',
    solved='''
def gradient_at_scores(z: torch.Tensor) -> torch.Tensor:
    """∂loss/∂z of the scores z (N, N); it has the shape of z."""
    n = len(z)
    belief = (z.softmax(dim=1) + z.softmax(dim=0)) / 2
    return (belief - torch.eye(n)) / n
''',
    without=("backward", "grad", "autograd", "vjp", "jacrev", "jacobian"),
    inputs=lambda k: (2 * torch.randn(2 + k, 2 + k),),
    hint_text="What the model believes minus what is true. The model is asked in two directions.",
    remark="Belief minus truth, in both directions: the whole of training is in this line.",
    mistakes=(
        Mistake(
            "not divided by N",
            "The pattern is right and its size is not: the loss is a mean over the pairs.",
            {" / n": ""},
        ),
        Mistake(
            "divided by N twice",
            "The pattern is right, and it is too small: over what is the loss a mean, over pairs "
            "or over entries?",
            {" / n": " / n**2"},
        ),
        Mistake(
            "rows only",
            "Only the rows' softmax is in it: this is the gradient of `loss_img`.",
            {"(z.softmax(dim=1) + z.softmax(dim=0)) / 2": "z.softmax(dim=1)"},
        ),
        Mistake(
            "columns only",
            "Only the columns' softmax is in it: this is the gradient of `loss_txt`.",
            {"(z.softmax(dim=1) + z.softmax(dim=0)) / 2": "z.softmax(dim=0)"},
        ),
        Mistake(
            "both directions, not halved",
            "The two beliefs are added, and nothing halves them: each row promises 2.",
            {" + z.softmax(dim=0)) / 2": " + z.softmax(dim=0))"},
        ),
        Mistake(
            "the truth is missing",
            "This is what the model believes. What is subtracted from it?",
            {"belief - torch.eye(n)": "belief"},
        ),
        Mistake(
            "the sign",
            "This is the direction of a training step, which goes *against* the gradient.",
            {"belief - torch.eye(n)": "torch.eye(n) - belief"},
        ),
        Mistake(
            "twice as large",
            "The pattern is right, and everything is twice as large: the loss takes half of each "
            "direction.",
            {"(belief - torch.eye(n))": "2 * (belief - torch.eye(n))"},
        ),
        Mistake(
            "only one belief halved",
            "One of the two beliefs is halved, the other is whole: which comes first, + or /?",
            {
                "(z.softmax(dim=1) + z.softmax(dim=0)) / 2": "z.softmax(dim=1) + "
                "z.softmax(dim=0) / 2"
            },
        ),
        Mistake(
            "only the belief divided by N",
            "The belief is divided by N, and the truth is not: look at the brackets.",
            {"(belief - torch.eye(n)) / n": "belief / n - torch.eye(n)"},
        ),
        Mistake(
            "rows transposed for columns",
            "Your second belief is the first one, transposed. The columns have a softmax of their "
            "own: which numbers add up to 1 in it?",
            {"z.softmax(dim=0)": "z.softmax(dim=1).T"},
        ),
        Mistake(
            "the picture's −N · G",
            "This is what the picture in section 10 shows: −N · G, the direction of a step. Asked "
            "is G itself.",
            {"(belief - torch.eye(n)) / n": "torch.eye(n) - belief"},
        ),
        Mistake(
            "divided by the notebook's N",
            "You divide by 8, the number of pairs in the notebook. How many are in this z?",
            {" / n": " / 8"},
        ),
        Mistake(
            "columns transposed",
            "The second softmax is that of the transposed scores, and it is still transposed when "
            "you add it.",
            {"z.softmax(dim=0)": "z.T.softmax(dim=1)"},
        ),
        Mistake(
            "the truth is ones everywhere",
            "You subtract 1 from every entry. Of which entries is 1 true?",
            {"torch.eye(n)": "torch.ones(n, n)"},
        ),
    ),
)

TEMPERATURE = Program(
    id="03.4",
    title="Which way does the temperature want to go?",
    difficulty=2,
    minutes=10,
    asks="""
Derive ∂loss/∂θ for θ = ln s, from the scores z and the gradient G at the scores alone. One number.
""",
    stub='''
def theta_gradient(z: torch.Tensor, G: torch.Tensor) -> torch.Tensor:
    """∂loss/∂θ from the scores z (N, N) and the gradient G (N, N) at the scores."""
    ...  # your line here
''',
    solved='''
def theta_gradient(z: torch.Tensor, G: torch.Tensor) -> torch.Tensor:
    """∂loss/∂θ from the scores z (N, N) and the gradient G (N, N) at the scores."""
    return (G * z).sum()
''',
    inputs=_scores_and_gradient,
    hint_text="z = exp(θ) · cosine, so ∂z/∂θ = z. Each score passes its share on to θ.",
    remark="""
A positive value means that a step against the gradient lowers θ: the model would become less
sure. It is the slope of the curves in section 8 where the dashed line crosses them.
""",
    mistakes=(
        Mistake(
            "mean instead of sum",
            "θ is in every score, so it gets the shares of all of them: they add up.",
            {".sum()": ".mean()"},
        ),
        Mistake(
            "mean over one axis",
            "One axis is added up, and the other averaged. θ gets the shares of all scores.",
            {".sum()": ".sum(dim=1).mean()"},
        ),
        Mistake(
            "matrix product",
            "`@` multiplies rows by columns. Each score has one derivative of its own.",
            {"(G * z)": "(G @ z)"},
        ),
        Mistake(
            "matrix product, z first",
            "`@` multiplies rows by columns. Each score has one derivative of its own.",
            {"(G * z)": "(z @ G)"},
        ),
        Mistake(
            "only the diagonal",
            "These are the shares of the right pairs alone. θ is in the wrong ones, too.",
            {"(G * z).sum()": "(G * z).diag().sum()"},
        ),
        Mistake(
            "∂z/∂θ forgotten",
            "All entries of G add up to zero, for any model. By how much does a score change with "
            "θ?",
            {"(G * z)": "G"},
        ),
        Mistake(
            "the sign",
            "The right number with the other sign: the gradient, not the step.",
            {"(G * z)": "-(G * z)"},
        ),
        Mistake(
            "a number for each row",
            "This has one number for each picture. There is a single θ.",
            {".sum()": ".sum(dim=1)"},
        ),
        Mistake(
            "exponentiated once more",
            "z holds the multiplier already: exp is done.",
            {"(G * z)": "(G * z.exp())"},
        ),
        Mistake(
            "transposed",
            "One of the two is transposed: G and z have the same entries in the same places.",
            {"(G * z)": "(G * z.T)"},
        ),
    ),
)

THROUGH_LENGTH = Program(
    id="03.5",
    title="Back through the normalisation",
    difficulty=3,
    minutes=15,
    asks="""
The gradient g has arrived at the unit vectors u = x / ‖x‖. Carry it on to x: a small change dx
changes the loss by g·du, with du = (dx − (u·dx) u) / ‖x‖. What multiplies dx?
""",
    stub='''
def through_normalising(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """∂loss/∂x (N, D) from g = ∂loss/∂u (N, D), where u is x (N, D) with rows of length 1."""
    ...  # your lines here
''',
    solved='''
def through_normalising(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """∂loss/∂x (N, D) from g = ∂loss/∂u (N, D), where u is x (N, D) with rows of length 1."""
    length = x.norm(dim=1, keepdim=True)
    u = x / length
    along = (g * u).sum(dim=1, keepdim=True)
    return (g - along * u) / length
''',
    inputs=lambda k: (torch.randn(1 + k, 3), 3 * torch.randn(1 + k, 3)),
    hint_text="""
g·du = (g·dx − (g·u)(u·dx)) / ‖x‖; take dx out. How much of g lies along u, g·u, is one number for
each row.
""",
    remark="No part of the result lies along x: a small step does not change the length.",
    mistakes=(
        Mistake(
            "not divided by the length",
            "The direction is right, the size is not: the longer x is, the less a step turns it.",
            {"(g - along * u) / length": "g - along * u"},
        ),
        Mistake(
            "divided by the squared length",
            "Too small by another factor of the length.",
            {"along * u) / length": "along * u) / length**2"},
        ),
        Mistake(
            "nothing taken away",
            "g is divided by the length, and still has a part along u, which can change nothing.",
            {"(g - along * u)": "g"},
        ),
        Mistake(
            "only the part along u divided",
            "Only what you take away is divided by the length: look at the brackets.",
            {"(g - along * u) / length": "g - along * u / length"},
        ),
        Mistake(
            "products not added up",
            "How much of g lies along u is one number for each row. Yours is one for each entry: "
            "what turns these products into a dot product?",
            {"(g * u).sum(dim=1, keepdim=True)": "(g * u)"},
        ),
        Mistake(
            "products averaged",
            "A dot product adds the products up; you take their mean.",
            {"(g * u).sum(": "(g * u).mean("},
        ),
        Mistake(
            "dot products along the wrong axis",
            "Your dot products run down the batch, from row to row. Along which axis are the "
            "numbers of one vector?",
            {"(g * u).sum(dim=1": "(g * u).sum(dim=0"},
        ),
        Mistake(
            "lengths along the wrong axis",
            "Your lengths are those of the columns. Along which axis are the numbers of one "
            "vector?",
            {"x.norm(dim=1": "x.norm(dim=0"},
        ),
        Mistake(
            "every gradient times every vector",
            "`g @ u.T` has the products of every gradient with every vector. A row needs only the "
            "one with its own.",
            {"(g - along * u)": "(g - g @ u.T @ u)"},
        ),
        Mistake(
            "normalised in place",
            "After `/=`, x itself has length 1, for whoever passed it, too: the length that you "
            "divide by at the end is 1.",
            """
def through_normalising(g, x):
    x /= x.norm(dim=1, keepdim=True)
    return (g - (g * x).sum(dim=1, keepdim=True) * x) / x.norm(dim=1, keepdim=True)
""",
        ),
        Mistake(
            "projected on x instead of u",
            "What you take away is measured with x. A projection wants vectors of length 1.",
            {"along * u) / length": "(g * x).sum(dim=1, keepdim=True) * x) / length"},
        ),
        Mistake(
            "part along u added",
            "The part along u is added where it should go.",
            {"g - along": "g + along"},
        ),
        Mistake(
            "only the part along u is kept",
            "You have kept the part along u, and thrown away the rest. It is the other way round.",
            {"(g - along * u)": "(along * u)"},
        ),
        Mistake(
            "one product for the whole batch",
            "One number is taken away from all rows: each row has its own.",
            {"(g * u).sum(dim=1, keepdim=True)": "(g * u).sum()"},
        ),
        Mistake(
            "one length for the whole batch",
            "You divide by the length of the whole matrix: each row has its own.",
            {"x.norm(dim=1, keepdim=True)": "x.norm()"},
        ),
        Mistake(
            "one length for the whole batch, at the end",
            "What is left in the end is divided by the length of the whole matrix: each row has "
            "its own.",
            {"along * u) / length": "along * u) / x.norm()"},
        ),
        Mistake(
            "multiplied by the length",
            "A long x turns less under the same step, so its gradient is smaller, not larger.",
            {"along * u) / length": "along * u) * length"},
        ),
    ),
)

LOW = (
    "However low, it is a score: exp of it stays in the sum, and where the allowed scores are as "
    "low, the twin is a choice again. CLIP's scores go down to −100."
)

TWINS = Program(
    id="03.6",
    title="Forgive the twins",
    difficulty=2,
    minutes=15,
    asks="""
Change the loss so that it leaves false negatives out: where pairs i and j differ but share a
group, caption j is not among the choices of picture i, and picture i not among those of caption
j.
""",
    stub='''
def forgiving_loss(z: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """The contrastive loss of the scores z (N, N), twins left out; `groups` has N numbers."""
    labels = torch.arange(len(z))
    return (F.cross_entropy(z, labels) + F.cross_entropy(z.T, labels)) / 2  # change this
''',
    solved='''
def forgiving_loss(z: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """The contrastive loss of the scores z (N, N), twins left out; `groups` has N numbers."""
    labels = torch.arange(len(z))
    same = groups[:, None] == groups[None, :]
    twins = same & ~torch.eye(len(z), dtype=torch.bool)
    z = z.masked_fill(twins, -torch.inf)
    return (F.cross_entropy(z, labels) + F.cross_entropy(z.T, labels)) / 2
''',
    inputs=_scores_and_groups,
    hint_text="""
Give a choice the score −∞, and its probability is 0: the scores (2, 1, −∞) lead to (0.73, 0.27, 0),
as if the third were not there. `z.masked_fill(mask, -torch.inf)` writes −∞ where `mask` is True.
Which entries are to be left out? Not the diagonal!
""",
    remark="""
This loss and `DistinctBatches` solve the same problem. With `DistinctBatches` the loss remains
the plain one, and no training loop has to change.
""",
    mistakes=(
        Mistake(
            "twins still count",
            "The twins are still among the choices: this is the plain loss.",
            {"z = z.masked_fill(twins, -torch.inf)": "z = z * 1"},
        ),
        Mistake(
            "the diagonal is masked, too",
            "Each pair is in its own group, so your mask also takes the right answer away.",
            {"twins = same & ~torch.eye(len(z), dtype=torch.bool)": "twins = same"},
        ),
        Mistake(
            "the diagonal is masked, too, with −1e9",
            "Each pair is in its own group, so your mask also takes the right answer away.",
            {
                "twins = same & ~torch.eye(len(z), dtype=torch.bool)": "twins = same",
                "-torch.inf": "-1e9",
            },
        ),
        Mistake(
            "masked with 0",
            "A score of 0 is a score like any other: exp(0) = 1 stays in the sum.",
            {"-torch.inf": "0.0"},
        ),
        *(
            Mistake(f"masked with −{low}", LOW, {"-torch.inf": f"-{low}.0"})
            for low in (1, 10, 20, 30, 50, 100)
        ),
        Mistake(
            "masked with the smallest score",
            LOW,
            {"z.masked_fill(twins, -torch.inf)": "torch.where(twins, z.min(), z)"},
        ),
        Mistake(
            "infinity times 0",
            "Where your mask is 0 it is multiplied by infinity, and 0 · ∞ is NaN. Write −∞ where "
            "it belongs, and leave the other scores alone.",
            {"z.masked_fill(twins, -torch.inf)": "z + twins * -torch.inf"},
        ),
        Mistake(
            "one of two twins is masked",
            "Of two twins, only one leaves the other out. Which of the two comes first in the "
            "batch should not matter.",
            {"z.masked_fill(twins,": "z.masked_fill(twins.triu(),"},
        ),
        Mistake(
            "pictures only",
            "Pictures no longer see their twins' captions; captions still see their twins' "
            "pictures.",
            {
                "z = z.masked": "masked = z.masked",
                "F.cross_entropy(z, labels)": "F.cross_entropy(masked, labels)",
            },
        ),
        Mistake(
            "captions only",
            "Captions no longer see their twins' pictures; pictures still see their twins' "
            "captions.",
            {
                "z = z.masked": "masked = z.masked",
                "F.cross_entropy(z.T, labels)": "F.cross_entropy(masked.T, labels)",
            },
        ),
        Mistake(
            "all but the twins are masked",
            "Your mask is the wrong way round: twins stay, and everyone else is gone.",
            {"twins = same &": "twins = ~same &"},
        ),
        Mistake(
            "targets shared among the twins",
            "You give twins a share of the target, which is another loss (and a good one: "
            "`classes=` of `mh.contrastive_loss`). Here they should not be among the choices.",
            """
def forgiving_loss(z: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    same = (groups[:, None] == groups[None, :]).float()
    targets = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(z, targets) + F.cross_entropy(z.T, targets)) / 2
""",
        ),
        Mistake(
            "twins dropped from the batch",
            "You drop all but the first of each group. Then the others' captions teach nothing: "
            "only the twins' own crossing is to be left out.",
            """
def forgiving_loss(z: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    first = [i for i, g in enumerate(groups.tolist()) if g not in groups[:i].tolist()]
    z = z[first][:, first]
    labels = torch.arange(len(z))
    return (F.cross_entropy(z, labels) + F.cross_entropy(z.T, labels)) / 2
""",
        ),
        Mistake(
            "all pairs with a twin dropped",
            "You drop every pair that has a twin. Then they learn nothing from the others, and the "
            "others nothing from them: only the twins' own crossing is to be left out.",
            """
def forgiving_loss(z: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    alone = (groups[:, None] == groups[None, :]).sum(dim=1) == 1
    z = z[alone][:, alone]
    labels = torch.arange(len(z))
    return (F.cross_entropy(z, labels) + F.cross_entropy(z.T, labels)) / 2
""",
        ),
        Mistake(
            "twins taken for right answers",
            "You add the twins' probabilities to that of the right answer, which is another loss. "
            "Here a twin is neither right nor wrong: it should not be among the choices.",
            """
def forgiving_loss(z: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    same = groups[:, None] == groups[None, :]
    rows = (z.softmax(dim=1) * same).sum(dim=1).log().mean()
    columns = (z.softmax(dim=0) * same).sum(dim=0).log().mean()
    return -(rows + columns) / 2
""",
        ),
        Mistake(
            "groups taken for labels",
            "A label says in which column the right answer is. A group says who is alike: the "
            "second twin is told that the first one's caption belongs to it.",
            {
                "labels = torch.arange(len(z))": "labels = groups",
                "z = z.masked_fill(twins, -torch.inf)": "z = z * 1",
            },
        ),
    ),
)

LOGS = Question(
    id="03.7",
    title="Three logs",
    difficulty=3,
    minutes=10,
    asks="""
Three colleagues train with batches of 64 and ask the same: "Why doesn't my loss fall?" Their
logs say 4.16, 0.00 and 2.08 from the first step to the last. What does each log say?
""",
    stub='answer = {"4.16": "?", "0.00": "?", "2.08": "?"}',
    right={"4.16": "knows nothing", "0.00": "one choice", "2.08": "pieces of 8"},
    choices={
        "knows nothing": "all 64 captions are equally likely for each picture",
        "one choice": "the batch reaches the loss one pair at a time",
        "pieces of 8": "the loss sees 8 pairs at a time",
        "learned all": "each picture finds its caption among 64, for sure",
        "confidently wrong": "a wrong caption gets nearly all of the probability",
    },
    hint_text="For each number, look for the size of a batch whose logarithm it is.",
    remark="""
4.16 = ln 64: are all captions the same, or all features? 0.00 = ln 1: nothing to tell apart.
2.08 = ln 8: the batch of 64 is cut into pieces of 8 somewhere (each device computes the loss of its
own part, or gradients of small batches are added up) and the model knows nothing. (A loss that
falls to 2.08 and no further may have eight pairs to a caption: ln 8 is their floor.)
""",
    mistakes=(
        Wrong(
            "ln 64 taken for being wrong",
            "Being confidently wrong costs more than ln N. What is ln 64?",
            "confidently wrong",
            "4.16",
        ),
        Wrong(
            "ln 64 taken for a piece",
            "Of which number is 4.16 the logarithm?",
            "pieces of 8",
            "4.16",
        ),
        Wrong(
            "ln 64 taken for a single choice",
            "With a single choice there is nothing to be wrong about. What would the loss be?",
            "one choice",
            "4.16",
        ),
        Wrong(
            "ln 64 taken for success",
            "Each picture finds its caption: how surprised is such a model at the right answer?",
            "learned all",
            "4.16",
        ),
        Wrong(
            "zero taken for success",
            "0.00 from the first step on: is anyone that sure among 64 before learning? Among how "
            "many choices does it take no learning?",
            "learned all",
            "0.00",
        ),
        Wrong(
            "zero taken for being wrong",
            "Being confidently wrong costs much. What costs nothing?",
            "confidently wrong",
            "0.00",
        ),
        Wrong(
            "zero taken for a piece of 8",
            "Among 8 choices there is something to learn, and something to lose. Of which number "
            "is 0 the logarithm?",
            "pieces of 8",
            "0.00",
        ),
        Wrong(
            "zero taken for ignorance",
            "Knowing nothing costs ln N. For which N is that 0?",
            "knows nothing",
            "0.00",
        ),
        Wrong(
            "ln 8 taken for ignorance of 64",
            "Knowing nothing among 64 costs 4.16. Among how many does it cost 2.08?",
            "knows nothing",
            "2.08",
        ),
        Wrong(
            "ln 8 taken for half-way",
            "To find every caption for sure costs next to nothing. Which batch has 2.08 as its "
            "ln N?",
            "learned all",
            "2.08",
        ),
        Wrong(
            "ln 8 taken for being wrong",
            "Being confidently wrong among 64 costs more than 4.16.",
            "confidently wrong",
            "2.08",
        ),
        Wrong(
            "ln 8 taken for a single choice",
            "With a single choice there is nothing to be wrong about. What would the loss be?",
            "one choice",
            "2.08",
        ),
    ),
)

EXERCISES = (FROM_FEATURES, WITHOUT_SOFTMAX, GRADIENT, TEMPERATURE, THROUGH_LENGTH, TWINS, LOGS)
