"""Exercises of notebook 01: embeddings, search, classification, and what a picture becomes."""

from __future__ import annotations

import torch

from .programs import Mistake, Program
from .questions import Question, Wrong


def _search(k: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Features of 5 + k pictures, some of them long, and of one text."""
    pictures = torch.randn(5 + k, 3) * torch.linspace(0.5, 4, 5 + k)[:, None]
    return pictures[torch.randperm(5 + k)], torch.randn(3), 2 + k // 3


def _classes(k: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Features of pictures and of labels, not of length 1; N < C < D, so that no two are equal."""
    return 2 * torch.randn(2 + k // 3, 4 + k), 3 * torch.randn(3 + k, 4 + k), 4.0 + k


def _with_alpha(k: int) -> tuple[torch.Tensor]:
    """A picture (4, H, W) with numbers in 0…1: red, green, blue and how opaque."""
    picture = torch.rand(4, 1 + k, 5)
    picture[3, 0] = torch.tensor([0.0, 1.0, 0.5, 0.3, 0.9])
    return (picture,)


def _two_clouds(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and texts (N, D) around two different centres; N > D."""
    n = 4 + k
    return torch.randn(n, 3) + torch.tensor([2.0, 0, 1]), torch.randn(n, 3) - 1.5


SEARCH = Program(
    id="01.1",
    title="Search by hand",
    difficulty=1,
    minutes=5,
    asks="""
Return the positions of the `k` pictures that fit a text best, best first. The features are as the
towers give them: not of length 1.
""",
    stub='''
def search(pictures: torch.Tensor, text: torch.Tensor, k: int) -> list[int]:
    """The rows of `pictures` (N, D) with the largest cosines to `text` (D,), best first."""
    ...  # your lines here
''',
    solved='''
def search(pictures: torch.Tensor, text: torch.Tensor, k: int) -> list[int]:
    """The rows of `pictures` (N, D) with the largest cosines to `text` (D,), best first."""
    directions = pictures / pictures.norm(dim=1, keepdim=True)
    cosines = directions @ text
    return cosines.topk(k).indices.tolist()
''',
    inputs=_search,
    hint_text="""
Bring each picture's vector to length 1; then one matrix product has one cosine for each picture.
`tensor.topk(k).indices` gives the positions of the `k` largest.
""",
    remark="""
The text's own length does not matter here: it changes all cosines by the same factor, and no order.
""",
    mistakes=(
        Mistake(
            "no normalising",
            "A long vector wins here although its direction fits less. What is a cosine made of, "
            "apart from the dot product?",
            {"pictures / pictures.norm(dim=1, keepdim=True)": "pictures"},
        ),
        Mistake(
            "worst first",
            "These fit worst. Which end of the order is the best one?",
            {"cosines.topk(k)": "cosines.topk(k, largest=False)"},
        ),
        Mistake(
            "the best ones, worst first",
            "The right pictures, in the wrong order: best first.",
            {".tolist()": ".flip(0).tolist()"},
        ),
        Mistake(
            "the best ones in the order of the data",
            "The right pictures, in the order in which they are stored. The best should be first.",
            {"cosines.topk(k).indices.tolist()": "sorted(cosines.topk(k).indices.tolist())"},
        ),
        Mistake(
            "cosines instead of positions",
            "These are the cosines themselves. Asked is *where* they are.",
            {".indices": ".values"},
        ),
        Mistake(
            "cosines, of a text of length 1",
            "These are the cosines themselves. Asked is *where* they are.",
            {"directions @ text": "directions @ F.normalize(text, dim=0)", ".indices": ".values"},
        ),
        Mistake(
            "counted from one",
            "The right pictures, and each position is one too high. Where does counting begin?",
            {".indices.tolist()": ".indices.add(1).tolist()"},
        ),
        Mistake(
            "lengths without their axis",
            "One length for each row came out, and the shapes don't fit. Which argument of `norm` "
            "keeps the axis?",
            {"norm(dim=1, keepdim=True)": "norm(dim=1)"},
        ),
        Mistake(
            "the best one only",
            "This is the best picture. Asked are the best `k`.",
            {"topk(k)": "topk(1)"},
        ),
        Mistake(
            "the best one left out",
            "You begin with the second best: the first is at position 0 of the order.",
            {"cosines.topk(k).indices": "cosines.topk(k + 1).indices[1:]"},
        ),
        Mistake(
            "size of the cosine without its sign",
            "A cosine of −0.9 is as far away as can be, and counts as a good fit here.",
            {"directions @ text": "(directions @ text).abs()"},
        ),
        Mistake(
            "all pictures",
            "The order is right, and it goes on: asked are the first `k`.",
            {"cosines.topk(k).indices": "cosines.argsort(descending=True)"},
        ),
        Mistake(
            "normalised along the wrong axis",
            "What has length 1 now are columns: one number of all pictures.",
            {"norm(dim=1": "norm(dim=0"},
        ),
        Mistake(
            "distance without normalising",
            "The nearest points are not those with the smallest angle, unless all have length 1.",
            {"directions @ text": "-(pictures - text).norm(dim=1)"},
        ),
    ),
)

ZERO_SHOT = Program(
    id="01.2",
    title="Classify without training",
    difficulty=2,
    minutes=8,
    asks="""
Turn the features of N pictures and of C labels into probabilities (N, C): for each picture, how
likely is each label? `scale` is the multiplier itself, as in section 7. The features are not of
length 1.
""",
    stub='''
def classify(pictures: torch.Tensor, labels: torch.Tensor, scale: float) -> torch.Tensor:
    """Probabilities (N, C) from the features of pictures (N, D) and of labels (C, D)."""
    ...  # your lines here
''',
    solved='''
def classify(pictures: torch.Tensor, labels: torch.Tensor, scale: float) -> torch.Tensor:
    """Probabilities (N, C) from the features of pictures (N, D) and of labels (C, D)."""
    u = F.normalize(pictures, dim=1)
    v = F.normalize(labels, dim=1)
    return (scale * u @ v.T).softmax(dim=1)
''',
    inputs=_classes,
    hint_text="Cosines, times the multiplier, then a softmax. Over which axis do choices run?",
    mistakes=(
        Mistake(
            "softmax over the pictures",
            "Your probabilities add up to 1 over the *pictures*. For each picture, one of the "
            "labels is right.",
            {"softmax(dim=1)": "softmax(dim=0)"},
        ),
        Mistake(
            "softmax over everything",
            "All of your numbers together add up to 1. Each picture has probabilities of its own.",
            {
                "(scale * u @ v.T).softmax(dim=1)": "(scale * u @ v.T).flatten().softmax(0)"
                ".reshape(len(u), len(v))"
            },
        ),
        Mistake(
            "a row for each label",
            "You have a row for each label. Asked is a row for each picture.",
            {"scale * u @ v.T).softmax(dim=1)": "scale * v @ u.T).softmax(dim=0)"},
        ),
        Mistake(
            "multiplier after the softmax",
            "Each row adds up to the multiplier, and not to 1.",
            {"(scale * u @ v.T).softmax(dim=1)": "scale * (u @ v.T).softmax(dim=1)"},
        ),
        Mistake(
            "multiplier of 100",
            "You multiply by 100, whatever multiplier is passed.",
            {"scale * u": "100 * u"},
        ),
        Mistake(
            "scores normalised instead of features",
            "Rows of scores have length 1 here. Which vectors must, to make a product a cosine?",
            {
                "F.normalize(pictures, dim=1)": "pictures",
                "F.normalize(labels, dim=1)": "labels",
                "(scale * u @ v.T)": "(scale * F.normalize(u @ v.T, dim=1))",
            },
        ),
        Mistake(
            "no multiplier",
            "The order is right, and hardly any label stands out: bare cosines differ too little.",
            {"scale * u": "u"},
        ),
        Mistake(
            "divided by the multiplier",
            "The multiplier is the inverse of the temperature: dividing by it flattens all.",
            {"scale * u @ v.T": "u @ v.T / scale"},
        ),
        Mistake(
            "multiplier exponentiated again",
            "The multiplier comes as it is, not as a logarithm: exp is one too many.",
            {"scale * u": "math.exp(scale) * u"},
        ),
        Mistake(
            "no normalising",
            "Long vectors win here, whatever their direction.",
            {"F.normalize(pictures, dim=1)": "pictures", "F.normalize(labels, dim=1)": "labels"},
        ),
        Mistake(
            "labels not normalised",
            "A label with a long vector is favoured for every picture.",
            {"F.normalize(labels, dim=1)": "labels"},
        ),
        Mistake(
            "pictures not normalised",
            "The same picture, with a longer vector, would be surer of itself.",
            {"F.normalize(pictures, dim=1)": "pictures"},
        ),
        Mistake(
            "sigmoid instead of softmax",
            "Each of your numbers is between 0 and 1, but a row does not add up to 1: the labels "
            "don't compete.",
            {".softmax(dim=1)": ".sigmoid()"},
        ),
        Mistake(
            "scores instead of probabilities",
            "These are scores: they can be negative, and add up to anything.",
            {".softmax(dim=1)": ""},
        ),
        Mistake(
            "logarithms of probabilities",
            "These are the logarithms: a loss would like them, a reader would not.",
            {".softmax(dim=1)": ".log_softmax(dim=1)"},
        ),
        Mistake(
            "normalised along the wrong axis",
            "What has length 1 now are columns: one number of all pictures, or of all labels.",
            {"dim=1)\n": "dim=0)\n"},
        ),
    ),
)

ON_WHITE = Program(
    id="01.3",
    title="The transparent picture",
    difficulty=2,
    minutes=8,
    asks="""
The emoji files have a transparent background, and what is beneath is black. `convert("RGB")` drops
the transparency and shows the black. Put a picture on white instead: where it is half transparent,
half of the white shines through.
""",
    stub='''
def on_white(picture: torch.Tensor) -> torch.Tensor:
    """The picture (3, H, W) on white, from (4, H, W): red, green, blue and opacity, all 0…1."""
    ...  # your lines here
''',
    solved='''
def on_white(picture: torch.Tensor) -> torch.Tensor:
    """The picture (3, H, W) on white, from (4, H, W): red, green, blue and opacity, all 0…1."""
    colours, opacity = picture[:3], picture[3:]
    return opacity * colours + (1 - opacity) * 1.0
''',
    inputs=_with_alpha,
    hint_text="An opacity of 1 leaves the colour, 0 leaves white. What is in between is a mixture.",
    remark="""
In notebook 01 you can measure what the black costs: make two lists of pictures, one with
`.convert("RGB")` and one with `mh.on_white`, and compare R@1.
""",
    mistakes=(
        Mistake(
            "opacity dropped",
            "You drop the fourth channel, so what lay beneath it comes to light.",
            {"opacity * colours + (1 - opacity) * 1.0": "colours"},
        ),
        Mistake(
            "on black",
            "The picture fades into black where it is transparent: white is still missing.",
            {" + (1 - opacity) * 1.0": ""},
        ),
        Mistake(
            "opacity the wrong way round",
            "Where the picture is opaque you show white, and its colours where it is transparent.",
            {"opacity * colours + (1 - opacity)": "(1 - opacity) * colours + opacity"},
        ),
        Mistake(
            "no mixture",
            "Each point is either colour or white. What of those that are half transparent?",
            {"opacity * colours + (1 - opacity) * 1.0": "torch.where(opacity > 0.5, colours, 1.0)"},
        ),
        Mistake(
            "no mixture, half counts as opaque",
            "Each point is either colour or white. What of those that are half transparent?",
            {"opacity * colours + (1 - opacity) * 1.0": "torch.where(opacity < 0.5, 1.0, colours)"},
        ),
        Mistake(
            "no mixture, only clear points are white",
            "What is partly transparent keeps all of its colour. How much of it should be white?",
            {"opacity * colours + (1 - opacity) * 1.0": "torch.where(opacity > 0, colours, 1.0)"},
        ),
        Mistake(
            "no mixture, only opaque points have colour",
            "What is partly transparent loses all of its colour. How much of it should be left?",
            {"opacity * colours + (1 - opacity) * 1.0": "torch.where(opacity < 1, 1.0, colours)"},
        ),
        Mistake(
            "half of white everywhere",
            "You mix half of white into every point. The opacity says how much it is at each.",
            {"opacity * colours + (1 - opacity) * 1.0": "(colours + 1) / 2"},
        ),
        Mistake(
            "white added to all of it",
            "The whole of the white is added, also where the picture is opaque: more than 1.",
            {"(1 - opacity) * 1.0": "1.0"},
        ),
        Mistake(
            "colours not weighted",
            "White is mixed in where it should be, and the colours keep all of their weight.",
            {"opacity * colours": "colours"},
        ),
        Mistake(
            "colours not weighted, cut off at 1",
            "The colours keep all of their weight, and what comes out above 1 is cut off.",
            {"opacity * colours + (1 - opacity) * 1.0": "(colours + 1 - opacity).clamp(max=1)"},
        ),
        Mistake(
            "white is 255",
            "Your white is 255. In these pictures, what is the number of white?",
            {"* 1.0": "* 255"},
        ),
        Mistake(
            "four channels",
            "The opacity is still there as a fourth channel; the model takes three.",
            {"picture[:3]": "picture"},
        ),
    ),
)

TEMPLATES = Program(
    id="01.4",
    title="One vector for a class",
    difficulty=2,
    minutes=8,
    asks="""
A class is often described by several texts ("a picture of a cat", "a drawing of a cat"). Make one
vector of length 1 for each class: bring each text to length 1, so that none counts more than
another, and take their mean; it is shorter than 1, so bring that to length 1, too.
""",
    stub='''
def class_vectors(texts: torch.Tensor) -> torch.Tensor:
    """(C, D), one row of length 1 for each class, from the features (C, T, D) of T texts each."""
    ...  # your lines here
''',
    solved='''
def class_vectors(texts: torch.Tensor) -> torch.Tensor:
    """(C, D), one row of length 1 for each class, from the features (C, T, D) of T texts each."""
    directions = F.normalize(texts, dim=2)
    return F.normalize(directions.mean(dim=1), dim=1)
''',
    inputs=lambda k: (torch.randn(2, 3, 4 + k) * torch.tensor([[[0.5], [3.0], [1.0]]]),),
    hint_text="Normalise, mean, normalise. Which of the three axes does each of them run along?",
    mistakes=(
        Mistake(
            "texts not normalised",
            "A text with a long vector counts more than the others of its class.",
            {"F.normalize(texts, dim=2)": "texts"},
        ),
        Mistake(
            "mean not normalised",
            "The mean of unit vectors is shorter than 1, and how much differs from class to class.",
            {"F.normalize(directions.mean(dim=1), dim=1)": "directions.mean(dim=1)"},
        ),
        Mistake(
            "not normalised at all",
            "Neither the texts nor their mean have length 1.",
            {
                "F.normalize(texts, dim=2)": "texts",
                "F.normalize(directions.mean(dim=1), dim=1)": "directions.mean(dim=1)",
            },
        ),
        Mistake(
            "mean over the classes",
            "You average over the classes: what is left is one vector for each template.",
            {"directions.mean(dim=1)": "directions.mean(dim=0)"},
        ),
        Mistake(
            "mean over the numbers",
            "You average over the numbers of a vector, and so lose its direction.",
            {"directions.mean(dim=1)": "directions.mean(dim=2)"},
        ),
        Mistake(
            "normalised over the texts",
            "Your first step brings the wrong axis to length 1: that of the texts.",
            {"F.normalize(texts, dim=2)": "F.normalize(texts, dim=1)"},
        ),
        Mistake(
            "normalised over the classes first",
            "Your first step brings the wrong axis to length 1: that of the classes.",
            {"F.normalize(texts, dim=2)": "F.normalize(texts, dim=0)"},
        ),
        Mistake(
            "one length for all texts, and for all means",
            "`norm()` without an axis is one length for the whole tensor. Each vector has its own.",
            """
def class_vectors(texts):
    means = (texts / texts.norm()).mean(dim=1)
    return means / means.norm()
""",
        ),
        Mistake(
            "one length for all means",
            "Your last step divides all rows by one number: the length of all of them together.",
            {
                "return F.normalize(directions.mean(dim=1), dim=1)": "means = "
                "directions.mean(dim=1)\n    return means / means.norm()"
            },
        ),
        Mistake(
            "lengths of texts without their axis",
            "One length for each text came out, and the shapes don't fit. Which argument of `norm` "
            "keeps the axis?",
            {"F.normalize(texts, dim=2)": "texts / texts.norm(dim=2)"},
        ),
        Mistake(
            "lengths of means without their axis",
            "One length for each mean came out, and the shapes don't fit. Which argument of `norm` "
            "keeps the axis?",
            {
                "return F.normalize(directions.mean(dim=1), dim=1)": "means = "
                "directions.mean(dim=1)\n    return means / means.norm(dim=1)"
            },
        ),
        Mistake(
            "standardised",
            "You also subtract the mean of each vector's own numbers, which turns the vector. "
            "Length 1 is a matter of dividing.",
            {
                "F.normalize(texts, dim=2)": "(texts - texts.mean(dim=2, keepdim=True))"
                " / texts.std(dim=2, keepdim=True)"
            },
        ),
        Mistake(
            "normalised over the classes at the end",
            "Your last step brings columns to length 1: one number of all classes.",
            {"mean(dim=1), dim=1)": "mean(dim=1), dim=0)"},
        ),
        Mistake(
            "first text only",
            "Only one of the texts is in it.",
            {"directions.mean(dim=1)": "directions[:, 0]"},
        ),
    ),
)

GAP = Program(
    id="01.5",
    title="Two clouds",
    difficulty=3,
    minutes=10,
    asks="""
Are pictures and texts in different regions of the space? Subtract from each side the average of
its features as they come (not of length 1), so that both clouds have the same centre, and return
both with rows of length 1.
""",
    stub='''
def without_gap(pictures: torch.Tensor, texts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both (N, D), each around its own mean, with rows of length 1."""
    ...  # your lines here
''',
    solved='''
def without_gap(pictures: torch.Tensor, texts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both (N, D), each around its own mean, with rows of length 1."""
    pictures = pictures - pictures.mean(dim=0)
    texts = texts - texts.mean(dim=0)
    return F.normalize(pictures, dim=1), F.normalize(texts, dim=1)
''',
    inputs=_two_clouds,
    hint_text="The average picture is one vector: along which axis is the mean taken?",
    remark="""
Where the two averages point in clearly different directions, as in large CLIP models, this is
called
a modality gap (Liang et al. 2022, "Mind the Gap"). The loss only compares texts for one picture and
pictures for one text, so it has little reason to close it. Measure R@1 with and without.
""",
    mistakes=(
        Mistake(
            "mean of each vector",
            "You subtract from each vector the mean of its own numbers. Asked is the average "
            "picture, and the average text.",
            {
                "pictures.mean(dim=0)": "pictures.mean(dim=1, keepdim=True)",
                "texts.mean(dim=0)": "texts.mean(dim=1, keepdim=True)",
            },
        ),
        Mistake(
            "one number for the whole cloud",
            "You subtract a single number. A centre has as many numbers as a picture's vector.",
            {"mean(dim=0)": "mean()"},
        ),
        Mistake(
            "one centre for both",
            "You subtract the same centre from both: they stay as far apart as they were.",
            """
def without_gap(pictures, texts):
    centre = torch.cat([pictures, texts]).mean(dim=0)
    return F.normalize(pictures - centre, dim=1), F.normalize(texts - centre, dim=1)
""",
        ),
        Mistake(
            "the pictures' centre for both",
            "Both lose the average picture. The texts have an average of their own.",
            """
def without_gap(pictures, texts):
    centre = pictures.mean(dim=0)
    return F.normalize(pictures - centre, dim=1), F.normalize(texts - centre, dim=1)
""",
        ),
        Mistake(
            "no centre taken away",
            "The rows have length 1, and both clouds are where they were.",
            """
def without_gap(pictures, texts):
    return F.normalize(pictures, dim=1), F.normalize(texts, dim=1)
""",
        ),
        Mistake(
            "centres exchanged",
            "Each side has lost the average of the *other*, and is further away than before.",
            """
def without_gap(pictures, texts):
    a, b = pictures.mean(dim=0), texts.mean(dim=0)
    return F.normalize(pictures - b, dim=1), F.normalize(texts - a, dim=1)
""",
        ),
        Mistake(
            "pictures only",
            "One cloud has its centre at 0 now, the other is still where it was.",
            {"texts = texts - texts.mean(dim=0)": "texts = texts * 1"},
        ),
        Mistake(
            "texts only",
            "One cloud has its centre at 0 now, the other is still where it was.",
            {"pictures = pictures - pictures.mean(dim=0)": "pictures = pictures * 1"},
        ),
        Mistake(
            "not normalised afterwards",
            "The centres are right; the lengths have changed, and are not brought back to 1.",
            {"F.normalize(pictures, dim=1), F.normalize(texts, dim=1)": "pictures, texts"},
        ),
        Mistake(
            "normalised before, not after",
            "Lengths are brought to 1 before the centre is taken away, which changes them again.",
            {
                "    pictures = pictures -": "    pictures, texts = F.normalize(pictures), "
                "F.normalize(texts)\n    pictures = pictures -",
                "F.normalize(pictures, dim=1), F.normalize(texts, dim=1)": "pictures, texts",
            },
        ),
        Mistake(
            "normalised before and after",
            "The average is that of the features as they come. You change their lengths first.",
            {
                "    pictures = pictures -": "    pictures, texts = F.normalize(pictures), "
                "F.normalize(texts)\n    pictures = pictures -",
            },
        ),
        Mistake(
            "one length for the whole cloud",
            "`norm()` without an axis is one length for the whole tensor. Each row has its own.",
            {
                "F.normalize(pictures, dim=1), F.normalize(texts, dim=1)": "pictures / "
                "pictures.norm(), texts / texts.norm()"
            },
        ),
        Mistake(
            "lengths without their axis",
            "One length for each row came out, and the shapes don't fit. Which argument of `norm` "
            "keeps the axis?",
            {"F.normalize(pictures, dim=1)": "pictures / pictures.norm(dim=1)"},
        ),
        Mistake(
            "normalised along the wrong axis",
            "What has length 1 now are columns: one number of all pictures, or of all texts.",
            {
                "F.normalize(pictures, dim=1), F.normalize(texts, dim=1)": "F.normalize(pictures, "
                "dim=0), F.normalize(texts, dim=0)"
            },
        ),
        Mistake(
            "standardised, not normalised",
            "You divide by the standard deviation of each column. Asked is length 1 for each row.",
            {
                "pictures - pictures.mean(dim=0)": "(pictures - pictures.mean(dim=0))"
                " / pictures.std(dim=0)",
                "texts - texts.mean(dim=0)": "(texts - texts.mean(dim=0)) / texts.std(dim=0)",
                "F.normalize(pictures, dim=1), F.normalize(texts, dim=1)": "pictures, texts",
            },
        ),
        Mistake(
            "also divided by the spread",
            "You also divide by the standard deviation: that stretches the cloud, and asked is "
            "only its centre.",
            {
                "pictures.mean(dim=0)\n": "pictures.mean(dim=0)\n"
                "    pictures = pictures / pictures.std(dim=0)\n",
                "texts.mean(dim=0)\n": "texts.mean(dim=0)\n    texts = texts / texts.std(dim=0)\n",
            },
        ),
        Mistake(
            "texts first",
            "Right, in the other order: pictures come first.",
            {
                "F.normalize(pictures, dim=1), F.normalize(texts, dim=1)": "F.normalize(texts), "
                "F.normalize(pictures)"
            },
        ),
    ),
)

TRAPS = Question(
    id="01.6",
    title="No error, and wrong",
    difficulty=1,
    minutes=4,
    asks="""
Three people get R@1 near that of guessing, or far below what the model can do, and no error. What
went wrong?

Ada called `open_clip.create_model("MobileCLIP2-S0")`. Ben's captions are 200 words long, and differ
at the end. Cho evaluates MobileCLIP2-S3 with a transform copied from her MobileCLIP-S1 script.
""",
    stub='answer = {"Ada": "?", "Ben": "?", "Cho": "?"}',
    right={"Ada": "random weights", "Ben": "cut off", "Cho": "wrong mean"},
    choices={
        "random weights": "the model was built, and no weights were loaded",
        "cut off": "what tells the captions apart is never read",
        "wrong mean": "the numbers of the picture are shifted and scaled as for another model",
        "unknown words": "the tokens have never been met in training",
        "wrong name": "the model does not exist under this name",
    },
    hint_text="Section 2 has two traps, section 3 a length, and section 4 a table of transforms.",
    mistakes=(
        Wrong(
            "taken for a wrong name",
            "A name that does not exist raises an error; this one exists. What is *not* in the "
            "call?",
            "wrong name",
            "Ada",
        ),
        Wrong(
            "random weights taken for a transform",
            "She has no transform of her own. What does the call load, and what does it not?",
            "wrong mean",
            "Ada",
        ),
        Wrong(
            "random weights taken for words",
            "It fails with any words. What does the call load, and what does it not?",
            "unknown words",
            "Ada",
        ),
        Wrong(
            "length taken for words",
            "Each of these words may be known. How many tokens fit into the context length?",
            "unknown words",
            "Ben",
        ),
        Wrong(
            "length taken for weights",
            "His model is fine with short captions. What happens to long ones?",
            "random weights",
            "Ben",
        ),
        Wrong(
            "transform taken for weights",
            "Her weights are loaded. What did she copy from another model?",
            "random weights",
            "Cho",
        ),
        Wrong(
            "transform taken for a name",
            "Her model loads. What did she copy from another model?",
            "wrong name",
            "Cho",
        ),
    ),
)

EXERCISES = (SEARCH, ZERO_SHOT, ON_WHITE, TEMPLATES, GAP, TRAPS)
