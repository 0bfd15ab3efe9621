"""Whatever is handed to a check, it ends with a finding whose sentence says what to do."""

from __future__ import annotations

import functools
import sys
import threading
import time
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from mclip_helpers.exercises import Exercise, Finding, Kind, Mistake, Program, exercise
from mclip_helpers.exercises.values import difference, plain
from mclip_helpers.exercises.words import SAYS, TITLES, sentences
from mclip_helpers.loss import contrastive_loss

LOSS, GRADIENT, SEARCH = exercise("03.1"), exercise("03.3"), exercise("01.1")
LAYER, DEAD, MERGE, TWINS = exercise("02.1"), exercise("02.5"), exercise("02.3"), exercise("03.6")
DIAGNOSES, PAPER = exercise("04.5"), exercise("02.2")


def right(found: Exercise) -> Callable:
    assert isinstance(found, Program)
    return found.compiled(found.solved)


solved_gradient = right(GRADIENT)


def raises(z):
    whole = 1
    return z / whole + torch.ones(99)


def not_implemented(z):
    raise NotImplementedError


def calls_itself(z):
    return calls_itself(z)


def exits(z):
    sys.exit("bye")


def interrupts(z):
    raise KeyboardInterrupt


class Rude(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def is_rude(z):
    raise Rude


class Untouchable:
    def __eq__(self, other):
        raise RuntimeError("don't compare me")

    def __repr__(self):
        raise RuntimeError("don't show me")

    __hash__ = None


def for_ever(z):
    while True:
        pass


released = threading.Event()


def for_ever_and_deaf(z):
    while not released.is_set():
        try:
            while not released.is_set():
                pass
        except BaseException:
            pass


def changes_its_input(z):
    result = solved_gradient(z)
    z.zero_()
    return result


def with_nan(z):
    return solved_gradient(z) * torch.nan


def at_random(z):
    return solved_gradient(z) + torch.rand(())


BROKEN = {
    "nothing": (None, Kind.NOT_YET),
    "an ellipsis": (..., Kind.NOT_YET),
    "a result instead of a function": (torch.ones(2), Kind.NOT_A_FUNCTION),
    "a text": ("my answer", Kind.NOT_A_FUNCTION),
    "a number": (3, Kind.NOT_A_FUNCTION),
    "no parameters": (lambda: 1, Kind.PARAMETERS),
    "too many parameters": (lambda z, labels: z, Kind.PARAMETERS),
    "a function that is not implemented": (not_implemented, Kind.NOT_YET),
    "no return": (lambda z: print(end=""), Kind.NOTHING),
    "raises": (raises, Kind.RAISED),
    "calls itself": (calls_itself, Kind.RAISED),
    "exits": (exits, Kind.RAISED),
    "interrupts": (interrupts, Kind.RAISED),
    "an error without words": (is_rude, Kind.RAISED),
    "a built-in": (len, Kind.SHAPE),
    "a text as its result": (lambda z: "0.3", Kind.TYPE),
    "an object that can't be compared or shown": (lambda z: Untouchable(), Kind.TYPE),
    "a generator": (lambda z: (x for x in z), Kind.TYPE),
    "itself": (lambda z: lambda: z, Kind.TYPE),
    "another shape": (lambda z: solved_gradient(z)[0], Kind.SHAPE),
    "one row too many": (lambda z: torch.cat([solved_gradient(z), z[:1]]), Kind.SHAPE),
    "a ragged list": (lambda z: [[1.0], [1.0, 2.0]], Kind.SHAPE),
    "an empty list": (lambda z: [], Kind.SHAPE),
    "whole numbers": (lambda z: solved_gradient(z).long(), Kind.DTYPE),
    "complex numbers": (lambda z: solved_gradient(z) * (1 + 1j), Kind.DTYPE),
    "NaN": (with_nan, Kind.NOT_FINITE),
    "infinity": (lambda z: solved_gradient(z) / 0, Kind.NOT_FINITE),
    "another number": (lambda z: solved_gradient(z) + 0.5, Kind.DIFFERS),
    "something on the meta device": (lambda z: torch.ones(2, 2, device="meta"), Kind.RAISED),
    "a sparse tensor": (lambda z: z.to_sparse() * 7, Kind.DIFFERS),
    "changes its input": (changes_its_input, Kind.CHANGED),
    "another result each time": (at_random, Kind.RANDOM),
}


@pytest.mark.parametrize(("answer", "kind"), BROKEN.values(), ids=BROKEN)
def test_every_broken_answer_has_its_sentence(answer: object, kind: Kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = GRADIENT.finding(answer)
    assert found.kind is kind, found
    said = sentences(found)
    assert said and all(said) and TITLES[kind]
    checked = GRADIENT.check(answer)
    assert said[0] in repr(checked) and "<div" in checked._repr_html_()


def test_an_error_is_given_with_its_line():
    found = GRADIENT.finding(raises)
    first = raises.__code__.co_firstlineno
    assert found.error is not None and found.error.line == first + 2
    (said, *_) = sentences(found)
    assert f"In line {first + 2}: `return z / whole + torch.ones(99)`, RuntimeError" in said


@pytest.mark.parametrize("answer", [for_ever, for_ever_and_deaf])
def test_an_endless_loop_comes_to_an_end(answer: Callable):
    released.clear()
    object.__setattr__(GRADIENT, "limit", 0.3)
    try:
        begins = time.monotonic()
        found = GRADIENT.finding(answer)
    finally:
        object.__setattr__(GRADIENT, "limit", 5.0)
        released.set()
    assert found.kind is Kind.TOO_LONG and found.inputs
    assert time.monotonic() - begins < 5
    assert "0.3 seconds" in sentences(found)[0]


def test_a_gradient_that_does_not_flow():
    loss = right(LOSS)
    found = LOSS.finding(lambda a, b, s: torch.tensor(loss(a, b, s).item()))
    assert found.kind is Kind.DETACHED
    found = LOSS.finding(lambda a, b, s: loss(a, b, s).item())
    assert found.kind is Kind.DETACHED
    found = LOSS.finding(lambda a, b, s: loss(a.detach(), b, s))
    assert found.kind is Kind.GRADIENT
    for kind in (Kind.DETACHED, Kind.GRADIENT):
        assert "autograd" in SAYS[kind] or "Autograd" in SAYS[kind]


def test_both_results_stand_side_by_side_on_the_smallest_input():
    found = GRADIENT.finding(lambda z: solved_gradient(z) + 0.5)
    assert found.inputs[0][1] == "[[3.082, -0.5869], [-4.358, 1.137]]"
    _, yours, expected, smallest = sentences(found)
    assert yours.startswith("Yours: [[0.4") and expected.startswith("Expected: [[-0.0")
    assert smallest.startswith("The smallest input that shows it: z = [[")


def test_what_is_right_for_small_inputs_only_is_shown_on_a_larger_one():
    def only_small(z: torch.Tensor) -> torch.Tensor:
        return solved_gradient(z) if len(z) < 5 else z

    found = GRADIENT.finding(only_small)
    assert found.kind is Kind.DIFFERS and "(5, 5)" in found.inputs[0][1]


FORMS = {
    "float64": lambda z: solved_gradient(z.double()),
    "bfloat16": lambda z: solved_gradient(z).bfloat16(),
    "float16": lambda z: solved_gradient(z).half(),
    "NumPy": lambda z: solved_gradient(z).numpy(),
    "lists": lambda z: solved_gradient(z).tolist(),
    "a tuple of rows": lambda z: tuple(solved_gradient(z)),
    "an expanded view": lambda z: solved_gradient(z).T.contiguous().T,
    "a parameter": lambda z: torch.nn.Parameter(solved_gradient(z)),
    "with a graph": lambda z: solved_gradient(z.clone().requires_grad_()),
    "with a default": lambda z, labels=None: solved_gradient(z),
    "with any arguments": lambda *given: solved_gradient(*given),
    "a partial": functools.partial(solved_gradient),
    "under no_grad": torch.no_grad()(solved_gradient),
}


@pytest.mark.parametrize("answer", FORMS.values(), ids=FORMS)
def test_a_right_answer_in_another_form_is_right(answer: Callable):
    assert GRADIENT.finding(answer).kind is Kind.RIGHT


def test_order_matters_only_where_it_matters():
    dead = right(DEAD)
    for form in (list, tuple, sorted, frozenset, lambda names: [*names, *names]):
        assert DEAD.finding(lambda grads, form=form: form(dead(grads))).is_right
    search = right(SEARCH)
    for form in (tuple, torch.tensor, np.array, lambda found: [float(i) for i in found]):
        assert SEARCH.finding(lambda *given, form=form: form(search(*given))).is_right
    assert SEARCH.finding(lambda *given: set(search(*given))).kind is Kind.TYPE


def test_a_bound_method_and_an_object_that_can_be_called_are_functions():
    class Mine:
        def __call__(self, z):
            return solved_gradient(z)

        def method(self, z):
            return solved_gradient(z)

    assert GRADIENT.finding(Mine()).is_right and GRADIENT.finding(Mine().method).is_right


def test_a_loss_by_other_means_is_right():
    def with_one_hot(z, groups):
        same = groups[:, None] == groups[None, :]
        same.fill_diagonal_(False)
        z = torch.where(same, torch.tensor(-1e9), z)
        return -(z.log_softmax(0).diag().mean() + z.log_softmax(1).diag().mean()) / 2

    assert TWINS.finding(with_one_hot).is_right


def test_a_class_that_lacks_a_part_is_told_so():
    class Mine(torch.nn.Module):
        def __init__(self, base, rank, alpha):
            super().__init__()
            self.base = base.requires_grad_(False)

        def forward(self, x):
            return self.base(x)

    found = LAYER.finding(Mine)
    assert found.mistake == "other names" and "nothing under the names `A`" in sentences(found)[0]
    assert sentences(found)[1:3] == ["Yours (A): missing", "Expected (A): a parameter"]

    class NoRank(Mine):
        def __init__(self, base):
            super().__init__(base, 1, 1)

    assert LAYER.finding(NoRank).kind is Kind.PARAMETERS


def test_a_half_filled_stub_is_not_taken_for_an_empty_one():
    def merge(W, A, B, alpha):
        scale = alpha / len(A)
        B @ A * scale

    assert MERGE.finding(merge).kind is Kind.NOTHING


def test_a_layer_by_other_means_is_right_and_what_the_check_needs_is_said():
    class Mine(torch.nn.Module):
        def __init__(self, base, rank, alpha):
            super().__init__()
            self.base = base.requires_grad_(False)
            self.A = torch.nn.Parameter(torch.zeros(rank, base.in_features))
            self.B = torch.nn.Parameter(torch.randn(base.out_features, rank))
            self.scale = alpha / rank

        def forward(self, x):
            return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)

    assert LAYER.finding(Mine).is_right  # exactly one of the two is zero, as in 02.6

    class Silent(Mine):
        def forward(self, x):
            super().forward(x)

    found = LAYER.finding(Silent)
    assert found.kind is Kind.NOTHING and sentences(found)[0].startswith("`forward`: it ends")

    for scale in (1.0, 1e-6):

        class Random(Mine):
            def __init__(self, base, rank, alpha, scale=scale):
                super().__init__(base, rank, alpha)
                torch.nn.init.normal_(self.A, std=scale)

        assert LAYER.finding(Random).mistake == "B random as well"

    class NewBase(Mine):
        def __init__(self, base, rank, alpha):
            super().__init__(torch.nn.Linear(base.in_features, base.out_features), rank, alpha)

    found = LAYER.finding(NewBase)
    assert found.kind is Kind.DIFFERS and "what `base` gives" in sentences(found)[1]

    for answer in (Mine(torch.nn.Linear(2, 3), 1, 1.0), lambda base, rank, alpha: base):
        found = LAYER.finding(answer)
        assert found.kind is Kind.NOT_A_CLASS
        assert "Asked is the class `MyLoRALinear` itself" in sentences(found)[0]


def test_an_input_that_autograd_does_not_let_change_is_said_to_be_changed():
    def in_place(z, groups):
        z[groups[:, None] == groups[None, :]] = -1e9
        return z.sum()

    found = TWINS.finding(in_place)
    assert found.kind is Kind.CHANGED and found.error is not None
    first = sentences(found)[0]
    assert "z[groups[:, None] == groups[None, :]] = -1e9" in first and "leaf" not in first
    assert "changes an input in place" in first


def test_a_wrong_result_with_a_changed_input_says_both():
    def merge(W, A, B, alpha):
        W += alpha * B @ A
        return W

    found = MERGE.finding(merge)
    assert (found.mistake, found.changed) == ("α without the rank", ("W",))
    assert "The call also changes `W` in place." in sentences(found)

    def right_but_changed(W, A, B, alpha):
        A *= alpha / len(A)
        return W + B @ A

    found = MERGE.finding(right_but_changed)
    assert found.kind is Kind.CHANGED and found.changed == ("A",)
    assert sentences(found)[0].startswith("The result is right, but the call changes `A`, and")


RANK = 8


def test_what_a_wrong_answer_reads_from_the_notebook_or_keeps_is_said():
    def merge(W, A, B, alpha):
        return W + sum(alpha / RANK for _ in range(1)) * B @ A

    found = MERGE.finding(merge)
    assert found.reads == ("RANK",)
    assert "reads `RANK` from the notebook" in " ".join(sentences(found))

    def search(pictures, text, k, kept=[]):  # noqa: B006
        kept += right(SEARCH)(pictures, text, k)
        return kept

    found = SEARCH.finding(search)
    assert found.kept == ("kept",) and "The default value of `kept`" in " ".join(sentences(found))

    def with_epsilon(W, A, B, alpha):
        return right(MERGE)(W, A, B, alpha) + 0 * RANK

    assert MERGE.finding(with_epsilon).is_right and not MERGE.finding(with_epsilon).reads


def test_random_numbers_and_settings_are_left_as_they_were():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    GRADIENT.finding(at_random)
    LAYER.finding(right(LAYER))
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()
    with torch.no_grad():
        assert LOSS.finding(right(LOSS)).is_right


def test_what_it_prints_is_shown_once(capsys):
    def talks(z):
        print("here I am")
        return solved_gradient(z)

    assert GRADIENT.finding(talks).is_right
    assert capsys.readouterr().out == "here I am\n"


def test_a_graph_that_waits_is_counted_and_one_that_is_made_anew_is_not():
    def with_checkpoints(encode, pictures, loss_of, chunk):
        parts = [checkpoint(encode, p, use_reentrant=False) for p in pictures.split(chunk)]
        loss = loss_of(torch.cat(parts))
        loss.backward()
        return loss.detach()

    def cached(encode, pictures, loss_of, chunk, wait):
        parts, graphs, kept = pictures.split(chunk), [], []
        for part in parts:
            features = encode(part)  # of the last part, still there when the next one is encoded
            kept.append(features.detach())
            graphs += [features] if wait else []
        leaf = torch.cat(kept).requires_grad_()
        loss = loss_of(leaf)
        loss.backward()
        graphs = graphs if wait else map(encode, parts)
        for features, gradient in zip(graphs, leaf.grad.split(chunk), strict=True):
            features.backward(gradient)
        return loss

    check = exercise("07.1").finding
    assert check(with_checkpoints).is_right
    assert check(lambda *given: cached(*given, wait=False)).is_right
    assert check(lambda *given: cached(*given, wait=True)).mistake == "graphs wait for one another"


def test_a_model_is_used_as_open_clip_lets_one_use_it():
    def train_step(model, optimizer, images, tokens):
        optimizer.zero_grad()
        loss = contrastive_loss(*model(images, tokens))
        loss.backward()
        optimizer.step()
        return loss

    assert exercise("05.1").finding(train_step).is_right


# ----------------------------------------------------------------------------------- questions


def test_parts_of_a_question():
    check = DIAGNOSES.finding
    assert check({"Anna": "?", "Ben": "?", "Carla": "?"}).kind is Kind.NOT_YET
    found = check({"Anna": "Detached ", "Ben": "?", "Carla": "?"})
    assert found.kind is Kind.NOT_YET and found.names == ("Ben", "Carla")
    assert found.parts_right == (1, 3)
    assert sentences(found) == ['Still open: "Ben", "Carla".', "Right so far: 1 of 3 parts."]
    found = check({"Anna": "detached", "Ben": "detatched", "Carla": "?"})
    assert found.kind is Kind.NO_CHOICE
    said = sentences(found)[0]
    assert said.startswith('Ben: "detatched" is not among the choices: "detached", "never')
    for answer, expected in {
        "detached": 'The answer is a dictionary with these keys: "Anna", "Ben", "Carla".',
        ("Anna", "Ben"): 'Missing: "Carla".',
        ("Anna", "Benn", "Carl"): 'Missing: "Ben", "Carla". Unknown: "Benn", "Carl".',
        ("anna",): 'The answer is a dictionary with these keys: "Anna", "Ben", "Carla".',
    }.items():
        given = dict.fromkeys(answer, "detached") if isinstance(answer, tuple) else answer
        found = check(given)
        assert found.kind is Kind.PARTS and sentences(found) == [expected]
    assert check({"Anna": 1, "Ben": [], "Carla": Untouchable()}).kind is Kind.NO_CHOICE
    assert check(None).kind is Kind.NOT_YET


def test_what_an_exercise_has_to_do_without():
    def by_softmax(z):
        def one_way(z):
            return -z.log_softmax(1).diag().mean()

        return (one_way(z) + one_way(z.T)) / 2

    found = exercise("03.2").finding(by_softmax)
    assert found.kind is Kind.NOT_ALLOWED
    assert sentences(found) == ["It uses `log_softmax`. Here you do without."]

    def in_a_helper(z):
        return torch.nn.CrossEntropyLoss()(z, torch.arange(len(z)))

    found = exercise("03.2").finding(lambda z: (in_a_helper(z) + in_a_helper(z.T)) / 2)
    assert found.kind is Kind.NOT_ALLOWED and found.names == ("cross_entropy",)

    def logsumexp(z):  # a name that the learner gave
        largest = z.amax(dim=1, keepdim=True)
        return ((z - largest).exp().sum(dim=1, keepdim=True).log() + largest)[:, 0]

    def by_hand(z):
        return (logsumexp(z) + logsumexp(z.T) - 2 * z.diag()).mean() / 2

    assert exercise("03.2").finding(by_hand).is_right

    def by_autograd(z):
        z = z.clone().requires_grad_()
        labels = torch.arange(len(z))
        ((F.cross_entropy(z, labels) + F.cross_entropy(z.T, labels)) / 2).backward()
        return z.grad

    assert GRADIENT.finding(by_autograd).kind is Kind.NOT_ALLOWED


def test_a_number_in_any_form_and_no_number():
    for form in (float, np.float32, torch.tensor, lambda x: [x]):
        assert PAPER.finding({"numbers": form(12288), "factor": form(4)}).is_right
    found = PAPER.finding({"numbers": 12288, "factor": "4"})
    assert found.kind is Kind.TYPE
    assert sentences(found)[0] == 'factor: your answer is "4"; what is asked is a number.'
    found = PAPER.finding({"numbers": 12289, "factor": 4})
    assert found.kind is Kind.DIFFERS
    assert sentences(found)[0] == "numbers: your answer is 12289, which is too large."


def test_a_number_that_was_rounded_and_a_choice_that_is_wrong():
    eight, beginnings, traps = exercise("00.1"), exercise("02.6"), exercise("01.6")
    for whole in (12, 13):
        found = eight.finding(whole)
        assert found.kind is Kind.ROUNDED
        assert sentences(found) == ["You rounded; keep what comes after the point."]
    assert eight.finding(Fraction(25, 2)).is_right and eight.finding(Decimal("12.5")).is_right
    found = beginnings.finding({**beginnings.right, "both zero": "explodes"})
    assert sentences(found)[0] == 'both zero: your answer is "explodes". This is not it.'
    for text in ("cut-off", "Cut  off.", "cut off: what tells the captions apart is never read"):
        assert traps.finding({**traps.right, "Ben": text}).is_right
    assert traps.finding({**traps.right, "Ben": "cut: off"}).kind is Kind.NO_CHOICE


def test_no_finding_of_a_question_holds_the_right_answer():
    for answer in (
        {"numbers": 3, "factor": 5},
        {"numbers": "x", "factor": 3},
        {"numbers": 12288, "factor": 5},
    ):
        assert "12288" not in repr(PAPER.finding(answer)).replace("12288)", "")


def test_the_sentences_of_mistakes_do_not_hold_the_solution():
    for program in (LOSS, GRADIENT, SEARCH, MERGE, TWINS):
        assert isinstance(program, Program)
        for mistake in program.mistakes:
            assert isinstance(mistake, Mistake)
            if isinstance(mistake.change, dict):
                for old in mistake.change:
                    assert len(old) < 12 or old.strip() not in mistake.says


# -------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("mine", "expected", "kind"),
    [
        ([1, 2.5], torch.tensor([1, 2.5]), None),
        ([True, 2.5], np.array([1, 2.5]), None),
        ([[1], [2, 3]], ([1], [2, 3]), None),
        ((1, "a"), [1.0, "A "], None),
        ({"a": 1, "b": [2]}, {"b": torch.tensor([2]), "a": 1.0}, None),
        ({1, 2}, [1, 2], Kind.TYPE),
        ([2, 1, 1], {1, 2}, None),
        (torch.tensor([2, 1]), {1, 2}, None),
        ([[1], [2]], {1, 2}, Kind.TYPE),
        ({"a": 1}, {"a": 1, "b": 2}, Kind.DIFFERS),
        ({"a": 1, "b": 3}, {"a": 1, "b": 2}, Kind.DIFFERS),
        (1, {"a": 1}, Kind.TYPE),
        (3, (1, "a"), Kind.TYPE),
        ((1, "a", 2), (1, "a"), Kind.LENGTH),
        ([1, 2], [1, 2, 3], Kind.LENGTH),
        (divmod(7, 3), 2, Kind.LENGTH),
        ((torch.ones(2, 3), torch.ones(2, 3)), torch.ones(2, 3), Kind.LENGTH),
        (torch.ones(2, 5).topk(2), [0, 1], Kind.SHAPE),
        ([[1], [2, 3]], torch.ones(2, 2), Kind.SHAPE),
        ([], torch.ones(2, 2), Kind.SHAPE),
        ([], [1, 2, 3], Kind.LENGTH),
        (7, [1, 2, 3], Kind.LENGTH),
        (torch.ones(4, 3), (torch.ones(4, 3), torch.ones(4, 3)), Kind.LENGTH),
        (torch.ones(2, 3), (torch.ones(3), torch.ones(3)), None),
        ((torch.ones(3), torch.ones(3)), torch.ones(2, 3), None),
        (torch.ones(2, 3), torch.ones(3), Kind.SHAPE),
        (Fraction(5, 2), 2.5, None),
        (Decimal("2.5"), Fraction(5, 2), None),
        (Fraction(10**400), 1.0, Kind.TYPE),
        ({"a": None}, {"a": 1, "b": 2}, Kind.NOTHING),
        (torch.tensor([[2.0]]), 2, None),
        (10_000, 10_001, Kind.DIFFERS),
        (10_000.0, 10_000.4, None),
        (1, 1.4, Kind.DTYPE),
        (float("inf"), float("inf"), None),
        (None, None, None),
        (None, "x", Kind.NOTHING),
        (10**400, 1.0, Kind.TYPE),
        (np.array([object()]), 1.0, Kind.TYPE),
    ],
)
def test_whether_two_results_say_the_same(mine: object, expected: object, kind: Kind | None):
    found = difference(plain(mine), plain(expected))
    assert (found and found.kind) is kind, found


def test_of_large_tensors_the_first_place_that_differs_is_shown():
    expected = torch.arange(24.0).reshape(2, 3, 4)
    mine = expected.clone()
    mine[1, 2, 1:] += 0.5
    found = difference(mine, expected)
    assert found is not None and found.place == (1, 2, 1)
    shown = sentences(Finding(found.kind, difference=found, inputs=(("k", "1"),)))[1]
    assert shown == "At [1, 2, 1]: yours 21.5, expected 21"
    found = difference(expected * (1 + 0j), expected)
    assert found is not None and (found.kind, found.place) == (Kind.DTYPE, ())
    mine[0, 0, 3] = torch.nan
    found = difference((mine, mine), (mine.nan_to_num(3), expected))
    assert found is not None and (found.part, found.place) == ("[0]", (0, 0, 3))
