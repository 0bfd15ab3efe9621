"""The last test of understanding: ten questions on the whole series, four choices each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..display import Html, html_text
from .cards import Checked, Shown, question_card
from .findings import Finding, Kind
from .forms import flowed
from .questions import Question, Wrong
from .words import sentences

LETTERS = "ABCD"


@dataclass(frozen=True)
class Choice:
    """One of four: a text, and what is wrong with it; `name` is for the teacher's table."""

    text: str
    name: str = ""
    says: str = ""


def _question(
    number: int, title: str, asks: str, hint: str, remark: str, *choices: Choice
) -> Question:
    """A question; the choice without a name is the right one."""
    named = dict(zip(LETTERS, choices, strict=True))
    (right,) = [letter for letter, choice in named.items() if not choice.name]
    return Question(
        id=f"last.{number}",
        title=title,
        difficulty=2,
        minutes=2,
        asks=asks,
        stub='answer = "?"',
        hint_text=hint,
        remark=remark,
        right=right,
        choices={letter: choice.text for letter, choice in named.items()},
        mistakes=tuple(
            Wrong(choice.name, flowed(choice.says), letter)
            for letter, choice in named.items()
            if choice.name
        ),
    )


QUESTIONS = (
    _question(
        1,
        "Both at zero",
        """
LoRA starts with A random and B = 0. A colleague sets both to zero: "Then it is even more certain
that nothing changes at first." What will training do?
""",
        "Notebook 02, section 5; notebook 04, section 5.",
        """
∂L/∂B has Ax as a factor and ∂L/∂A has B: with both at zero, each waits for the other. One of the
two at zero is enough to start from the unchanged model.
""",
        Choice(
            "Train as usual: an optimizer needs no random numbers to begin with.",
            "zero gradients thought to train",
            """
An optimizer needs a gradient. Write down the gradient of B: which product is a factor of it?
""",
        ),
        Choice(
            "Train one step later: in the first step only B moves, then A does, too.",
            "usual start and zero start confused",
            "So it goes where A is random. What would move B here, in the first step?",
        ),
        Choice("Nothing, in no step: each gradient has the other matrix as a factor."),
        Choice(
            "Train an update of rank 1: all rows of A begin equal, and they stay equal.",
            "equal and zero confused",
            """
Rows that are equal and not zero would do that. Rows of zeros give a gradient of which size?
""",
        ),
    ),
    _question(
        2,
        "The price of a place",
        """
An adapter on the stem of the image tower trains 792 numbers, an adapter on its head 14,848. Whose
training step is cheaper?
""",
        "Notebook 04, section 7; notebook 06, section 3.",
        """
A step pays for the way that the gradient travels, and for what autograd keeps along it: the place
decides, and the count of trained numbers hardly matters.
""",
        Choice(
            "The head's: its gradient travels through few layers, for which little has been kept."
        ),
        Choice(
            "The stem's: it has a small part of the numbers to train and to update.",
            "price counted in trained numbers",
            """
The update of the adapter is the least of it. Through which layers does the gradient travel before
it reaches the stem?
""",
        ),
        Choice(
            "Neither: in both cases the whole model runs forward, and that takes the time.",
            "backward pass thought to be free",
            """
Forward they do the same. What does autograd keep on the way, and how far does it go back?
""",
        ),
        Choice(
            "The stem's: it is the first layer, so the backward pass reaches it first.",
            "backward pass in the forward order",
            "The backward pass starts at the loss. At which end of the tower is that?",
        ),
    ),
    _question(
        3,
        "Four times eight",
        """
For a classifier, the gradients of four batches of 8, added up, are that of one batch of 32 (up to a
factor). For the contrastive loss they are not. Why?
""",
        "Notebook 07, section 7; notebook 03, section 4.",
        """
A pair's loss depends on the other pairs of its batch, so the loss of 32 is no sum of four losses
of 8. GradCache adds up what can be added: gradients of features, after one loss over all of them.
""",
        Choice(
            "The four losses are means: divide each by four first.",
            "a factor thought to repair it",
            "That was done, and more than half of it was still wrong. 07.2 tries all factors.",
        ),
        Choice(
            "Batch norm computes its statistics over 8 pictures each time, and not over 32.",
            "batch norm blamed",
            """
So it would if batch norm were moving. Here it is held, and the gradients differ all the same.
""",
        ),
        Choice(
            "Sums of floating-point numbers depend on their order, and these errors add up.",
            "rounding blamed",
            "How large is rounding in float64? The difference that notebook 07 measured is 0.58.",
        ),
        Choice("In a batch of 8, a picture is told from 7 wrong captions instead of 31."),
    ),
    _question(
        4,
        "Six of a hundred",
        """
On the same 100 test pictures one way has an R@1 of 73 % and another 67 %. The interval (95 %) of
the difference is −2 to +14 points. What follows?
""",
        "Notebook 06, section 8.",
        """
Zero is in the interval, and so is 14. Where the test can't decide, cost may: memory, time, whether
it can be switched off.
""",
        Choice(
            "The first one is better, by six points: it found six pictures more.",
            "a difference without its interval",
            "Another hundred pictures might have said the opposite. What is in the interval?",
        ),
        Choice("This test can't tell them apart: take the cheaper, or test with more pictures."),
        Choice(
            "They are equally good: zero is in the interval, so there is no difference.",
            "not seen taken for not there",
            "Zero is in it, and 14 points are in it, too. Does the test rule out either?",
        ),
        Choice(
            "Train both with ten more seeds and test each on these 100 pictures: that decides it.",
            "seeds in place of test pictures",
            """
Seeds show how much training varies. There would still be only these hundred pictures.
""",
        ),
    ),
    _question(
        5,
        "Red and blue",
        """
A new camera exchanges red and blue in every picture; nothing else is different. The model's R@1 has
fallen by a quarter. Where do you begin?
""",
        "Notebook 06, sections 6 and 8.",
        """
What is known can be undone, exactly and for nothing. Training is for what is left.
""",
        Choice("Exchange the two channels back before the transform, and train nothing."),
        Choice(
            "LoRA on the first layers: that is where colours are read, and 12,056 numbers do.",
            "training what a formula undoes",
            """
It would learn something like it, for the price of pictures and training. What do you know about
the change?
""",
        ),
        Choice(
            "Full fine-tuning: the stem has learned colours, and adapters leave it frozen.",
            "adapter thought to leave its layer as it was",
            """
W is frozen, and W + ΔW is not: an adapter could change it. But does anything have to be learned?
""",
        ),
        Choice(
            "Let batch norm see the new pictures: that is free.",
            "batch norm thought to mix channels",
            """
Batch norm moves and scales each channel by itself. Can that exchange two of them?
""",
        ),
    ),
    _question(
        6,
        "What a gate is for",
        """
An exported model runs in the browser: no error, all shapes are right. Why does it have to pass a
gate all the same, such as a worst cosine with the original?
""",
        "Notebook 08, sections 1 and 3; exercise 08.3.",
        """
A wrong transform, a missing normalisation, eight bits too few: each runs, and each is seen in a
number whose right value is known.
""",
        Choice(
            "To find out how much faster the export is.",
            "gate and benchmark confused",
            "That is a benchmark. A wrong export can be very fast.",
        ),
        Choice(
            "To prove that the export computes the same as the original to the last bit.",
            "equal bits expected of an export",
            """
Another runtime adds in another order, and half precision rounds: no bit-for-bit proof would ever
pass. So what does a gate with a tolerance tell?
""",
        ),
        Choice(
            "To correct the features of pictures on which the export has drifted away.",
            "gate thought to repair",
            "A gate corrects nothing: it lets through, or it refuses.",
        ),
        Choice("Because most mistakes of an export change numbers and raise no error."),
    ),
    _question(
        7,
        "A local variable",
        """
A function computes `loss` from a model, calls `loss.backward()` and returns nothing. Afterwards
each adapter has a gradient. How did it get there?
""",
        "Notebook 04, section 4.",
        """
Names play no part in it: `AccumulateGrad.variable` is the weight. The loss and its graph are gone
when the function returns, and `.grad` stays, because the weight holds it.
""",
        Choice(
            "PyTorch keeps a list of all tensors that require a gradient, for backward.",
            "a global list imagined",
            """
Then a second model, which has nothing to do with this loss, would get a gradient, too. What does
`loss.grad_fn` hold?
""",
        ),
        Choice("The loss leads to nodes, these to others, and the last ones hold the weights."),
        Choice(
            "The model is a variable of the same function, and there backward looks it up.",
            "backward thought to know variables",
            """
`backward()` is told of no variable. Notebook 04 deletes the name, and the weight is reached.
""",
        ),
        Choice(
            "The optimizer was given the weights, and it passes them on when backward runs.",
            "optimizer thought to lead backward",
            "Leave the optimizer out: the gradients arrive all the same. When does it read them?",
        ),
    ),
    _question(
        8,
        "A large entry",
        """
G is the gradient of the contrastive loss at the scores. Off the diagonal, in row i and column
j, it has one entry that is large. What does that say?
""",
        "Notebook 03, section 10.",
        """
G is belief minus truth, divided by N. Off the diagonal the truth is 0, so what is left is belief:
the softmax finds hard negatives by itself.
""",
        Choice(
            "Picture i and caption j are far apart, and a step has to bring them together.",
            "sign of the gradient",
            """
Far apart means a small probability, and so a small entry. And which way does a step against the
gradient move a score whose gradient is positive?
""",
        ),
        Choice(
            "Picture i came with caption j, so the labels of this batch are shifted.",
            "belief taken for truth",
            "Picture i came with caption i. What the entry shows is what the model believes.",
        ),
        Choice("The model confuses picture i with caption j, and a step pushes them apart."),
        Choice(
            "The scale is too large: with a temperature of 1 all entries would be equal.",
            "temperature blamed",
            """
A smaller scale makes the softmax flatter, and entries still differ. What is it that makes this
one large?
""",
        ),
    ),
    _question(
        9,
        "Another model after loading",
        """
All weights of the base were frozen, the adapter was trained, saved, and loaded onto the same base
elsewhere. There is no error, and the embeddings are clearly others. What was forgotten?
""",
        "Notebook 02, section 6.",
        """
Running means and variances are buffers: `requires_grad = False` does not stop them, and a file of
A and B does not hold them.
""",
        Choice(
            "To merge the adapter into the base before it was saved.",
            "merge thought to be needed",
            """
An adapter that is not merged gives the same embeddings: notebook 05 compared them to the last bit.
""",
        ),
        Choice(
            "To save the optimizer's two running averages with the adapter.",
            "optimizer thought to be part of the model",
            "One needs them to go on training. Does an embedding use them?",
        ),
        Choice(
            "To say rank and α again when the adapter was loaded.",
            "configuration thought to be lost",
            "Both stand in `adapter_config.json`, and the loader reads it.",
        ),
        Choice("To hold batch norm: its statistics moved, and the file has none of them."),
    ),
    _question(
        10,
        "Which number to report",
        """
You have tried four learning rates. On the validation split the second is best, on the test split
the third. Which R@1 goes into the report?
""",
        "Notebook 05, sections 1 and 4; exercise 05.3.",
        """
The validation split chooses, the test split is asked once, about what was chosen. Then its answer
is nobody's luckiest of four.
""",
        Choice(
            "The third rate's on the test split: those pictures have never been trained on.",
            "chosen by the test split",
            """
They were not trained on, and they would have chosen. Of four tries, the luckiest on these very
pictures would be reported.
""",
        ),
        Choice("The second rate's on the test split, though the third did better there."),
        Choice(
            "The second rate's on the validation split: that is the one it was chosen by.",
            "reported on what chose",
            """
The best of four, on the pictures that made it the best: some of that is luck. Which pictures have
had no say?
""",
        ),
        Choice(
            "The mean of all four on the test split: in it, good and bad luck cancel out.",
            "mean over settings",
            "Nobody will use a mean of four adapters. Whose quality is to be reported?",
        ),
    ),
)


class TestChecked(Html):
    """What a check of the last test found: a card for each answer, and data in `checked`."""

    def __init__(self, checked: Mapping[int, Checked], trouble: Sequence[str] = ()) -> None:
        self.checked = dict(checked)
        given = [c for c in checked.values() if c.finding.kind is not Kind.NOT_YET]
        self.right = sum(c.finding.is_right for c in given)
        still_open = [str(n) for n, c in checked.items() if c.finding.kind is Kind.NOT_YET]
        head = f"{self.right} of {len(checked)} are right."
        if still_open:
            head += f" Still open: {', '.join(still_open)}."
        head = " ".join([head, *trouble])
        source = f"<p><b>{html_text(head)}</b></p>" + "".join(c.source for c in given)
        super().__init__(source, "\n\n".join([head, *(c.text for c in given)]))


@dataclass(frozen=True)
class LastTest:
    """Ten questions; show it to read them. `check(answers)` explains each wrong choice."""

    questions: tuple[Question, ...]

    def check(self, answers: Mapping[int, str]) -> TestChecked:
        """What is right, and what is wrong with what is not: {1: "A", 2: "?", …}.

        A question whose answer is "?" or missing is still open. Never raises because of the
        answers. Outcomes are noted as those of exercises are.
        """
        numbered = dict(enumerate(self.questions, start=1))
        given: Mapping = answers if isinstance(answers, Mapping) else {}
        checked = {n: question.check(given.get(n)) for n, question in numbered.items()}
        if given is answers:
            return TestChecked(checked)
        form = Finding(Kind.PARTS, names=tuple(map(str, numbered)))
        return TestChecked(checked, sentences(form))

    def hint(self, number: int) -> Shown:
        """Where to read again for one question. ValueError if there is none of this number."""
        if number not in range(1, len(self.questions) + 1):
            raise ValueError(f"there are questions 1 to {len(self.questions)}, not {number!r:.40}")
        return self.questions[number - 1].hint()

    def __repr__(self) -> str:
        return "\n\n".join(question_card(question).text for question in self.questions)

    def _repr_html_(self) -> str:
        return "".join(question_card(question).source for question in self.questions)


def last_test() -> LastTest:
    """Ten questions on the whole series, with an explanation for each wrong choice."""
    return LastTest(QUESTIONS)
