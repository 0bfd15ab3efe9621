"""Exercises of notebook 08: exports that are subtly wrong, and the gates that stop them."""

from __future__ import annotations

import torch

from .programs import Mistake, Program
from .questions import Question, Wrong


def _outputs(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of the model and of its export; one row of the export may point elsewhere."""
    ours = torch.randn(3 + k, 4) * torch.linspace(0.5, 3, 3 + k)[:, None]
    theirs = 1.5 * ours + 0.1 * torch.randn(3 + k, 4)
    if k % 2:
        theirs[k % 3] = torch.randn(4)
    return ours, theirs


def _pixels(k: int) -> tuple[torch.Tensor, list[float], list[float]]:
    """A picture (H, W, 3) in bytes, and the mean and standard deviation of a transform."""
    height = 2 + k if k % 2 else 3
    pixels = torch.randint(0, 256, (height, 3, 3), dtype=torch.uint8)
    return pixels, [0.48, 0.4, 0.3], [0.27, 0.2, 0.35]


GATE = Program(
    id="08.1",
    title="A gate with a number",
    difficulty=2,
    minutes=8,
    asks="""
Before an export is shipped, its features are compared with those of the model. Return the one
number
that decides: the *worst* cosine between a row of one and the same row of the other. Lengths don't
matter, as the features are normalised afterwards.
""",
    stub='''
def worst_cosine(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The smallest cosine between row i of `ours` and row i of `theirs`, both (N, D)."""
    ...  # your line here
''',
    solved='''
def worst_cosine(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The smallest cosine between row i of `ours` and row i of `theirs`, both (N, D)."""
    return F.cosine_similarity(ours, theirs, dim=1).min().item()
''',
    inputs=_outputs,
    hint_text="One cosine for each picture. Which of them should stop the export?",
    remark="A mean of 0.99 can hide one picture in a hundred that points anywhere.",
    mistakes=(
        Mistake(
            "mean instead of the worst",
            "A mean hides the one picture that has gone wrong.",
            {".min()": ".mean()"},
        ),
        Mistake(
            "the best",
            "The best row says nothing about the others.",
            {".min()": ".max()"},
        ),
        Mistake(
            "all as one vector",
            "You compare all rows as one long vector: long rows hide short ones.",
            {"(ours, theirs, dim=1).min()": "(ours.flatten(), theirs.flatten(), dim=0)"},
        ),
        Mistake(
            "columns",
            "You compare columns: one number of all pictures. A picture is a row.",
            {"dim=1": "dim=0"},
        ),
        Mistake(
            "dot products",
            "These are dot products: without the lengths they would be cosines.",
            {"F.cosine_similarity(ours, theirs, dim=1)": "(ours * theirs).sum(dim=1)"},
        ),
        Mistake(
            "largest difference",
            "You measure how far the numbers are apart. An export may be longer by a factor, and "
            "just as good.",
            {"F.cosine_similarity(ours, theirs, dim=1).min()": "(ours - theirs).abs().max()"},
        ),
        Mistake(
            "every row with every row",
            "You compare each row with every other: picture 0 need not look like picture 1.",
            {
                "F.cosine_similarity(ours, theirs, dim=1)": "(F.normalize(ours, dim=1) @ "
                "F.normalize(theirs, dim=1).T)"
            },
        ),
        Mistake(
            "sign dropped",
            "A cosine of −1 is the worst there is, and counts as perfect here.",
            {"dim=1).min()": "dim=1).abs().min()"},
        ),
        Mistake(
            "distance instead of cosine",
            "This is 1 − cosine, and the smallest of it: the best row.",
            {
                "F.cosine_similarity(ours, theirs, dim=1).min()": "(1 - F.cosine_similarity(ours, "
                "theirs, dim=1)).min()"
            },
        ),
        Mistake(
            "distance of the worst row",
            "The right row; and this is one minus its cosine. Asked is the cosine itself.",
            {
                "F.cosine_similarity(ours, theirs, dim=1).min()": "(1 - F.cosine_similarity(ours, "
                "theirs, dim=1)).max()"
            },
        ),
        Mistake(
            "length of the whole matrix",
            "You divide by the length of the whole matrix. How long is each *row*?",
            {
                "F.cosine_similarity(ours, theirs, dim=1)": "(ours / ours.norm() * theirs "
                "/ theirs.norm()).sum(dim=1)"
            },
        ),
        Mistake(
            "mean instead of a sum",
            "You average the products of a row. What does a dot product do with them?",
            {
                "F.cosine_similarity(ours, theirs, dim=1)": "(F.normalize(ours, dim=1) "
                "* F.normalize(theirs, dim=1)).mean(dim=1)"
            },
        ),
        Mistake(
            "single products",
            "This is the smallest of single products. What does a dot product do with those of a "
            "row?",
            {
                "F.cosine_similarity(ours, theirs, dim=1)": "(F.normalize(ours, dim=1) "
                "* F.normalize(theirs, dim=1))"
            },
        ),
        Mistake(
            "squared lengths",
            "You divide by squared lengths: where is the root?",
            {
                "F.cosine_similarity(ours, theirs, dim=1)": "((ours * theirs).sum(dim=1) "
                "/ (ours.square().sum(dim=1) * theirs.square().sum(dim=1)))"
            },
        ),
        Mistake(
            "starts at zero",
            "Your search starts from 0: can a positive cosine ever replace it?",
            {
                "F.cosine_similarity(ours, theirs, dim=1).min().item()": "min(0.0, "
                "F.cosine_similarity(ours, theirs, dim=1).min().item())"
            },
        ),
        Mistake(
            "cut off at zero",
            "You cut off below 0, where the worst cosines are.",
            {"dim=1).min()": "dim=1).clamp(min=0).min()"},
        ),
        Mistake(
            "first row only",
            "Only the first picture is compared. Which one is the worst?",
            {".min()": "[0]"},
        ),
        Mistake(
            "mean subtracted",
            "You subtract each row's mean first: that is a correlation, and another angle.",
            {
                "(ours, theirs, dim=1)": "(ours - ours.mean(1, keepdim=True), theirs "
                "- theirs.mean(1, keepdim=True), dim=1)"
            },
        ),
        Mistake(
            "all of them",
            "These are all cosines. Which one decides?",
            {".min().item()": ""},
        ),
        Mistake(
            "which row",
            "This says *which* row is worst. Asked is how bad it is.",
            {".min()": ".argmin()"},
        ),
        Mistake(
            "one side normalised",
            "Only one of the two has length 1: the length of the other is still in the number.",
            {
                "F.cosine_similarity(ours, theirs, dim=1)": "(F.normalize(ours, dim=1) "
                "* theirs).sum(dim=1)"
            },
        ),
        Mistake(
            "normalised along the wrong axis",
            "You give each column length 1. A feature is a row.",
            {
                "F.cosine_similarity(ours, theirs, dim=1)": "(F.normalize(ours, dim=0) "
                "* F.normalize(theirs, dim=0)).sum(dim=1)"
            },
        ),
    ),
)

SCRAMBLED = (
    "The shape is right, and the numbers of one pixel no longer belong together: what moves axes, "
    "and does not only count anew?"
)

TRANSFORM = Program(
    id="08.2",
    title="The transform, written again",
    difficulty=2,
    minutes=10,
    asks="""
On a phone or a page, nobody has `clip.preprocess`: it is written once more. Turn a picture in bytes
(height, width, 3) into the tensor that the model takes: (3, height, width), 0…1, minus the mean,
divided by the standard deviation, for each colour.
""",
    stub='''
def to_tensor(pixels: torch.Tensor, mean: list[float], std: list[float]) -> torch.Tensor:
    """(3, H, W) floating-point numbers from bytes (H, W, 3): red, green, blue."""
    ...  # your lines here
''',
    solved='''
def to_tensor(pixels: torch.Tensor, mean: list[float], std: list[float]) -> torch.Tensor:
    """(3, H, W) floating-point numbers from bytes (H, W, 3): red, green, blue."""
    numbers = pixels.float() / 255
    return ((numbers - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)
''',
    inputs=_pixels,
    hint_text="While colours are the last axis, three numbers meet the right ones by themselves.",
    remark="""
Of most mistakes here no error tells: a wrong picture is still a tensor of the right shape. So a
gate compares features, and when they part it looks at the pixels first (section 3).
""",
    mistakes=(
        Mistake(
            "0…255",
            "Your numbers go up to hundreds. The mean is meant for numbers of 0…1.",
            {"pixels.float() / 255": "pixels.float()"},
        ),
        Mistake(
            "divided by 256",
            "White should be 1: what is its byte?",
            {"/ 255": "/ 256"},
        ),
        Mistake(
            "no mean",
            "The mean is not subtracted.",
            {"numbers - torch.tensor(mean)": "numbers"},
        ),
        Mistake(
            "no standard deviation",
            "The standard deviation is missing.",
            {" / torch.tensor(std)": ""},
        ),
        Mistake(
            "multiplied by the deviation",
            "The standard deviation divides.",
            {"/ torch.tensor(std)": "* torch.tensor(std)"},
        ),
        Mistake(
            "blue and red exchanged",
            "Red and blue have changed places: some libraries read pictures as BGR.",
            {"pixels.float() / 255": "pixels.flip(2).float() / 255"},
        ),
        Mistake(
            "reshaped instead of permuted",
            SCRAMBLED,
            {".permute(2, 0, 1)": ".reshape(3, *pixels.shape[:2])"},
        ),
        Mistake(
            "reshaped first",
            SCRAMBLED,
            """
def to_tensor(pixels, mean, std):
    numbers = pixels.reshape(3, *pixels.shape[:2]).float() / 255
    return (numbers - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
""",
        ),
        Mistake(
            "neither mean nor deviation",
            "The numbers go from 0 to 1, and so far that is right. What is still asked?",
            {"((numbers - torch.tensor(mean)) / torch.tensor(std))": "numbers"},
        ),
        Mistake(
            "no brackets",
            "The mean alone is divided by the deviation: which comes first, − or /?",
            {"(numbers - torch.tensor(mean)) /": "numbers - torch.tensor(mean) /"},
        ),
        Mistake(
            "mean added",
            "You add the mean.",
            {"numbers - ": "numbers + "},
        ),
        Mistake(
            "divided by the largest",
            "You divide by this picture's brightest number: white is the same byte in every "
            "picture.",
            {"pixels.float() / 255": "pixels.float() / pixels.max()"},
        ),
        Mistake(
            "stretched to 0…1",
            "You stretch each picture by its own darkest and brightest number: 0 and 1 should mean "
            "the same in every picture.",
            {
                "pixels.float() / 255": "(pixels.float() - pixels.min()) / (pixels.max() "
                "- pixels.min())"
            },
        ),
        Mistake(
            "the picture's own mean and deviation",
            "These are this picture's own mean and deviation. The model was trained with the same "
            "numbers for all.",
            {
                "torch.tensor(mean)": "numbers.mean(dim=(0, 1))",
                "torch.tensor(std)": "numbers.std(dim=(0, 1))",
            },
        ),
        Mistake(
            "constants of CLIP",
            "Your mean and deviation are constants. Other models have others: where do they come "
            "in?",
            {
                "torch.tensor(mean)": "torch.tensor([0.48145466, 0.4578275, 0.40821073])",
                "torch.tensor(std)": "torch.tensor([0.26862954, 0.26130258, 0.27577711])",
            },
        ),
        Mistake(
            "the first mean for all",
            "Red is right; green and blue get the numbers of red.",
            {"torch.tensor(mean)": "mean[0]", "torch.tensor(std)": "std[0]"},
        ),
        Mistake(
            "means averaged",
            "You average over the colours: each has a mean and a deviation of its own.",
            {"torch.tensor(mean)": "sum(mean) / 3", "torch.tensor(std)": "(sum(std) / 3)"},
        ),
        Mistake(
            "deviation squared",
            "You divide by the deviation's square.",
            {"/ torch.tensor(std)": "/ torch.tensor(std) ** 2"},
        ),
        Mistake(
            "−1…1 before the mean",
            "Your numbers go from −1 to 1. The mean is meant for numbers of 0…1.",
            {"pixels.float() / 255": "2 * pixels.float() / 255 - 1"},
        ),
        Mistake(
            "divided twice",
            "White should be 1, and is 1/255 here: you divide twice.",
            {"/ 255": "/ 255 / 255"},
        ),
        Mistake(
            "bytes permuted, and no more",
            "The axes are right, and the numbers are still bytes.",
            {"((numbers - torch.tensor(mean)) / torch.tensor(std))": "pixels"},
        ),
        Mistake(
            "cut off to 0…1",
            "You cut off below 0 and above 1: less than the mean is less than 0.",
            {".permute(2, 0, 1)": ".permute(2, 0, 1).clamp(0, 1)"},
        ),
        Mistake(
            "colours and their means exchanged",
            "Each colour gets its own mean; then blue comes first. Which order is asked?",
            {".permute(2, 0, 1)": ".permute(2, 0, 1).flip(0)"},
        ),
        Mistake(
            "upside down",
            "The colours are right, and the picture stands on its head.",
            {".permute(2, 0, 1)": ".permute(2, 0, 1).flip(1)"},
        ),
        Mistake(
            "height and width exchanged",
            "The picture lies on its side: height comes before width.",
            {".permute(2, 0, 1)": ".permute(2, 1, 0)"},
        ),
        Mistake(
            "colours last",
            "The numbers are right; the colours should be the first axis.",
            {".permute(2, 0, 1)": ""},
        ),
        Mistake(
            "mean after the deviation",
            "You divide first, and subtract the mean afterwards.",
            {
                "(numbers - torch.tensor(mean)) / torch.tensor(std)": "numbers / torch.tensor(std) "
                "- torch.tensor(mean)"
            },
        ),
        Mistake(
            "the picture's own mean",
            "You subtract this picture's own mean. The model was trained with the same three "
            "numbers for all.",
            {"torch.tensor(mean)": "numbers.mean(dim=(0, 1))"},
        ),
        Mistake(
            "whole numbers",
            "Bytes divided as whole numbers are 0 or 1: digits are lost.",
            {"pixels.float() / 255": "pixels // 255"},
        ),
        Mistake(
            "permuted first",
            "With colours as the first axis, the three numbers meet the columns of the picture "
            "instead: this picture has three, so nothing complains.",
            """
def to_tensor(pixels, mean, std):
    numbers = pixels.permute(2, 0, 1).float() / 255
    return (numbers - torch.tensor(mean)) / torch.tensor(std)
""",
        ),
        Mistake(
            "255 at the end",
            "The mean is subtracted from numbers of 0…255. Which comes first?",
            """
def to_tensor(pixels, mean, std):
    numbers = (pixels.float() - torch.tensor(mean)) / torch.tensor(std)
    return numbers.permute(2, 0, 1) / 255
""",
        ),
        Mistake(
            "mean and deviation exchanged",
            "The mean divides and the standard deviation is subtracted: they have changed places.",
            """
def to_tensor(pixels, mean, std):
    numbers = pixels.float() / 255
    return ((numbers - torch.tensor(std)) / torch.tensor(mean)).permute(2, 0, 1)
""",
        ),
        Mistake(
            "−1…1",
            "Numbers of −1…1 suit other models. This one says itself what it wants: where do its "
            "three means enter?",
            {"(numbers - torch.tensor(mean)) / torch.tensor(std)": "2 * numbers - 1"},
        ),
    ),
)

NO_SHAPE = "That changes numbers, and no shapes. What met only one picture in the export?"
NOT_THE_FEATURES = "The order is right, so the features are. What comes after the cosines?"
ONE_BY_ONE = "That is done to each picture by itself. Which layer looks at all of them?"

SYMPTOMS = Question(
    id="08.3",
    title="Exports that are subtly wrong",
    difficulty=3,
    minutes=8,
    asks="""
Four exports run without an error, and each is wrong. Match each symptom with its cause; one
cause is left over.
""",
    stub="""
answer = {
    "one picture works, eight pictures raise an error about shapes": "?",
    "each picture's cosine with the model is somewhat too low, whatever it shows": "?",
    "the order of the answers is right, all probabilities are nearly equal": "?",
    "a picture's features depend on which others are in the batch": "?",
}
""",
    right={
        "one picture works, eight pictures raise an error about shapes": "batch of one baked in",
        "each picture's cosine with the model is somewhat too low, whatever it shows": "wrong mean",
        "the order of the answers is right, all probabilities are nearly equal": ("scale left out"),
        "a picture's features depend on which others are in the batch": "training mode",
    },
    choices={
        "batch of one baked in": "the size of the example was taken for a constant",
        "wrong mean": "the transform is that of another model",
        "scale left out": "features leave the graph, and the multiplier is not applied",
        "training mode": "batch norm takes its statistics from the batch",
        "blue and red exchanged": "colours come in another order",
    },
    hint_text="Which part sees the size of the batch? The other pictures? Only the last step?",
    remark="""
Whoever tries one picture and looks at the answer may notice none of the four. So a gate sends many
pictures, in batches, and compares features; and whoever needs probabilities compares those, too.
""",
    mistakes=(
        Wrong(
            "shape error taken for training mode",
            "Training mode takes any number of pictures. What has a fixed size here?",
            "training mode",
            "one picture works, eight pictures raise an error about shapes",
        ),
        Wrong(
            "shape error taken for the transform",
            "The transform works on one picture at a time. What met only one in the export?",
            "wrong mean",
            "one picture works, eight pictures raise an error about shapes",
        ),
        Wrong(
            "shift taken for training mode",
            "Does each picture's cosine change with the others in its batch?",
            "training mode",
            "each picture's cosine with the model is somewhat too low, whatever it shows",
        ),
        Wrong(
            "shift taken for exchanged colours",
            "Exchanged, a red apple would be blue. What shifts all pictures alike?",
            "blue and red exchanged",
            "each picture's cosine with the model is somewhat too low, whatever it shows",
        ),
        Wrong(
            "flat probabilities taken for the transform",
            NOT_THE_FEATURES,
            "wrong mean",
            "the order of the answers is right, all probabilities are nearly equal",
        ),
        Wrong(
            "flat probabilities taken for training mode",
            NOT_THE_FEATURES,
            "training mode",
            "the order of the answers is right, all probabilities are nearly equal",
        ),
        Wrong(
            "neighbours taken for a fixed batch",
            "Any number of pictures works here. Which layer looks at all of them at once?",
            "batch of one baked in",
            "a picture's features depend on which others are in the batch",
        ),
        Wrong(
            "neighbours taken for the transform",
            "The transform sees one picture at a time. Which layer looks at all of them?",
            "wrong mean",
            "a picture's features depend on which others are in the batch",
        ),
        Wrong(
            "shape error taken for the scale",
            NO_SHAPE,
            "scale left out",
            "one picture works, eight pictures raise an error about shapes",
        ),
        Wrong(
            "shape error taken for exchanged colours",
            NO_SHAPE,
            "blue and red exchanged",
            "one picture works, eight pictures raise an error about shapes",
        ),
        Wrong(
            "shift taken for the scale",
            "Does a factor change a cosine?",
            "scale left out",
            "each picture's cosine with the model is somewhat too low, whatever it shows",
        ),
        Wrong(
            "shift taken for a fixed batch",
            "A fixed size ends in an error, and here every picture gets an answer. What shifts all "
            "pictures alike?",
            "batch of one baked in",
            "each picture's cosine with the model is somewhat too low, whatever it shows",
        ),
        Wrong(
            "flat probabilities taken for colours",
            NOT_THE_FEATURES,
            "blue and red exchanged",
            "the order of the answers is right, all probabilities are nearly equal",
        ),
        Wrong(
            "flat probabilities taken for a fixed batch",
            NOT_THE_FEATURES,
            "batch of one baked in",
            "the order of the answers is right, all probabilities are nearly equal",
        ),
        Wrong(
            "neighbours taken for the scale",
            ONE_BY_ONE,
            "scale left out",
            "a picture's features depend on which others are in the batch",
        ),
        Wrong(
            "neighbours taken for exchanged colours",
            ONE_BY_ONE,
            "blue and red exchanged",
            "a picture's features depend on which others are in the batch",
        ),
    ),
)

EXERCISES = (GATE, TRANSFORM, SYMPTOMS)
