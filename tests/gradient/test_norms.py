"""The norm of a gradient."""

from __future__ import annotations

import math

import pytest
import torch
from recording import equal_with_and_without_trace, leaf
from recording import norm as definition
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import Verdict, Visit
from mclip_helpers.gradient.norms import fetch, norm

NUMBERS = {
    "usual": (torch.float32, 1.0),
    "tiny": (torch.float32, 1e-30),
    "the smallest": (torch.float32, 2.0**-149),
    "huge": (torch.float32, 1e37),
    "tiny, double": (torch.float64, 1e-300),
    "huge, double": (torch.float64, 1e300),
    "half": (torch.float16, 1e3),
    "the smallest half": (torch.float16, 2.0**-24),
    "tiny bfloat16": (torch.bfloat16, 2.0**-120),
    "huge bfloat16": (torch.bfloat16, 2.0**120),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_norm_is_right_for_numbers_of_every_size(name: str):
    dtype, size = NUMBERS[name]
    gradient = torch.tensor([3.0, 0.0, -4.0], dtype=torch.float64) * size
    assert norm(gradient.to(dtype)) == pytest.approx(5 * size, rel=1e-6, abs=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_only_zeros_have_a_norm_of_zero(dtype: torch.dtype):
    assert norm(torch.zeros(3, dtype=dtype)) == 0
    assert norm(torch.empty(0, dtype=dtype)) == 0
    smallest = torch.tensor([0, torch.finfo(dtype).smallest_normal, 0], dtype=dtype)
    assert norm(smallest) == torch.finfo(dtype).smallest_normal


@pytest.mark.parametrize(("bad", "expected"), [(math.nan, math.nan), (-math.inf, math.inf)])
def test_the_norm_of_what_is_not_finite_is_not_finite(bad: float, expected: float):
    assert norm(torch.tensor([1.0, bad])) == pytest.approx(expected, nan_ok=True)


def test_the_norm_of_one_number_or_of_a_gradient_that_has_one_itself_is_a_plain_number():
    for gradient in (torch.tensor(-3.0), torch.tensor([3.0], requires_grad=True) * 1):
        assert (norm(gradient), type(norm(gradient))) == (3.0, float)


@pytest.mark.parametrize(
    ("gradient", "kind"),
    [
        (torch.eye(2).to_sparse(), r"sparse \(torch\.sparse_coo\)"),
        (torch.ones(2, 2, dtype=torch.complex64), "complex"),
    ],
)
def test_the_norm_of_another_kind_of_tensor_is_refused(gradient: torch.Tensor, kind: str):
    with pytest.raises(NotImplementedError, match=rf"shape \(2, 2\) is {kind}"):
        norm(gradient)


def test_norms_that_are_still_tensors_are_fetched_and_the_others_stay():
    three, four = torch.tensor(3.0), torch.tensor(4.0, dtype=torch.float64)
    broken_off = Visit(1, (three, None), ((2,), None))
    whole = Visit(2, (1.5, four), ((2,), (2,)), (three, None, 0.0), ((2,), None, (2,)))
    plain = Visit(3, (0.5,), ((),))
    fetch([broken_off, whole, plain])
    assert (broken_off.incoming, broken_off.outgoing) == ((3.0, None), None)
    assert (whole.incoming, whole.outgoing) == ((1.5, 4.0), (3.0, None, 0.0))
    assert plain.incoming == (0.5,)


# ------------------------------------------------------------------------------- in a recording


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (torch.float32, 1e-30),
        (torch.float32, 1e-44),
        (torch.float64, 1e-200),
        (torch.bfloat16, 1e-30),
        (torch.float32, 1e25),
        (torch.float64, 1e200),
    ],
)
def test_recorded_norms_are_right_where_the_squares_are_too_small_or_too_large(dtype, size):
    x = leaf(3, dtype=dtype)
    with mh.trace({"x": x}) as tape:
        ((x * 1) * size).sum().backward()
    assert x.grad.any()
    expected = pytest.approx(definition(x.grad), rel=1e-6, abs=0)
    assert tape.graph.leaf("x").norm_in == expected
    assert all(n.norm_in == expected for n in tape.graph.nodes[:1])
    assert tape.graph.gradients[0].verdict is Verdict.REACHED
    assert mh.gradients(nn.ParameterDict({"x": x}))[0].norm is None, "a copy without a gradient"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_has_no_finite_norm(bad):
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        (x * torch.tensor([1.0, bad, 1.0])).sum().backward()
    arrived = tape.graph.leaf("x").norm_in
    assert math.isnan(arrived) if math.isnan(bad) else arrived == math.inf
    assert tape.graph.gradients[0].verdict is Verdict.REACHED


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_each_precision_gets_the_same_bits_and_its_norms(dtype):
    model = nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.LayerNorm(4), nn.Linear(4, 2)).to(dtype)
    graph = equal_with_and_without_trace(model, torch.randn(3, 5, dtype=dtype))
    for name, p in model.named_parameters():
        assert graph.leaf(name).norm_in == pytest.approx(definition(p.grad), rel=1e-5)


def test_a_complex_gradient_is_refused():
    x = torch.tensor([1 + 2j, 3 - 1j], requires_grad=True)
    with mh.trace({"x": x}), pytest.raises(NotImplementedError, match=r"shape \(2,\) is complex"):
        (x * (3 + 4j)).abs().square().sum().backward()


def test_a_sparse_gradient_is_refused_with_what_to_do():
    table = nn.Embedding(7, 3, sparse=True)
    with mh.trace(table), pytest.raises(NotImplementedError, match="sparse=False"):
        table(torch.tensor([1, 1, 5])).square().sum().backward()
    table(torch.tensor([1, 1, 5])).square().sum().backward()
    with pytest.raises(NotImplementedError, match=r"shape \(7, 3\) is sparse"):
        mh.gradients(table)
