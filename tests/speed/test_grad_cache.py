"""GradCache: the gradient of the whole batch, whatever the parts; dropout and scaler included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import fresh
from small_batches import in_float64, small_batch
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import Graph
from mclip_helpers.speed import cached_backward


def step(clip: mh.Clip, backward) -> Graph:
    """What `backward(encoders, inputs, loss_of)` leaves in `.grad`, recorded."""
    model = clip.model
    model.zero_grad()
    inputs = small_batch(clip)

    def loss_of(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        return mh.contrastive_loss(images, texts, model.logit_scale.exp())

    with mh.trace(model, keep_gradients=True) as tape:
        backward((model.encode_image, model.encode_text), inputs, loss_of)
    return tape.graph


def plain(encoders, inputs, loss_of) -> torch.Tensor:
    features = [encode(batch) for encode, batch in zip(encoders, inputs, strict=True)]
    loss = loss_of(*features)
    loss.backward()
    return loss.detach()


def in_chunks(chunk: int):
    return lambda encoders, inputs, loss_of: cached_backward(encoders, inputs, loss_of, chunk)


def losses_of_parts(encoders, inputs, loss_of) -> None:
    """What many scripts do to save memory: the losses of small batches, added up."""
    for part in zip(*(batch.split(4) for batch in inputs), strict=True):
        (loss_of(*(encode(x) for encode, x in zip(encoders, part, strict=True))) / 2).backward()


@pytest.fixture
def double(nano: mh.Clip) -> mh.Clip:
    """`nano` in float64, with adapters everywhere that do something, and a trained temperature."""
    return in_float64(nano)


@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
def test_the_gradient_is_that_of_the_whole_batch(double: mh.Clip, chunk: int):
    diff = step(double, in_chunks(chunk)).diff(step(double, plain))
    assert diff.total < 1e-12 and diff.worst[1] < 1e-10
    assert diff.modules["logit_scale"] < 1e-12


def test_the_losses_of_parts_added_up_have_another_gradient(double: mh.Clip):
    diff = step(double, losses_of_parts).diff(step(double, plain))
    assert diff.total > 0.1


@pytest.mark.parametrize("model", ["ViT-B-32"])
def test_it_holds_for_another_architecture(model: str):
    clip = fresh(model)
    mh.inject_lora(clip.model, rank=2, targets="all")
    diff = step(clip, in_chunks(3)).diff(step(clip, plain))
    assert diff.total < 1e-4


def with_dropout(rows: int) -> tuple[nn.Module, torch.Tensor, Callable[..., torch.Tensor]]:
    """A tower that leaves out half, what goes into it, and a loss of what comes out."""
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Linear(6, 20), nn.Dropout(0.5), nn.Linear(20, 4)).double()
    x, y = torch.randn(rows, 6).double(), torch.randn(rows, 4).double()

    def loss_of(a: torch.Tensor) -> torch.Tensor:
        return mh.contrastive_loss(a, y, 10.0)

    return tower, x, loss_of


def test_dropout_leaves_out_the_same_in_both_passes_and_the_generator_is_where_it_was():
    """A chunk that is the whole batch draws what the plain step draws."""
    tower, x, loss_of = with_dropout(rows=8)

    found = []
    for backward in (plain, in_chunks(8)):
        tower.zero_grad()
        torch.manual_seed(7)
        loss = backward((tower,), (x,), loss_of)
        found.append(([p.grad.clone() for p in tower.parameters()], loss, torch.rand(1)))
    (ours, loss, drawn), (theirs, its_loss, its_drawn) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    assert loss == its_loss and drawn == its_drawn


def test_several_chunks_have_the_gradient_of_what_they_drew():
    """Against a whole batch whose dropout is drawn part by part, as the chunks draw it."""
    tower, x, loss_of = with_dropout(rows=9)
    torch.manual_seed(7)
    cached_backward((tower,), (x,), loss_of, 4)
    ours = [p.grad.clone() for p in tower.parameters()]
    tower.zero_grad()
    torch.manual_seed(7)
    loss_of(torch.cat([tower(part) for part in x.split(4)])).backward()
    torch.testing.assert_close(ours, [p.grad for p in tower.parameters()], rtol=1e-12, atol=0)


def test_a_scaled_loss_gives_scaled_gradients_and_returns_the_loss_itself(double: mh.Clip):
    def scaled(encoders, inputs, loss_of):
        loss = cached_backward(encoders, inputs, loss_of, 3, scale=lambda loss: 16 * loss)
        assert loss == pytest.approx(plain_loss, rel=1e-12)

    features = [f(x) for f, x in zip(_towers(double), small_batch(double), strict=True)]
    plain_loss = mh.contrastive_loss(*features, double.model.logit_scale.exp()).item()
    ours, theirs = step(double, scaled).kept_gradients, step(double, plain).kept_gradients
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], 16 * gradient, rtol=1e-8, atol=1e-12)


def _towers(clip: mh.Clip):
    return clip.model.encode_image, clip.model.encode_text


def test_a_frozen_tower_is_not_run_again(nano: mh.Clip):
    mh.inject_lora(nano.model, rank=2, targets="image")
    calls = []
    nano.model.text.register_forward_hook(lambda *_: calls.append(1))
    step(nano, in_chunks(2))
    assert len(calls) == 4 + 1  # once each without a graph, and one that shows there is none


def test_a_chunk_below_one_is_refused(nano: mh.Clip):
    with pytest.raises(ValueError, match="chunk is 0"):
        cached_backward((nano.model.encode_image,), (torch.rand(2, 3, 64, 64),), sum, 0)
