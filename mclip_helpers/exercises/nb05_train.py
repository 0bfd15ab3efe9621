"""Exercises of notebook 05: the body of the loop, an honest measure, and choosing fairly."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from .programs import Mistake, Program
from .questions import Question, Wrong
from .values import Said

STEPS = 3


class TinyClip(nn.Module):
    """Two linear towers and a temperature, with the names and parameters of open_clip."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Linear(3, 4)
        self.text = nn.Linear(5, 4)
        self.logit_scale = nn.Parameter(torch.tensor(0.5))

    def encode_image(self, image: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        features = self.image(image)
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, text: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        features = self.text(text)
        return F.normalize(features, dim=-1) if normalize else features

    def forward(
        self, image: torch.Tensor, text: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The features of both, of length 1, and the multiplier."""
        return (
            self.encode_image(image, normalize=True),
            self.encode_text(text, normalize=True),
            self.logit_scale.exp(),
        )


class Watched(torch.optim.SGD):
    """Plain SGD that counts its steps, and the gradients that it finds at all of them."""

    found = steps = 0

    def step(self, closure: Callable | None = None) -> None:  # type: ignore[override]
        parameters = [p for group in self.param_groups for p in group["params"]]
        self.found += sum(p.grad is not None and bool(p.grad.any()) for p in parameters)
        self.steps += 1
        super().step(closure)


def _model_and_batches(k: int) -> tuple[TinyClip, torch.Tensor, torch.Tensor]:
    """A model, and the pictures and tokens of three batches."""
    return TinyClip(), torch.randn(STEPS, 3 + k, 3), torch.randn(STEPS, 3 + k, 5)


def use_step(
    answer: Callable, model: TinyClip, images: torch.Tensor, tokens: torch.Tensor
) -> dict[str, object]:
    """Three steps: the loss of each, what became of the gradients, and the model afterwards."""
    arrived = [0]

    def count(_: torch.Tensor) -> None:
        arrived[0] += 1

    for parameter in model.parameters():
        parameter.register_hook(count)
    optimizer = Watched(model.parameters(), lr=0.3)
    losses = [answer(model, optimizer, *batch) for batch in zip(images, tokens, strict=True)]
    if any(loss is None for loss in losses):
        return {"loss of each step": None}
    return {
        "loss of each step": [
            float(x.detach() if isinstance(x, torch.Tensor) else x) for x in losses
        ],
        "gradients that arrived": arrived[0],
        "steps of the optimizer": optimizer.steps,
        "gradients that the optimizer found": optimizer.found,
        **{f"{n} after {STEPS} steps": p.detach() for n, p in model.named_parameters()},
        "mode afterwards": Said("training" if model.training else "evaluation"),
    }


def _with_ties(k: int) -> tuple[torch.Tensor, int]:
    """Similarities (N, N) in whole numbers, so that many are equal, and k up to N; N ≥ 3."""
    n = 3 + k
    similarity = torch.randint(0, 3, (n, n)).float()
    similarity += torch.eye(n) * (torch.rand(n) > 0.4)
    return similarity, n if k == 2 else 1 + k % 3


def _runs(k: int) -> tuple[list[dict[str, float]]]:
    """Runs in any order; the best on one split is not the best on the other."""
    val, test = 0.3 + 0.5 * torch.rand(2, 4 + k).double()
    rates = 0.001 * 2 ** torch.arange(4 + k).double()
    rows = zip(rates.tolist(), val.tolist(), test.tolist(), strict=True)
    runs = [{"lr": lr, "val": v, "test": t} for lr, v, t in rows]
    return ([runs[i] for i in torch.randperm(len(runs)).tolist()],)


OWN_MULTIPLIER = (
    "Your multiplier is a constant: the model has one of its own, which is trained, too. Where?"
)
OWN_OPTIMIZER = (
    "The optimizer that you are given takes no step: you make a new one each time, with a rate of "
    "its own, and what it remembers is gone with it."
)
ONE_WAY = """u, v = F.normalize(image_features), F.normalize(text_features)
    z = model.logit_scale.exp() * u @ v.T
    loss = F.cross_entropy(z, torch.arange(len(z)))"""
NOT_NORMALISED = """z = model.logit_scale.exp() * image_features @ text_features.T
    labels = torch.arange(len(z))
    loss = (F.cross_entropy(z, labels) + F.cross_entropy(z.T, labels)) / 2"""

STEP = Program(
    id="05.1",
    title="The body of the loop",
    difficulty=2,
    minutes=10,
    asks="""
Write one training step: features of both towers, the loss (`mh.contrastive_loss` takes the
multiplier itself), its gradient, and the optimizer's step. Return the loss. The check takes three
steps, and looks at each weight afterwards.
""",
    stub='''
def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    tokens: torch.Tensor,
) -> float:
    """One step on a batch; returns its loss. The model is a CLIP as open_clip builds it."""
    ...  # your lines here
''',
    solved='''
def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    tokens: torch.Tensor,
) -> float:
    """One step on a batch; returns its loss. The model is a CLIP as open_clip builds it."""
    optimizer.zero_grad()
    image_features = model.encode_image(images)
    text_features = model.encode_text(tokens)
    loss = mh.contrastive_loss(image_features, text_features, model.logit_scale.exp())
    loss.backward()
    optimizer.step()
    return loss.item()
''',
    inputs=_model_and_batches,
    use=use_step,
    rounds=4,
    hint_text="Six lines, in the order of section 4. What has to be gone before `backward()` adds?",
    remark="""
These six lines are in every training loop; what section 4 puts around them is precision, schedule
and measurement. Their order is free in one place: old gradients may be cleared anywhere between a
step and the next `backward()`.
""",
    mistakes=(
        Mistake(
            "zero_grad forgotten",
            "The first step is right, and the later ones are too large: `backward()` *adds* to "
            "`.grad`. What is still in there from the step before?",
            {"    optimizer.zero_grad()\n": ""},
        ),
        Mistake(
            "no gradient at the step",
            "No weight moves: whenever the optimizer steps, `.grad` is empty. In which order are "
            "gradients cleared, computed and used?",
            {
                "    optimizer.zero_grad()\n": "",
                "loss.backward()\n": "loss.backward()\n    optimizer.zero_grad()\n",
            },
        ),
        Mistake(
            "no step",
            "The loss is computed, and no weight moves. Who applies the gradients?",
            {"    optimizer.step()\n": ""},
        ),
        Mistake(
            "no backward",
            "No weight moves: no gradient has been computed.",
            {"    loss.backward()\n": ""},
        ),
        Mistake(
            "step before backward",
            "The optimizer steps before the gradient is there: each step uses the one of the batch "
            "before, or none.",
            {
                "    loss.backward()\n    optimizer.step()": "    optimizer.step()\n"
                "    optimizer.zero_grad()\n    loss.backward()",
                "    optimizer.zero_grad()\n    image": "    image",
            },
        ),
        Mistake(
            "scale not exponentiated",
            "`logit_scale` holds a logarithm: the loss wants the multiplier.",
            {"model.logit_scale.exp()": "model.logit_scale * 1"},
        ),
        Mistake(
            "temperature detached",
            "All is right but the temperature, which never moves: something cuts it off.",
            {"model.logit_scale.exp()": "model.logit_scale.exp().detach()"},
        ),
        Mistake(
            "pictures detached",
            "The text tower learns, and the image tower never moves.",
            {"model.encode_image(images)": "model.encode_image(images).detach()"},
        ),
        Mistake(
            "captions under no_grad",
            "The image tower learns, and the text tower never moves.",
            {
                "text_features = model.encode_text(tokens)": "with torch.no_grad():\n"
                "        text_features = model.encode_text(tokens)"
            },
        ),
        Mistake(
            "two steps in one",
            "Each weight moves twice as far, or further: `step()` is called twice.",
            {"    optimizer.step()\n": "    optimizer.step()\n    optimizer.step()\n"},
        ),
        Mistake(
            "the loss after the step",
            "The weights are right. The loss that you return is that of the changed model.",
            {
                "return loss.item()": "return mh.contrastive_loss(model.encode_image(images), "
                "model.encode_text(tokens), model.logit_scale.exp()).item()"
            },
        ),
        Mistake(
            "pairs shuffled apart",
            "Pictures and captions no longer belong together: row i of one, row i of the other.",
            {"model.encode_text(tokens)": "model.encode_text(tokens.roll(1, 0))"},
        ),
        Mistake(
            "both towers under no_grad",
            "Neither tower moves, only the temperature does: no gradient gets past the features.",
            {
                "    image_features = model.encode_image(images)\n    text_features = "
                "model.encode_text(tokens)": "    with torch.no_grad():\n        image_features = "
                "model.encode_image(images)\n        text_features = model.encode_text(tokens)"
            },
        ),
        Mistake(
            "only the loss",
            "The loss is right, and nothing is trained. Which two calls turn a loss into moved "
            "weights?",
            {"    loss.backward()\n    optimizer.step()\n": ""},
        ),
        Mistake(
            "temperature instead of the multiplier",
            "You divide by the multiplier: the loss multiplies by what it is given.",
            {"model.logit_scale.exp()": "1 / model.logit_scale.exp()"},
        ),
        Mistake(
            "left in eval mode",
            "The gradient is right, and the model is left in another mode than it came in.",
            {"    optimizer.zero_grad()\n": "    model.eval()\n    optimizer.zero_grad()\n"},
        ),
        Mistake(
            "step before backward, never cleared",
            "The optimizer steps before the gradient is there, and `.grad` is never cleared: each "
            "step uses the sum of all batches before.",
            {
                "    optimizer.zero_grad()\n": "",
                "    loss.backward()\n    optimizer.step()": "    optimizer.step()\n"
                "    loss.backward()",
            },
        ),
        Mistake(
            "only pictures ask",
            "Each picture looks for its caption. And what does each caption look for?",
            {
                "loss = mh.contrastive_loss(image_features, text_features, "
                "model.logit_scale.exp())": ONE_WAY
            },
        ),
        Mistake(
            "only captions ask",
            "Each caption looks for its picture. And what does each picture look for?",
            {
                "loss = mh.contrastive_loss(image_features, text_features, "
                "model.logit_scale.exp())": ONE_WAY.replace("(z,", "(z.T,")
            },
        ),
        Mistake(
            "not normalised",
            "This loss compares dot products: long features count more. `mh.contrastive_loss` "
            "gives each the length 1 first.",
            {
                "loss = mh.contrastive_loss(image_features, text_features, "
                "model.logit_scale.exp())": NOT_NORMALISED
            },
        ),
        Mistake(
            "a multiplier of 100",
            OWN_MULTIPLIER,
            {"model.logit_scale.exp()": "100"},
        ),
        Mistake(
            "a multiplier of 1 / 0.07",
            OWN_MULTIPLIER,
            {"model.logit_scale.exp()": "1 / 0.07"},
        ),
        Mistake(
            "a new AdamW in each step",
            OWN_OPTIMIZER,
            {
                "    optimizer.zero_grad()\n": "    optimizer = torch.optim.AdamW("
                "model.parameters(), lr=1e-3)\n    optimizer.zero_grad()\n"
            },
        ),
        Mistake(
            "a new SGD in each step",
            OWN_OPTIMIZER,
            {
                "    optimizer.zero_grad()\n": "    optimizer = torch.optim.SGD("
                "model.parameters(), lr=1e-3)\n    optimizer.zero_grad()\n"
            },
        ),
    ),
)

RECALL = Program(
    id="05.2",
    title="Recall at k, with ties",
    difficulty=2,
    minutes=12,
    asks="""
Row i of `similarity` has the similarities of picture i to all captions, and its own caption is in
column i. Return the share of pictures whose caption is among the first k. A wrong caption that is
as
similar as the right one counts as ranked *before* it: a model that says the same of all pairs must
not look good.
""",
    stub='''
def recall_at_k(similarity: torch.Tensor, k: int) -> float:
    """The share of rows of `similarity` (N, N) whose own column is ranked among the first k."""
    ...  # your lines here
''',
    solved='''
def recall_at_k(similarity: torch.Tensor, k: int) -> float:
    """The share of rows of `similarity` (N, N) whose own column is ranked among the first k."""
    right = similarity.diag()[:, None]
    ranks = (similarity >= right).sum(dim=1)  # the right caption counts itself: the best rank is 1
    return (ranks <= k).float().mean().item()
''',
    inputs=_with_ties,
    rounds=10,
    hint_text="The rank is 1 plus the number of wrong captions that are as similar, or more.",
    remark="`mh.retrieval` counts like this. A model of all zeros has R@1 = 0, not 1.",
    mistakes=(
        Mistake(
            "ties favour the model",
            "Equal wrong captions don't count in yours: a model that says the same of all pairs "
            "would be perfect.",
            {
                "(similarity >= right).sum(dim=1)": "1 + (similarity > right).sum(dim=1)",
            },
        ),
        Mistake(
            "topk decides the ties",
            "`topk` has to put equal ones in some order: among ties, your result is chance.",
            """
def recall_at_k(similarity, k):
    own = torch.arange(len(similarity))[:, None]
    return (similarity.topk(k, dim=1).indices == own).any(dim=1).float().mean().item()
""",
        ),
        Mistake(
            "off by one: one rank too few",
            "Rank k itself should count, and the best rank is 1: the right caption does not rival "
            "itself.",
            {"ranks <= k": "ranks < k"},
        ),
        Mistake(
            "off by one: one rank too many",
            "You let one more in than the first k.",
            {"ranks <= k": "ranks <= k + 1"},
        ),
        Mistake(
            "columns instead of rows",
            "You rank the pictures for each caption. Asked is the other direction.",
            {"sum(dim=1)": "sum(dim=0)", "diag()[:, None]": "diag()[None, :]"},
        ),
        Mistake(
            "compared with the wrong rows",
            "Each row is compared with the right similarities of *all* pictures: the axis is "
            "missing.",
            {"similarity.diag()[:, None]": "similarity.diag()"},
        ),
        Mistake(
            "a number of pictures",
            "This is how many there are. Asked is their share.",
            {".float().mean()": ".sum()"},
        ),
        Mistake(
            "percent",
            "This is in percent; asked is a share, 0 to 1.",
            {"return (ranks": "return 100 * (ranks"},
        ),
        Mistake(
            "smallest first",
            "You rank the least similar caption first.",
            {"similarity >= right": "similarity <= right"},
        ),
        Mistake(
            "exactly at rank k",
            "You count those *at* rank k. What of the better ones?",
            {"ranks <= k": "ranks == k"},
        ),
        Mistake(
            "sorting decides the ties",
            "Sorting has to put equal ones in some order: among ties, your result is chance.",
            """
def recall_at_k(similarity, k):
    own = torch.arange(len(similarity))[:, None]
    order = similarity.argsort(dim=1, descending=True)
    return (order[:, :k] == own).any(dim=1).float().mean().item()
""",
        ),
        Mistake(
            "sorted the other way round",
            "You sort the least similar caption first.",
            """
def recall_at_k(similarity, k):
    own = torch.arange(len(similarity))[:, None]
    return (similarity.argsort(dim=1)[:, :k] == own).any(dim=1).float().mean().item()
""",
        ),
        Mistake(
            "no caption left to compare with",
            "Right, unless k is the number of captions: which position do you look at then?",
            """
def recall_at_k(similarity, k):
    bar = similarity.sort(dim=1, descending=True).values[:, k]
    return (similarity.diag() > bar).float().mean().item()
""",
        ),
        Mistake(
            "divided by k",
            "You divide by k, too. How many right captions does a picture have?",
            {".item()": ".item() / k"},
        ),
        Mistake(
            "share of misses",
            "This is the share of pictures whose caption is *not* among the first k.",
            {"ranks <= k": "ranks > k"},
        ),
        Mistake(
            "mean rank",
            "This is the mean of the ranks. Asked is how many of them are good enough.",
            {"(ranks <= k).float()": "ranks.float()"},
        ),
        Mistake(
            "share of all pairs",
            "You divide by the number of *pairs*. Asked is a share of the pictures.",
            {".float().mean().item()": ".sum().item() / similarity.numel()"},
        ),
        Mistake(
            "the best caption only",
            "You ask which caption is first, whatever k is. And which of several equal ones is it?",
            """
def recall_at_k(similarity, k):
    own = torch.arange(len(similarity))
    return (similarity.argmax(dim=1) == own).float().mean().item()
""",
        ),
    ),
)

CHOICE = Program(
    id="05.3",
    title="Which number goes into the report?",
    difficulty=1,
    minutes=6,
    asks="""
You trained with several learning rates, and have the R@1 of each run on the validation split and on
the test split. Return the one number that you report as the quality of your method.
""",
    stub='''
def reported(runs: list[dict[str, float]]) -> float:
    """The R@1 to report. Each run has "lr", "val" and "test", the R@1 on either split."""
    ...  # your lines here
''',
    solved='''
def reported(runs: list[dict[str, float]]) -> float:
    """The R@1 to report. Each run has "lr", "val" and "test", the R@1 on either split."""
    chosen = max(runs, key=lambda run: run["val"])
    return chosen["test"]
''',
    inputs=_runs,
    hint_text="One split chooses, the other reports. Which is which, and why not the same one?",
    remark="""
The best of many tries is partly luck, and the luck is in the split that chose. The other split has
had no say, so its number is an honest one.
""",
    mistakes=(
        Mistake(
            "chosen by the test split",
            "You choose with the number that you report: the best of several tries is partly luck, "
            "and you report the luck, too.",
            {'run["val"]': 'run["test"]'},
        ),
        Mistake(
            "the validation number reported",
            "The choice is right. The number that made it is too good: it was the best of several.",
            {'chosen["test"]': 'chosen["val"]'},
        ),
        Mistake(
            "chosen by test, validation reported",
            "The test split chooses and the validation split reports: their roles are exchanged.",
            {'run["val"]': 'run["test"]', 'chosen["test"]': 'chosen["val"]'},
        ),
        Mistake(
            "mean of all tries",
            "You report the mean of all learning rates, also of the useless ones. Which one would "
            "you use?",
            {
                'chosen["test"]': 'sum(run["test"] for run in runs) / len(runs)',
            },
        ),
        Mistake(
            "the worst chosen",
            "You choose the run that does worst on the validation split.",
            {"max(runs": "min(runs"},
        ),
        Mistake(
            "the last run",
            "You report the last run. Nothing says that it is the best.",
            {'max(runs, key=lambda run: run["val"])': "runs[-1]"},
        ),
        Mistake(
            "the first run",
            "You report the first run. Nothing says that it is the best.",
            {'max(runs, key=lambda run: run["val"])': "runs[0]"},
        ),
        Mistake(
            "both splits averaged",
            "You mix both splits: half of it has chosen itself.",
            {'return chosen["test"]': 'return (chosen["test"] + chosen["val"]) / 2'},
        ),
        Mistake(
            "the learning rate",
            "This is the learning rate of the right run. Asked is how good it is.",
            {'chosen["test"]': 'chosen["lr"]'},
        ),
        Mistake(
            "both splits choose",
            "The split that reports has a vote in the choice: its number is no longer an honest "
            "one.",
            {'run["val"]': 'run["val"] + run["test"]'},
        ),
        Mistake(
            "the place of the run",
            "This is the place of the run. Asked is a number in it.",
            {
                'max(runs, key=lambda run: run["val"])': "max(range(len(runs)), key=lambda i: "
                'runs[i]["val"])',
                'chosen["test"]': "chosen",
            },
        ),
        Mistake(
            "the smallest rate",
            "You take the run with the smallest learning rate. Nothing says that it is the best.",
            {'max(runs, key=lambda run: run["val"])': 'min(runs, key=lambda run: run["lr"])'},
        ),
        Mistake(
            "the largest rate",
            "You take the run with the largest learning rate. Nothing says that it is the best.",
            {'run["val"]': 'run["lr"]'},
        ),
        Mistake(
            "percent",
            "The choice is right; your number is in percent, and those of the runs are shares.",
            {'chosen["test"]': '100 * chosen["test"]'},
        ),
        Mistake(
            "the worst on the test split",
            "Careful, and no more honest: the test split chooses its own number here, too.",
            {'max(runs, key=lambda run: run["val"])': 'min(runs, key=lambda run: run["test"])'},
        ),
    ),
)

FORGOTTEN = Question(
    id="05.4",
    title="zero_grad forgotten, on paper",
    difficulty=2,
    minutes=5,
    asks="""
A weight is 1.0, its gradient is 2.0 at every step, and plain SGD has the learning rate 0.1.
Somebody
forgets `zero_grad()`. What is the weight after three steps?
""",
    stub="answer = None  # a number",
    right=-0.2,
    hint_text="`backward()` adds to `.grad`. Write down what is in it at each of the steps.",
    remark="""
`.grad` is 2, 4, 6: the steps grow although the gradient does not. With Adam, which divides by the
gradient's usual size, the same mistake is harder to see.
""",
    mistakes=(
        Wrong(
            "with zero_grad",
            "0.4 is three steps of 0.2. What is in `.grad` at the second step, and at the third?",
            0.4,
        ),
        Wrong("one step only", "That is after the first step.", 0.8),
        Wrong(
            "doubling",
            "Your gradient doubles each time: 2, 4, 8. What does `backward()` add?",
            -0.4,
        ),
        Wrong("uphill", "Right in size, and in the wrong direction.", 2.2),
        Wrong("no learning rate", "The learning rate is missing.", -11.0),
        Wrong("the way, not the place", "That is how far it went. Where did it start?", 1.2),
        Wrong("the way, with its sign", "That is the change. Where did it start?", -1.2),
        Wrong(
            "doubling, and the way",
            "Two slips. Your gradient doubles each time: 2, 4, 8. And this is the change: where "
            "did it start?",
            -1.4,
        ),
        Wrong("a fourth step", "That is after a fourth step: 2, 4, 6 and 8.", -1.0),
        Wrong(
            "a share of the weight",
            "You take a fifth of the weight away each time. The gradient is 2.0, whatever the "
            "weight is.",
            0.512,
        ),
        Wrong(
            "with zero_grad, no learning rate",
            "That is with `zero_grad()`, and without the learning rate.",
            -5.0,
        ),
    ),
)

LOOKS = Question(
    id="05.5",
    title="A look of your own",
    difficulty=2,
    minutes=8,
    asks="""
Any function from a picture to a picture is a look: `data.shifted(my_look)`. In notebook 05,
adapters
on the first layers learn false colours best. For which of these looks would you begin with the
first
layers, too? Decide by what the look changes: the colour of each point by itself, or where things
are. (Solarized: bright colours inverted.)
""",
    stub="""
answer = {
    "colours inverted": "?",
    "upside down": "?",
    "solarized": "?",
    "turned by 90 degrees": "?",
    "red and blue exchanged": "?",
    "left and right mirrored": "?",
}
""",
    right={
        "colours inverted": "first layers",
        "upside down": "deeper layers",
        "solarized": "first layers",
        "turned by 90 degrees": "deeper layers",
        "red and blue exchanged": "first layers",
        "left and right mirrored": "deeper layers",
    },
    choices={
        "first layers": "it changes each point by itself",
        "deeper layers": "it moves points to other places, so shapes have to be read anew",
    },
    hint_text="Look at one point of the picture before and after. Is it still in its place?",
    remark="""
Measured with `nano`, R@1 with adapters on the first layers and on all later ones: inverted
58 and 47 %, solarized 57 and 44 %, red and blue 84 and 77 %; upside down 25 and 45 %,
turned 23 and 40 %, mirrored 71 and 74 %. (The test split, one seed, a rate of 0.01, five epochs:
the last experiment of the notebook has the lines.) So begin there; six looks are no law.
""",
    mistakes=(
        Wrong(
            "inverting thought to move shapes",
            "Inverted, a red point becomes cyan. Where is it?",
            "deeper layers",
            "colours inverted",
        ),
        Wrong(
            "upside down thought to be colour",
            "Each point keeps its colour. Where is it now?",
            "first layers",
            "upside down",
        ),
        Wrong(
            "solarizing thought to move shapes",
            "Solarized, bright points are inverted and dark ones not. Has any moved?",
            "deeper layers",
            "solarized",
        ),
        Wrong(
            "turning thought to be colour",
            "Each point keeps its colour. Where is it now?",
            "first layers",
            "turned by 90 degrees",
        ),
        Wrong(
            "exchanging channels thought to move shapes",
            "Three numbers of one point change places among themselves. And the point?",
            "deeper layers",
            "red and blue exchanged",
        ),
        Wrong(
            "mirroring thought to be colour",
            "Each point keeps its colour. Where is it now?",
            "first layers",
            "left and right mirrored",
        ),
    ),
)

WORDS = Question(
    id="05.6",
    title="What an adapter can't do there",
    difficulty=3,
    minutes=15,
    asks="""
Three experiments that need not be run (the first two are described below): thermal pictures with an
adapter on the text tower; Korean names, which `nano` has never read, with an adapter on the text
tower; and the same names with an adapter on the image tower. Each gains less than another way does.
Why?
""",
    stub="""
answer = {
    "thermal pictures, adapter on the text tower": "?",
    "Korean names, adapter on the text tower": "?",
    "Korean names, adapter on the image tower": "?",
}
""",
    right={
        "thermal pictures, adapter on the text tower": "one caption, two looks",
        "Korean names, adapter on the text tower": "rows of zeros",
        "Korean names, adapter on the image tower": "rows of zeros",
    },
    choices={
        "one caption, two looks": "this tower can't see what tells the two apart",
        "rows of zeros": "what comes in is the same for many, and no layer can tell it apart",
        "rank too low": "more directions would do it",
        "too few epochs": "a longer training would do it",
    },
    hint_text="""
For each, ask what reaches the layers that can learn, and what of it is the same for two pairs.
`clip.unknown_tokens("고양이")` says what the token table knows of a word.
""",
    remark="""
None of this has to be trained to be known. A caption has one feature, and both looks have to meet
it. And the 718 Korean names of the train split come in as 29 different inputs (the experiment on
Korean counts them): whatever is trained behind the table, in either tower, tells no more than 29
apart. The table itself has to learn.
""",
    mistakes=(
        Wrong(
            "thermal words: blamed on the rank",
            "At any rank: what of the picture does the text tower see?",
            "rank too low",
            "thermal pictures, adapter on the text tower",
        ),
        Wrong(
            "thermal words: blamed on the epochs",
            "However long it trains: what of the picture does the text tower see?",
            "too few epochs",
            "thermal pictures, adapter on the text tower",
        ),
        Wrong(
            "thermal words: blamed on the tokens",
            "These captions are English, and `nano` knows their words. What does it not know of "
            "the picture that they belong to?",
            "rows of zeros",
            "thermal pictures, adapter on the text tower",
        ),
        Wrong(
            "Korean: blamed on the rank",
            "Two words come in with the same numbers. At which rank do they come out apart?",
            "rank too low",
            "Korean names, adapter on the text tower",
        ),
        Wrong(
            "Korean: blamed on the epochs",
            "Two words come in with the same numbers. When do they come out apart?",
            "too few epochs",
            "Korean names, adapter on the text tower",
        ),
        Wrong(
            "Korean: blamed on the looks",
            "There is one look here, and it is an old one. What comes in for a word that was never "
            "met?",
            "one caption, two looks",
            "Korean names, adapter on the text tower",
        ),
        Wrong(
            "Korean, image tower: blamed on the rank",
            "A picture's feature may go anywhere. What if two names have one and the same feature?",
            "rank too low",
            "Korean names, adapter on the image tower",
        ),
        Wrong(
            "Korean, image tower: blamed on the epochs",
            "The pictures were known before. Is it they that can't be told apart?",
            "too few epochs",
            "Korean names, adapter on the image tower",
        ),
        Wrong(
            "Korean, image tower: blamed on the looks",
            "There is one look here. And which names does the text tower hand over?",
            "one caption, two looks",
            "Korean names, adapter on the image tower",
        ),
    ),
)

EXERCISES = (STEP, RECALL, CHOICE, FORGOTTEN, LOOKS, WORDS)
