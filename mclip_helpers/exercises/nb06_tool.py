"""Exercises of notebook 06: which tool for which task, and how sure one can be."""

from __future__ import annotations

import torch

from .programs import Mistake, Program
from .questions import Question, Wrong


def _hits(k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """1 where a picture is right, before and after, and the pictures that each resample draws."""
    n = 6 + 4 * k
    before = (torch.rand(n) > 0.6).double()
    after = torch.maximum(before, (torch.rand(n) > 0.6).double())
    after[0] = 1 - before[0]
    return before, after, torch.randint(0, n, (200, n))


def _tries(k: int) -> tuple[list[dict]]:
    """Three ways, or four, with four rates each; the ways are best at different rates."""
    ways = ["heads", "LoRA", "full", "batch norm"][: 4 if k == 3 else 3]
    runs = []
    rates = [0.001, 0.003, 0.01, 0.03]
    for w, way in enumerate(ways):
        best = (w + k) % 4
        for i, rate in enumerate(rates):
            val = 0.6 - 0.1 * abs(i - best) + 0.03 * torch.rand(1).item()
            test = 0.5 - 0.09 * abs(i - (best + 1) % 4) + 0.04 * torch.rand(1).item()
            runs.append({"way": way, "lr": rate, "val": val, "test": test})
    order = torch.randperm(len(runs)).tolist()
    return ([runs[i] for i in order],)


def _change(k: int) -> tuple[torch.Tensor, float]:
    """A matrix of known singular values, large ones or small ones, and a share."""
    if k == 5:
        return torch.eye(2), 0.5  # the share is reached exactly
    n = 4 + k
    left, right = (torch.linalg.qr(torch.randn(n, n))[0] for _ in range(2))
    values = torch.tensor([3.0, 2.2, 1.3, 1.0, 0.6, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05][:n])
    values[-1] *= k % 2  # in every other run one direction is not used at all
    values *= 0.1 if k == 3 else 1.0
    return left @ values.diag() @ right, (0.9, 0.8, 0.95, 0.6)[k % 4]


TOOLS = Question(
    id="06.1",
    title="When LoRA is the wrong tool",
    difficulty=2,
    minutes=10,
    asks="""
With which tool do you *begin* in each of these cases? The measurements of this notebook decide;
where they leave it open, begin with what costs nothing.
""",
    stub="""
answer = {
    "a thermal camera, 700 pictures, its formula unknown": "?",
    "the same camera, and you know its formula": "?",
    "another drawing style, where batch norm alone gains as much as LoRA": "?",
    "black sketches, 700 pictures, and nothing needs to be kept": "?",
    "three looks on one phone, to be switched on and off": "?",
    "the pictures have wide margins": "?",
}
""",
    right={
        "a thermal camera, 700 pictures, its formula unknown": "LoRA",
        "the same camera, and you know its formula": "change the pictures",
        "another drawing style, where batch norm alone gains as much as LoRA": "batch norm",
        "black sketches, 700 pictures, and nothing needs to be kept": "full fine-tuning",
        "three looks on one phone, to be switched on and off": "LoRA",
        "the pictures have wide margins": "change the pictures",
    },
    choices={
        "LoRA": "adapters on the first layers, or everywhere",
        "full fine-tuning": "every weight is trained",
        "batch norm": "its statistics see the new pictures; nothing is trained",
        "change the pictures": "undo what is known to have changed, and train nothing",
    },
    hint_text="Sections 1, 6 and 8, and section 10 of notebook 05, have a table for each of them.",
    remark="""
Ask in this order. Is the change known? Undo it. Is something free to be had? Batch norm sees the
new pictures once. Only then train, and let what has changed decide where. Whether it can be
switched off again is a question of its own, and only an adapter answers it with yes.
""",
    mistakes=(
        Wrong(
            "thermal: batch norm thought to do",
            "In the thermal look, batch norm alone gained nothing (section 1).",
            "batch norm",
            "a thermal camera, 700 pictures, its formula unknown",
        ),
        Wrong(
            "thermal: full thought to be best",
            "Look again at section 1: which way was ahead in the thermal look, and what did it "
            "keep?",
            "full fine-tuning",
            "a thermal camera, 700 pictures, its formula unknown",
        ),
        Wrong(
            "formula known: trained all the same",
            "No way of training got as far as section 6 does with a line of arithmetic.",
            "LoRA",
            "the same camera, and you know its formula",
        ),
        Wrong(
            "formula known: full",
            "What is *known* need not be learned.",
            "full fine-tuning",
            "the same camera, and you know its formula",
        ),
        Wrong(
            "style: LoRA out of habit",
            "If something that trains nothing and forgets nothing gains as much, what is LoRA for?",
            "LoRA",
            "another drawing style, where batch norm alone gains as much as LoRA",
        ),
        Wrong(
            "style: full out of habit",
            "The best way gains a little more there, and pays for it in the old look. Where does "
            "one *begin*?",
            "full fine-tuning",
            "another drawing style, where batch norm alone gains as much as LoRA",
        ),
        Wrong(
            "sketch: LoRA out of habit",
            "In section 1, LoRA got three quarters of what another way gained from sketches. And "
            "nothing needs to be kept here.",
            "LoRA",
            "black sketches, 700 pictures, and nothing needs to be kept",
        ),
        Wrong(
            "several looks: full",
            "Three full models are three models: what can be switched off and leaves the base bit "
            "for bit?",
            "full fine-tuning",
            "three looks on one phone, to be switched on and off",
        ),
        Wrong(
            "margins: trained",
            "What does section 6 do to the margins, before any training?",
            "LoRA",
            "the pictures have wide margins",
        ),
        Wrong(
            "margins: full",
            "Every weight, to learn what a crop does?",
            "full fine-tuning",
            "the pictures have wide margins",
        ),
        Wrong(
            "thermal: undone without a formula",
            "What would you undo? Here the formula is not known.",
            "change the pictures",
            "a thermal camera, 700 pictures, its formula unknown",
        ),
        Wrong(
            "formula known: batch norm",
            "In section 1, what did batch norm gain in this look? And what is *known* need not be "
            "estimated.",
            "batch norm",
            "the same camera, and you know its formula",
        ),
        Wrong(
            "style: undone without a formula",
            "Which formula turns one illustrator's drawing into another's?",
            "change the pictures",
            "another drawing style, where batch norm alone gains as much as LoRA",
        ),
        Wrong(
            "sketch: batch norm, as it is free",
            "It is free, and section 1 says how much of the best gain it gets there. Is the "
            "question still open?",
            "batch norm",
            "black sketches, 700 pictures, and nothing needs to be kept",
        ),
        Wrong(
            "sketch: undone without a formula",
            "Colours and areas are gone. Which formula would bring them back?",
            "change the pictures",
            "black sketches, 700 pictures, and nothing needs to be kept",
        ),
        Wrong(
            "several looks: batch norm",
            "New statistics replace the old ones, and in one of the looks of section 1 they gain "
            "nothing. What can be switched off and leaves the base bit for bit?",
            "batch norm",
            "three looks on one phone, to be switched on and off",
        ),
        Wrong(
            "several looks: undone without a formula",
            "Nothing says that the three formulas are known. What can be switched on and off?",
            "change the pictures",
            "three looks on one phone, to be switched on and off",
        ),
        Wrong(
            "margins: batch norm",
            "Statistics crop nothing. What does section 6 do to the margins?",
            "batch norm",
            "the pictures have wide margins",
        ),
    ),
)

OTHER_PICTURES = (
    "You draw other pictures for the new model than for the old one. Then the interval also holds "
    "the luck of the draw, and is too wide."
)
BELL_CURVE = (
    "Close, by another method: a formula for a bell curve. Percentiles need no curve, and each row "
    "of `drawn` gives one difference."
)
ENDS = (
    "You subtract the ends of two intervals. How far each model moves with the draw is not how far "
    "their *difference* does: what does one resample say of it?"
)

INTERVAL = Program(
    id="06.2",
    title="How sure is a difference?",
    difficulty=2,
    minutes=12,
    asks="""
For each test picture you know whether the old and the new model are right (1 or 0). `drawn` has one
row for each resample: the pictures that it draws. Return the interval of 95 % of the difference
new −
old: from the 2.5th to the 97.5th percentile of the resamples' differences. Draw the same pictures
for
both models.
""",
    stub='''
def interval(old: torch.Tensor, new: torch.Tensor, drawn: torch.Tensor) -> tuple[float, float]:
    """(low, high) of mean(new) − mean(old), from hits (N,) and the draws (resamples, N)."""
    ...  # your lines here
''',
    solved='''
def interval(old: torch.Tensor, new: torch.Tensor, drawn: torch.Tensor) -> tuple[float, float]:
    """(low, high) of mean(new) − mean(old), from hits (N,) and the draws (resamples, N)."""
    differences = (new - old)[drawn].mean(dim=1)
    return differences.quantile(0.025).item(), differences.quantile(0.975).item()
''',
    inputs=_hits,
    hint_text="`old[drawn]` has one row for each resample. `tensor.quantile(0.025)` does the rest.",
    remark="Paired: a picture that is hard for both models then moves neither end of the interval.",
    mistakes=(
        Mistake(
            "90 % instead of 95 %",
            "5 % are cut off at *each* end: that leaves 90 % inside.",
            {"0.025": "0.05", "0.975": "0.95"},
        ),
        Mistake(
            "not paired: rows shifted",
            OTHER_PICTURES,
            {
                "(new - old)[drawn].mean(dim=1)": "new[drawn.roll(1, 0)].mean(dim=1) "
                "- old[drawn].mean(dim=1)"
            },
        ),
        Mistake(
            "old − new",
            "You subtract the new model from the old one: gains look like losses.",
            {"(new - old)": "(old - new)"},
        ),
        Mistake(
            "only the new model",
            "This is the interval of the new model alone. Is the *difference* sure?",
            {"(new - old)": "new"},
        ),
        Mistake(
            "smallest and largest",
            "These are the extremes of all resamples: they grow with their number.",
            {"quantile(0.025)": "min()", "quantile(0.975)": "max()"},
        ),
        Mistake(
            "mean of the wrong axis",
            "You average over the resamples. Each resample has one difference: its mean.",
            {"mean(dim=1)": "mean(dim=0)"},
        ),
        Mistake(
            "two standard deviations of a picture",
            "You take the spread of single pictures, not of means over a draw.",
            """
def interval(old, new, drawn):
    difference = new - old
    middle, spread = difference.mean().item(), difference.std().item()
    return middle - 1.96 * spread, middle + 1.96 * spread
""",
        ),
        Mistake(
            "high before low",
            "Both ends are right, in the other order.",
            """
def interval(old, new, drawn):
    differences = (new - old)[drawn].mean(dim=1)
    return differences.quantile(0.975).item(), differences.quantile(0.025).item()
""",
        ),
        Mistake(
            "number of pictures instead of a share",
            "You add up where you should average: the interval is in pictures.",
            {"mean(dim=1)": "sum(dim=1)"},
        ),
        Mistake(
            "nothing drawn",
            "No resample enters: these are percentiles of the pictures themselves.",
            {"(new - old)[drawn].mean(dim=1)": "(new - old)"},
        ),
        Mistake(
            "not paired: rows reversed",
            OTHER_PICTURES,
            {
                "(new - old)[drawn].mean(dim=1)": "new[drawn].mean(dim=1) "
                "- old[drawn.flip(0)].mean(dim=1)"
            },
        ),
        Mistake(
            "not paired: new pictures for the new model",
            OTHER_PICTURES,
            {
                "(new - old)[drawn].mean(dim=1)": "new[torch.randint(len(new), drawn.shape)]"
                ".mean(dim=1) - old[drawn].mean(dim=1)"
            },
        ),
        Mistake(
            "not paired: new pictures for the old model",
            OTHER_PICTURES,
            {
                "(new - old)[drawn].mean(dim=1)": "new[drawn].mean(dim=1) "
                "- old[torch.randint(len(old), drawn.shape)].mean(dim=1)"
            },
        ),
        Mistake(
            "ends subtracted, low from low",
            ENDS,
            """
def interval(old, new, drawn):
    before, after = old[drawn].mean(dim=1), new[drawn].mean(dim=1)
    low = after.quantile(0.025) - before.quantile(0.025)
    return low.item(), (after.quantile(0.975) - before.quantile(0.975)).item()
""",
        ),
        Mistake(
            "ends subtracted, high from low",
            ENDS,
            """
def interval(old, new, drawn):
    before, after = old[drawn].mean(dim=1), new[drawn].mean(dim=1)
    low = after.quantile(0.025) - before.quantile(0.975)
    return low.item(), (after.quantile(0.975) - before.quantile(0.025)).item()
""",
        ),
        Mistake(
            "two standard deviations of the resamples",
            "Close, by another method: this takes the resamples for a bell curve. Percentiles need "
            "no curve.",
            """
def interval(old, new, drawn):
    differences = (new - old)[drawn].mean(dim=1)
    middle, spread = differences.mean().item(), differences.std().item()
    return middle - 1.96 * spread, middle + 1.96 * spread
""",
        ),
        Mistake(
            "a formula instead of resamples",
            BELL_CURVE,
            """
def interval(old, new, drawn):
    difference = new - old
    middle, spread = difference.mean().item(), difference.std().item() / len(old) ** 0.5
    return middle - 1.96 * spread, middle + 1.96 * spread
""",
        ),
        Mistake(
            "a formula with a rounded factor",
            BELL_CURVE,
            """
def interval(old, new, drawn):
    difference = new - old
    middle, spread = difference.mean().item(), difference.std().item() / len(old) ** 0.5
    return middle - 2 * spread, middle + 2 * spread
""",
        ),
        Mistake(
            "old model not resampled",
            "The new model is measured on each draw, and the old one always on all pictures. Asked "
            "is a difference on the *same* pictures.",
            {"(new - old)[drawn].mean(dim=1)": "new[drawn].mean(dim=1) - old.mean()"},
        ),
        Mistake(
            "a quarter at the lower end",
            "Your lower end cuts off a quarter: how much is 2.5 %, as a share?",
            {"quantile(0.025)": "quantile(0.25)"},
        ),
        Mistake(
            "in points",
            "The interval is right, in percentage points. `old` and `new` count shares, 0 to 1.",
            {"mean(dim=1)": "mean(dim=1) * 100"},
        ),
        Mistake(
            "sign dropped",
            "You drop the sign: a resample in which the new model is worse counts as a gain.",
            {"mean(dim=1)": "mean(dim=1).abs()"},
        ),
        Mistake(
            "pictures of all draws in one heap",
            "These are percentiles of single pictures, over all draws. What does one *resample* "
            "say?",
            {".mean(dim=1)": ".flatten()"},
        ),
        Mistake(
            "positions in the sorted row",
            "Nearly: of 200 sorted values, the percentile lies *between* two. `quantile` finds its "
            "place.",
            """
def interval(old, new, drawn):
    row, count = (new - old)[drawn].mean(dim=1).sort().values, len(drawn)
    return row[int(0.025 * count)].item(), row[int(0.975 * count)].item()
""",
        ),
    ),
)

FAIR = Program(
    id="06.3",
    title="A fair chance for each",
    difficulty=2,
    minutes=10,
    asks="""
Each way was trained with the same number of learning rates. Return the R@1 on the test split that
you
would report for each way, as a dictionary: each way with the rate that suits *it*, and chosen by
the
validation split.
""",
    stub='''
def best_of_each(runs: list[dict]) -> dict[str, float]:
    """{way: R@1 to report}. Each run has "way", "lr", "val" and "test"."""
    ...  # your lines here
''',
    solved='''
def best_of_each(runs: list[dict]) -> dict[str, float]:
    """{way: R@1 to report}. Each run has "way", "lr", "val" and "test"."""
    best = {}
    for run in runs:
        way = run["way"]
        if way not in best or run["val"] > best[way]["val"]:
            best[way] = run
    return {way: run["test"] for way, run in best.items()}
''',
    inputs=_tries,
    hint_text="One choice for each way. Which key of a run may choose, and which may only report?",
    remark="Whoever tunes one way and not the others decides which one wins.",
    mistakes=(
        Mistake(
            "one rate for all",
            "You give all ways the rate of the best run of all. It suits one of them.",
            """
def best_of_each(runs):
    rate = max(runs, key=lambda run: run["val"])["lr"]
    return {run["way"]: run["test"] for run in runs if run["lr"] == rate}
""",
        ),
        Mistake(
            "chosen by the test split",
            "The test split chooses, and then reports its own choice.",
            {'run["val"] > best[way]["val"]': 'run["test"] > best[way]["test"]'},
        ),
        Mistake(
            "validation reported",
            "You report the numbers that made the choice: each is the best of several, and too "
            "good.",
            {'run["test"] for way': 'run["val"] for way'},
        ),
        Mistake(
            "mean over the rates",
            "You average over the rates: a way is judged by settings that nobody would use.",
            """
def best_of_each(runs):
    tests = {}
    for run in runs:
        tests.setdefault(run["way"], []).append(run["test"])
    return {way: sum(several) / len(several) for way, several in tests.items()}
""",
        ),
        Mistake(
            "the last run of each way",
            "The last run of each way stays. Nothing says that it is the best.",
            {'way not in best or run["val"] > best[way]["val"]': "True"},
        ),
        Mistake(
            "the first run of each way",
            "The first run of each way stays, and no other gets a chance.",
            {' or run["val"] > best[way]["val"]': ""},
        ),
        Mistake(
            "the worst of each way",
            "You keep the run that does worst on the validation split.",
            {'run["val"] > best': 'run["val"] < best'},
        ),
        Mistake(
            "the smallest rate",
            "You take the smallest learning rate of each way. It suits some of them.",
            {'run["val"] > best[way]["val"]': 'run["lr"] < best[way]["lr"]'},
        ),
        Mistake(
            "only the winner",
            "You report the best way alone. Asked is one number for each.",
            {"best.items()}": 'best.items() if run is max(best.values(), key=lambda r: r["val"])}'},
        ),
        Mistake(
            "both splits choose",
            "The test split has a vote in the choice, and then reports it.",
            {
                'run["val"] > best[way]["val"]': 'run["val"] + run["test"] > best[way]["val"] '
                '+ best[way]["test"]'
            },
        ),
        Mistake(
            "chosen by test, validation reported",
            "The two splits have exchanged their roles.",
            {
                'run["val"] > best[way]["val"]': 'run["test"] > best[way]["test"]',
                'run["test"] for way': 'run["val"] for way',
            },
        ),
        Mistake(
            "the learning rates",
            "These are the rates that were chosen. Asked is how good the ways are with them.",
            {'run["test"] for way': 'run["lr"] for way'},
        ),
        Mistake(
            "ways listed by hand",
            "These runs have a way that your list does not know. Where can the ways be read?",
            """
def best_of_each(runs):
    best = {}
    for way in ("heads", "LoRA", "full"):
        mine = [run for run in runs if run["way"] == way]
        best[way] = max(mine, key=lambda run: run["val"])["test"]
    return best
""",
        ),
        Mistake(
            "validation compared with the kept test",
            "You keep a number of the test split, and compare the next one of the validation split "
            "with it. Which of its numbers made a run the best so far?",
            """
def best_of_each(runs):
    best = {}
    for run in runs:
        if run["way"] not in best or run["val"] > best[run["way"]]:
            best[run["way"]] = run["test"]
    return best
""",
        ),
        Mistake(
            "one best for all ways",
            "Your best so far is one for all ways: a run has to beat the other ways' runs, too.",
            """
def best_of_each(runs):
    best, reported = 0, {}
    for run in runs:
        if run["val"] > best:
            best = run["val"]
            reported[run["way"]] = run["test"]
    return reported
""",
        ),
        Mistake(
            "the rate that is best on average",
            "You give all ways one rate, the best on average. Does it suit each of them?",
            """
def best_of_each(runs):
    rates = {}
    for run in runs:
        rates.setdefault(run["lr"], []).append(run["val"])
    rate = max(rates, key=lambda lr: sum(rates[lr]) / len(rates[lr]))
    return {run["way"]: run["test"] for run in runs if run["lr"] == rate}
""",
        ),
    ),
)

BESIDE_THE_LARGEST = (
    "You count those that are large beside the *largest*. Asked is a share of the sum."
)
ONE_SQUARE_TOO_MANY = (
    "A square or a root too many on one side: on both sides, is it a share of a sum of *squares*?"
)
NO_SHARE = "What do all parts add up to in yours? A share ends at 1."

DIRECTIONS = Program(
    id="06.4",
    title="How many directions did it take?",
    difficulty=3,
    minutes=12,
    asks="""
How many singular values of ΔW does it take for at least a `share` of the whole change? As in
section 4, the size of a change is the sum of the *squares* of its singular values.
""",
    stub='''
def count_directions(delta: torch.Tensor, share: float) -> int:
    """The smallest number of singular values whose squares add up to at least `share` of all."""
    ...  # your lines here
''',
    solved='''
def count_directions(delta: torch.Tensor, share: float) -> int:
    """The smallest number of singular values whose squares add up to at least `share` of all."""
    squares = torch.linalg.svdvals(delta) ** 2
    reached = squares.cumsum(0) / squares.sum()
    return 1 + int((reached < share).sum())
''',
    inputs=_change,
    hint_text="`torch.linalg.svdvals` gives them largest first; `cumsum` adds up. Then count.",
    remark="""
A LoRA of rank r can't use more than r directions. The count says how many it did use. Near r, a
higher rank is worth a try; far below, a lower one may do. Whether it does is for R@1 to say, as in
the table of ranks.
""",
    mistakes=(
        Mistake(
            "not squared",
            "You add up the singular values themselves, and so count small ones for too much.",
            {" ** 2": ""},
        ),
        Mistake(
            "one too few",
            "You count those that don't reach the share yet. One more does.",
            {"1 + int(": "int("},
        ),
        Mistake(
            "one too many",
            "The last one that you count is no longer needed.",
            {"1 + int(": "2 + int("},
        ),
        Mistake(
            "the rank",
            "This is the rank: every direction counts, however weak.",
            {"1 + int((reached < share).sum())": "int(torch.linalg.matrix_rank(delta))"},
        ),
        Mistake(
            "each beside the largest",
            BESIDE_THE_LARGEST,
            {"squares.cumsum(0) / squares.sum()": "1 - squares / squares[0]"},
        ),
        Mistake(
            "values above a share of the largest",
            BESIDE_THE_LARGEST,
            """
def count_directions(delta, share):
    values = torch.linalg.svdvals(delta)
    return int((values > share * values[0]).sum())
""",
        ),
        Mistake(
            "squares above a share of the largest",
            BESIDE_THE_LARGEST,
            {"1 + int((reached < share).sum())": "int((squares > share * squares[0]).sum())"},
        ),
        Mistake(
            "smallest first",
            "You begin with the weakest direction, so it takes nearly all of them.",
            {"squares.cumsum(0)": "squares.flip(0).cumsum(0)"},
        ),
        Mistake(
            "those beyond the share",
            "You count what comes *after* the share has been reached.",
            {"1 + int((reached < share).sum())": "int((reached >= share).sum())"},
        ),
        Mistake(
            "share squared",
            ONE_SQUARE_TOO_MANY,
            {"reached < share": "reached < share**2"},
        ),
        Mistake(
            "root of the share",
            ONE_SQUARE_TOO_MANY,
            {"reached < share": "reached < share**0.5"},
        ),
        Mistake(
            "no share",
            NO_SHARE,
            {" / squares.sum()": ""},
        ),
        Mistake(
            "share in percent",
            "You divide the share by 100: it is 0 to 1 already.",
            {"reached < share": "reached < share / 100"},
        ),
        Mistake(
            "the share that is reached",
            "This is the share that is reached. With how many directions?",
            {"1 + int((reached < share).sum())": "reached[(reached < share).sum()].item()"},
        ),
        Mistake(
            "a share of the number",
            "You take a share of their *number*, as if all directions were equally strong.",
            {"1 + int((reached < share).sum())": "math.ceil(share * len(squares))"},
        ),
        Mistake(
            "one more where it is met exactly",
            "A share that is reached exactly *is* reached: no further direction is needed.",
            {"reached < share": "reached <= share"},
        ),
        Mistake(
            "at most the share",
            "You count those that stay *within* the share. It has to be reached.",
            {"1 + int((reached < share).sum())": "int((reached <= share).sum())"},
        ),
        Mistake(
            "fourth powers",
            "You square twice: eigenvalues of ΔWᵀΔW, for one, are squares already.",
            {"** 2": "** 4"},
        ),
        Mistake(
            "eigenvalues",
            "These are eigenvalues of ΔW. They are its singular values only where ΔW is symmetric "
            "and none of them is negative.",
            {
                "torch.linalg.svdvals(delta)": "torch.linalg.eigvals(delta).abs()"
                ".sort(descending=True).values"
            },
        ),
        Mistake(
            "rows instead of directions",
            "These are the lengths of the rows. One direction moves all rows at once: which "
            "numbers belong to directions?",
            {"torch.linalg.svdvals(delta)": "delta.norm(dim=1).sort(descending=True).values"},
        ),
        Mistake(
            "squared too late",
            "You square sums of singular values. Asked is a sum of squares.",
            {
                "svdvals(delta) ** 2": "svdvals(delta)",
                "squares.cumsum(0) / squares.sum()": "(squares.cumsum(0) / squares.sum()) ** 2",
            },
        ),
        Mistake(
            "entries instead of directions",
            "These are the entries of the matrix, sorted. One direction moves many of them at "
            "once: which numbers belong to directions?",
            {"torch.linalg.svdvals(delta)": "delta.flatten().abs().sort(descending=True).values"},
        ),
        Mistake(
            "each by itself",
            "You ask which directions reach the share alone. They reach it together.",
            {"1 + int((reached < share).sum())": "int((squares / squares.sum() >= share).sum())"},
        ),
    ),
)

EXERCISES = (TOOLS, INTERVAL, FAIR, DIRECTIONS)
