"""The contrastive loss: open_clip's in value and gradient, the hand-derived one, its refusals."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import ClipLoss

import mclip_helpers as mh
from mclip_helpers.loss import MAX_LOGIT_SCALE, NotFiniteError, clamp_logit_scale, shortest

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def features(n: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two unnormalised batches (N, D) in float64 that ask for a gradient."""
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(2, n, d, dtype=torch.float64, generator=generator) * 3 + 1
    return pair[0].clone().requires_grad_(), pair[1].clone().requires_grad_()


def scale(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, **EXACT)


sizes = given(
    n=st.integers(2, 9),
    d=st.integers(2, 9),
    seed=st.integers(0, 2**16),
    multiplier=st.floats(0.1, 100),
)


# ---- the value ----------------------------------------------------------------------------------


@settings(deadline=None)
@sizes
def test_it_equals_open_clips_loss_in_value_and_gradient(n, d, seed, multiplier):
    image, text = features(n, d, seed)
    inputs = (image, text, scale(multiplier))
    ours = mh.contrastive_loss(*inputs)
    theirs = ClipLoss()(F.normalize(image, dim=-1), F.normalize(text, dim=-1), inputs[2])
    close(ours, theirs)
    for left, right in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True
    ):
        close(left, right)


@pytest.mark.parametrize("n", [2, 3, 64])
@pytest.mark.parametrize("multiplier", [1.0, 100.0])
def test_it_is_ln_n_where_all_features_are_the_same(n: int, multiplier: float):
    same = torch.ones(n, 5, dtype=torch.float64)
    loss = mh.contrastive_loss(same, same, multiplier)
    assert loss.item() == pytest.approx(math.log(n), abs=1e-12)


def test_two_orthogonal_pairs_give_the_loss_computed_on_paper():
    """Right answers have the logit s, wrong ones 0: −ln(eˢ / (eˢ + 1)), each way round."""
    eye = torch.eye(2, dtype=torch.float64)
    assert mh.contrastive_loss(eye, eye, 3.0).item() == pytest.approx(math.log1p(math.exp(-3.0)))
    assert mh.contrastive_loss(eye, eye.flip(0), 3.0).item() == pytest.approx(
        math.log1p(math.exp(3.0))
    )


def test_it_is_the_mean_of_both_directions():
    """Two pictures that are the same, two captions that are not: each direction has its own loss.

    Picture → caption: a coin toss for the first (logits s and 0, twice, one of them right).
    Caption → picture: both pictures are equally near, whatever the caption, so ln 2.
    """
    image = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    s = 2.0
    picture_to_caption = (math.log1p(math.exp(-s)) + math.log1p(math.exp(s))) / 2
    expected = (picture_to_caption + math.log(2)) / 2
    assert mh.contrastive_loss(image, text, s).item() == pytest.approx(expected, abs=1e-12)
    assert mh.contrastive_loss(text, image, s).item() == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@sizes
def test_the_lengths_of_the_features_do_not_matter(n, d, seed, multiplier):
    image, text = features(n, d, seed)
    lengths = torch.logspace(-2, 2, n, dtype=torch.float64)[:, None]
    close(
        mh.contrastive_loss(image * lengths, text * 7, multiplier),
        mh.contrastive_loss(F.normalize(image), F.normalize(text), multiplier),
    )


@settings(deadline=None)
@sizes
def test_the_order_of_the_pairs_does_not_matter_and_gradients_follow_it(n, d, seed, multiplier):
    image, text = features(n, d, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    first = mh.contrastive_loss(image, text, multiplier)
    second = mh.contrastive_loss(
        shuffled_image := image.detach()[order].requires_grad_(),
        shuffled_text := text.detach()[order].requires_grad_(),
        multiplier,
    )
    close(first, second)
    wanted = torch.autograd.grad(first, (image, text))
    got = torch.autograd.grad(second, (shuffled_image, shuffled_text))
    close(got[0], wanted[0][order])
    close(got[1], wanted[1][order])


def test_breaking_up_the_pairs_raises_it():
    """Permuting one side alone is no symmetry: a loss that ignored the pairing would pass above."""
    image, _ = features(6, 8)
    assert mh.contrastive_loss(image, image, 20.0) < mh.contrastive_loss(
        image, image.roll(1, 0), 20.0
    )


def test_the_scale_may_be_a_number_or_a_tensor():
    image, text = features(4, 5)
    close(mh.contrastive_loss(image, text, 20.0), mh.contrastive_loss(image, text, scale(20.0)))


def test_the_loss_is_a_scalar_in_the_features_precision():
    for dtype in (torch.float32, torch.float64):
        loss = mh.contrastive_loss(
            torch.randn(3, 4, dtype=dtype), torch.randn(3, 4, dtype=dtype), 2.0
        )
        assert loss.shape == () and loss.dtype == dtype


# ---- the gradient -------------------------------------------------------------------------------


@pytest.mark.parametrize("multiplier", [1.0, 14.0, 100.0])
def test_autograd_agrees_with_central_differences(multiplier: float):
    image, text = features(4, 3)
    inputs = (image, text, scale(multiplier))
    assert torch.autograd.gradcheck(mh.contrastive_loss, inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


@settings(deadline=None)
@sizes
def test_autograd_agrees_with_the_gradient_derived_by_hand(n, d, seed, multiplier):
    """dL/dlogits = ((softmax over rows + softmax over columns) / 2 − I) / N, and on from there.

    Logits are s · u vᵀ with u = x / |x| and v = y / |y|; through the normalisation passes only
    what is at a right angle to u: dL/dx = (g − (g · u) u) / |x|.
    """
    x, y = features(n, d, seed)
    s = scale(multiplier)
    found = torch.autograd.grad(mh.contrastive_loss(x, y, s), (x, y, s))

    with torch.no_grad():
        u, v = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
        logits = s * u @ v.T
        dlogits = ((logits.softmax(1) + logits.softmax(0)) / 2 - torch.eye(n)) / n
        du, dv = s * dlogits @ v, s * dlogits.T @ u
        dx = (du - (du * u).sum(1, keepdim=True) * u) / x.norm(dim=1, keepdim=True)
        dy = (dv - (dv * v).sum(1, keepdim=True) * v) / y.norm(dim=1, keepdim=True)
        ds = (dlogits * (u @ v.T)).sum()
    for got, expected in zip(found, (dx, dy, ds), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


def test_a_gradient_is_at_a_right_angle_to_its_feature():
    image, text = features(5, 6)
    gradient, _ = torch.autograd.grad(mh.contrastive_loss(image, text, 10.0), (image, text))
    assert gradient.norm() > 1e-3
    assert (gradient * image).sum(1).abs().max() < 1e-12


# ---- the bound on logit_scale -------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(101.0, 100.0), (50.0, 50.0), (0.5, 1.0)])
def test_the_multiplier_stays_between_1_and_clips_own_bound(before: float, after: float):
    assert MAX_LOGIT_SCALE == 100
    log_scale = torch.nn.Parameter(torch.tensor(math.log(before)))
    clamp_logit_scale(log_scale)
    assert log_scale.exp().item() == pytest.approx(after, rel=1e-6)
    assert log_scale.requires_grad


# ---- half precision -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_the_same_loss_within_its_own_rounding(dtype: torch.dtype):
    image, text = features(16, 32)
    # The reference sees the same, already rounded features: what is left is the arithmetic.
    rounded = [x.detach().to(dtype).requires_grad_() for x in (image, text)]
    exact = [x.detach().double().requires_grad_() for x in rounded]
    loss, expected = mh.contrastive_loss(*rounded, 20.0), mh.contrastive_loss(*exact, 20.0)
    # A unit vector is off by up to eps / 2 a component; the scale of 20 makes that a logit's error.
    assert abs(loss.item() - expected.item()) < 20 * torch.finfo(dtype).eps
    found = torch.autograd.grad(loss, rounded)
    for got, wanted in zip(found, torch.autograd.grad(expected, exact), strict=True):
        assert got.dtype == dtype and got.isfinite().all()
        assert (got.double() - wanted).norm() / wanted.norm() < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_knows_ln_n_at_the_largest_scale(dtype: torch.dtype):
    same = torch.ones(8, 16, dtype=dtype)
    loss = mh.contrastive_loss(same, same, 100.0)
    assert loss.item() == pytest.approx(math.log(8), rel=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_row_of_zeros_has_no_direction_but_does_no_harm(dtype: torch.dtype):
    image, text = torch.eye(3, 4, dtype=dtype), torch.eye(3, 4, dtype=dtype)
    image[1] = 0
    image.requires_grad_()
    loss = mh.contrastive_loss(image, text, 10.0)
    loss.backward()
    assert loss.isfinite() and image.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_normalised_as_pytorch_does_it_to_the_bit(dtype: torch.dtype):
    tiny = torch.randn(50, 8, dtype=dtype) * torch.logspace(-20, 0, 50, dtype=dtype)[:, None]
    expected = F.normalize(tiny, dim=-1)
    assert torch.equal(F.normalize(tiny, dim=-1, eps=shortest(tiny)), expected)


def nodes_behind(loss: torch.Tensor) -> Counter[str]:
    """How often each operation is in the graph of `loss`, by name."""
    found, waiting = Counter(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        found[node.name()] += 1
        waiting += [following for following, _ in node.next_functions if following is not None]
    return found


def test_the_checks_leave_no_trace_in_the_graph():
    """Notebook 04 records this loss: its nodes are those of its own lines."""
    image, text = features(3, 4)
    multiplier = scale(10.0)
    logits = multiplier * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    labels = torch.arange(3)
    plain = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    assert nodes_behind(mh.contrastive_loss(image, text, multiplier)) == nodes_behind(plain)


# ---- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "text"),
    [
        pytest.param((4, 8), (5, 8), id="more captions"),
        pytest.param((4, 8), (4, 9), id="other dimension"),
        pytest.param((4, 8), (1, 8), id="would broadcast"),
        pytest.param((8,), (8,), id="1-D"),
        pytest.param((2, 4, 8), (2, 4, 8), id="3-D"),
        pytest.param((4, 8), (8,), id="one is 1-D"),
    ],
)
def test_shapes_that_do_not_match_are_named(image: tuple, text: tuple):
    with pytest.raises(ValueError, match="same shape") as error:
        mh.contrastive_loss(torch.randn(image), torch.randn(text), 1.0)
    assert f"image_features {image}, text_features {text}" in str(error.value)


@pytest.mark.parametrize("n", [0, 1])
def test_a_batch_without_a_wrong_answer_is_refused(n: int):
    with pytest.raises(ValueError, match="at least two pairs") as error:
        mh.contrastive_loss(torch.randn(n, 8), torch.randn(n, 8), 1.0)
    assert f"image_features ({n}, 8)" in str(error.value)


@pytest.mark.parametrize("broken", ["image_features", "text_features"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_are_named_with_their_rows(broken: str, value: float):
    given_ = {"image_features": torch.randn(6, 3), "text_features": torch.randn(6, 3)}
    given_[broken][1, 2] = value
    given_[broken][4, 0] = value
    words = rf"^{broken} has NaN or infinite values in 2 of 6 rows \(1, 4\)"
    with pytest.raises(NotFiniteError, match=words):
        mh.contrastive_loss(**given_, logit_scale=1.0)


def test_of_many_broken_rows_the_first_five_are_listed():
    image = torch.full((9, 3), math.nan)
    with pytest.raises(NotFiniteError, match=r"in 9 of 9 rows \(0, 1, 2, 3, 4, …\)"):
        mh.contrastive_loss(image, torch.randn(9, 3), 1.0)


def test_what_is_not_finite_is_also_a_value_error():
    assert issubclass(NotFiniteError, ValueError)
