"""Exercises of notebook 03: the contrastive loss and its gradient."""

from __future__ import annotations

import torch

from .programs import Mistake, Program
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


def _gradient_of(z: torch.Tensor) -> torch.Tensor:
    return ((z.softmax(1) + z.softmax(0)) / 2 - torch.eye(len(z))) / len(z)


def _scores_and_gradient(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    z = 3 * torch.randn(2 + k, 2 + k)
    return z, _gradient_of(z)


def _scores_and_groups(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    n = 3 + k
    groups = torch.arange(n)
    groups[1 + k // 2] = groups[0]  # one pair of twins, and more of them later
    if k > 3:
        groups[2] = groups[0]
    return torch.randn(n, n).requires_grad_(), groups


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

WITHOUT_SOFTMAX = Program(
    id="03.2",
    title="Without softmax",
    difficulty=1,
    minutes=10,
    asks="""
Write the loss of the scores z with additions, `exp`, `log` and `sum` alone: no `softmax`, no
`cross_entropy`, no `logsumexp`. It has to work for scores of several hundred, too.
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
    without=("softmax", "log_softmax", "cross_entropy", "logsumexp", "nll_loss"),
    inputs=_scores,
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
    difficulty=2,
    minutes=10,
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
            "matrix product",
            "`@` multiplies rows by columns. Each score has one derivative of its own.",
            {"(G * z)": "(G @ z)"},
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
The gradient g has arrived at the unit vectors u = x / ‖x‖. Carry it on to x: take the part
along u away, and divide by the length.
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
    hint_text="How much of g lies along u is one number for each row: their dot product.",
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
            "multiplied by the length",
            "A long x turns less under the same step, so its gradient is smaller, not larger.",
            {"along * u) / length": "along * u) * length"},
        ),
    ),
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
            "masked with 0",
            "A score of 0 is a score like any other: exp(0) = 1 stays in the sum.",
            {"-torch.inf": "0.0"},
        ),
        Mistake(
            "masked with −1",
            "A cosine of −1 is far away, and still a choice: exp of it stays in the sum.",
            {"-torch.inf": "-1.0"},
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
    ),
)

LOGS = Question(
    id="03.7",
    title="Three logs",
    difficulty=3,
    minutes=10,
    asks="""
Three colleagues train with batches of 64 and ask the same: "Why doesn't my loss fall?" Their
logs say 4.16, 0.00 and 2.08 from step 100 to the last. What does each log say?
""",
    stub='answer = {"4.16": "?", "0.00": "?", "2.08": "?"}',
    right={"4.16": "knows nothing", "0.00": "one choice", "2.08": "pieces of 8"},
    choices={
        "knows nothing": "all 64 captions are equally likely for each picture",
        "one choice": "the batch reaches the loss one pair at a time",
        "pieces of 8": "the loss sees 8 pairs at a time, or 8 pairs share each caption",
        "learned all": "each picture finds its caption among 64, for sure",
        "confidently wrong": "a wrong caption gets nearly all of the probability",
    },
    hint_text="For each number, look for the size of a batch whose logarithm it is.",
    remark="""
4.16 = ln 64: are all captions the same, or all features? 0.00 = ln 1: nothing to tell apart.
2.08 = ln 8: the batch of 64 is cut into pieces of 8 somewhere (each device computes the loss of its
own part, or gradients of small batches are added up) and the model knows nothing, or each caption
occurs eight times, and the floor is reached.
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
            "zero taken for success",
            "A loss of 0.00 at the *first* step: had the model learned anything by then?",
            "learned all",
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
            "It has not moved since the first step. Which batch has 2.08 as its ln N?",
            "learned all",
            "2.08",
        ),
        Wrong(
            "ln 8 taken for being wrong",
            "Being confidently wrong among 64 costs more than 4.16.",
            "confidently wrong",
            "2.08",
        ),
    ),
)

EXERCISES = (FROM_FEATURES, WITHOUT_SOFTMAX, GRADIENT, TEMPERATURE, THROUGH_LENGTH, TWINS, LOGS)
