"""A solution that was changed a little is not accepted, unless it still does the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
from mutants import mutants
from test_catalogue import PROGRAMS, ids

from mclip_helpers.exercises import Kind, Program
from mclip_helpers.exercises.programs import departure

# Changed line → why the program still does what is asked.
SAME_FORM = "a tensor of one number, or of several, instead of Python's numbers"
DEFAULT = "that is the default"
RANDOM_START = "A may start from any random numbers"
EQUIVALENT: dict[str, dict[str, str]] = {
    "01.1": {"return cosines.topk(k).indices": SAME_FORM},
    "01.2": {"u = F.normalize(pictures)": DEFAULT, "v = F.normalize(labels)": DEFAULT},
    "01.3": {
        "return opacity * colours + (1 - opacity)": "white is 1",
        "return opacity * colours + (1 - opacity) / 1.0": "white is 1",
    },
    "01.4": {
        "return F.normalize(directions.mean(dim=1))": DEFAULT,
        "return F.normalize(directions.sum(dim=1), dim=1)": "a sum points where the mean points",
    },
    "01.5": {
        "return (F.normalize(pictures), F.normalize(texts, dim=1))": DEFAULT,
        "return (F.normalize(pictures, dim=1), F.normalize(texts))": DEFAULT,
    },
    "02.1": {
        "nn.init.kaiming_uniform_(self.A)": RANDOM_START,
        "nn.init.kaiming_uniform_(self.A, a=0.5)": RANDOM_START,
        "nn.init.kaiming_uniform_(self.A, a=4 ** 0.5)": RANDOM_START,
        "nn.init.kaiming_uniform_(self.A, a=5 ** -0.5)": RANDOM_START,
        "nn.init.kaiming_uniform_(self.A, a=5 ** 1.5)": RANDOM_START,
        "nn.init.kaiming_uniform_(self.A, a=5 * 0.5)": RANDOM_START,
        "nn.init.kaiming_uniform_(self.A, a=5)": RANDOM_START,
        "nn.init.kaiming_uniform_(self.A, a=6 ** 0.5)": RANDOM_START,
    },
    "03.2": {
        "return ((z - largest).exp().sum(dim=1).log() + largest[:, -1] - z.diag()).mean()": (
            "there is one column: the first is the last"
        ),
    },
    "04.2": {
        "return (factor * B.T @ G * x.T, factor * G @ (A @ x).T)": "a column times a row",
        "return (factor * B.T @ G @ x.T, factor * G * (A @ x).T)": "a column times a row",
    },
    "04.4": {"if getattr(nodes[-1], 'variable', 0) is weight:": "0 is no weight, either"},
    "05.1": {
        "loss = mh.contrastive_loss(text_features, image_features, model.logit_scale.exp())": (
            "the loss asks in both directions"
        ),
        "return loss": SAME_FORM,
    },
    "05.2": {"return (ranks <= k).float().mean()": SAME_FORM},
    "06.2": {
        "return (differences.quantile(0.025), differences.quantile(0.975).item())": SAME_FORM,
        "return (differences.quantile(0.025).item(), differences.quantile(0.975))": SAME_FORM,
    },
    "06.3": {
        "if way not in best or run['val'] >= best[way]['val']:": "no two are equal on one split",
    },
    "06.4": {
        "reached = squares.cumsum(-1) / squares.sum()": "a vector's only axis is its last",
    },
    "07.1": {"return loss": SAME_FORM},
    "07.2": {
        "return (factor, left.item())": SAME_FORM,
        "return (factor.item(), left)": SAME_FORM,
    },
    "07.3": {
        "return (weights.numpy().tobytes(), pixels.numpy().tobytes(), side)": (
            "a key may have any order"
        ),
    },
    "08.1": {
        "return F.cosine_similarity(ours, theirs).min().item()": DEFAULT,
        "return F.cosine_similarity(ours, theirs, dim=1).min()": SAME_FORM,
        "return F.cosine_similarity(theirs, ours, dim=1).min().item()": "an angle has no order",
    },
    "08.2": {"numbers = pixels / 255": "bytes divided by / become floating-point numbers"},
}


def survives(exercise: Program, mutant: Callable) -> bool:
    """Whether the check says "right"; it is only asked if no run tells the mutant apart."""
    for k in range(exercise.rounds):
        if departure(exercise.outcome(mutant, k), exercise.expected[k]):
            return False
    return exercise.finding(mutant).kind is Kind.RIGHT


@pytest.mark.parametrize("exercise", PROGRAMS, ids=ids(PROGRAMS))
def test_no_mutant_is_accepted_unless_it_is_equivalent(exercise: Program):
    survivors, count = set(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of code that makes little sense
        for what, source in mutants(exercise.solved):
            count += 1
            if survives(exercise, exercise.compiled(source)):
                survivors.add(what)
    assert count >= 5
    assert survivors == EQUIVALENT.get(exercise.id, {}).keys()
