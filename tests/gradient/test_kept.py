"""The saved tensors: how many bytes, whose, and the check that nobody has changed them."""

from __future__ import annotations

import re
from contextlib import nullcontext

import pytest
import torch
from conftest import fresh
from recorded_steps import clip_loss
from recording import leaf
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import mclip_helpers as mh


class Count:
    """The test's own count of what autograd keeps, by memory, with the model's own apart."""

    def __init__(self, model: nn.Module):
        self.own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
        self.kept: list[torch.Tensor] = []

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        self.kept.append(tensor.detach())
        return tensor

    def bytes(self) -> tuple[int, int]:
        memory = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self.kept}
        ours = sum(size for at, size in memory.items() if at not in self.own)
        return ours, sum(memory.values()) - ours


@pytest.mark.parametrize(("adapters", "training"), [(True, False), (False, True)])
def test_the_saved_bytes_of_a_model_are_those_of_an_independent_count(adapters, training):
    clip = fresh("nano")
    model = mh.inject_lora(clip.model, rank=2) if adapters else clip.model
    if training:
        model.train()
    mine = Count(model)
    with saved_tensors_hooks(mine.pack, lambda tensor: tensor):
        loss = clip_loss(clip)
    with mh.trace(model) as tape:
        clip_loss(clip).backward()
    del loss
    saved = tape.graph.saved
    assert (saved.total, saved.of_the_model) == mine.bytes()
    assert saved.total > 100_000
    for level in ("towers", "blocks", "modules"):
        assert sum(saved.by(level).values()) == saved.total


def test_two_views_of_one_memory_count_once_and_a_parameter_apart():
    model = nn.Linear(10, 10, bias=False)
    x = torch.ones(10, 10)
    with mh.trace(model) as tape:
        h = model(x)  # keeps x
        (h[:5] * h[5:]).sum().backward()  # keeps two halves of h, and not the weight
    assert tape.graph.saved.modules == {"": 2 * 400}
    assert tape.graph.saved.of_the_model == 0
    with mh.trace(model) as tape:
        model(model(x)).sum().backward()
    assert tape.graph.saved.of_the_model == 400


def test_the_bytes_belong_to_the_module_that_kept_them_first():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Tanh())
    with mh.trace(model) as tape:
        (model(torch.ones(2, 4)).square()).sum().backward()
    # The first layer keeps its input, the others their results; the last one's is squared, too.
    assert tape.graph.saved.modules == {"0": 32, "1": 32, "2": 32}


def test_a_branch_that_was_dropped_before_the_backward_pass_is_not_counted():
    x = leaf(100, dtype=torch.float32)
    with mh.trace({"x": x}) as tape:
        dropped = (x * 1).exp().exp()
        kept = x.exp()
        del dropped
        kept.sum().backward()
    assert tape.graph.saved.total == 400
    with mh.trace({"x": x}) as tape:
        not_dropped = (x * 1).exp().exp()
        x.exp().sum().backward()
    assert tape.graph.saved.total == 3 * 400
    del not_dropped


def test_a_checkpoint_keeps_its_input_and_not_what_it_computes():
    x = leaf(100, dtype=torch.float32)
    with mh.trace({"x": x}) as tape:
        h = x * 1
        y = checkpoint(lambda h: h.exp().exp().exp().exp(), h, use_reentrant=False)
        y.sum().backward()
    assert tape.graph.saved.total == 400
    with mh.trace({"x": x}) as tape:
        (x * 1).exp().exp().exp().exp().sum().backward()
    assert tape.graph.saved.total == 4 * 400


def test_the_blocks_own_hooks_for_saved_tensors_are_used():
    packed, unpacked = [], []

    def pack(tensor):
        packed.append(tensor.shape)
        return tensor.detach() * 2

    def unpack(tensor):
        unpacked.append(tensor.shape)
        return tensor / 2

    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        with saved_tensors_hooks(pack, unpack):
            y = x.sin()
        (y * y).sum().backward()
    assert packed == unpacked == [(3,)]
    torch.testing.assert_close(x.grad, (2 * x.sin() * x.cos()).detach())
    assert tape.graph.saved.total == 24, "y alone: what the block keeps itself is its own affair"


@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_sparse_tensor_that_autograd_saves_is_refused():
    w = leaf(3, 3)
    matrix = (torch.eye(3, dtype=torch.float64) * 2).to_sparse()
    with mh.trace({"w": w}), pytest.raises(NotImplementedError, match="saves a sparse tensor"):
        torch.sparse.mm(matrix, w)


# --------------------------------------------------------------------------------- changed in place


CHANGED = "one of the variables needed for gradient computation has been modified by an inplace"


def refused_with_and_without(act) -> None:
    for recording in (nullcontext(), mh.trace({"x": (x := leaf(3))})):
        with pytest.raises(RuntimeError, match=CHANGED), recording:
            act(x)


@pytest.mark.parametrize("operation", ["exp", "sigmoid", "tanh", "sqrt", "softmax", "reciprocal"])
def test_a_saved_result_that_is_changed_in_place_is_still_refused(operation):
    def act(x):
        h = x.detach().abs().requires_grad_()
        y = h.softmax(0) if operation == "softmax" else getattr(h, operation)()
        z = y.sum()
        with torch.no_grad():
            y.add_(1)
        z.backward()

    refused_with_and_without(act)


@pytest.mark.parametrize("which", ["an input", "a leaf", "a view of an input", "by an optimizer"])
def test_a_saved_input_that_is_changed_in_place_is_still_refused(which):
    def act(x):
        h = x * 1
        z = (x if which in ("a leaf", "by an optimizer") else h).sin().sum()
        with torch.no_grad():
            if which == "by an optimizer":
                x.grad = torch.ones_like(x)
                torch.optim.SGD([x], lr=0.1).step()
            else:
                {"an input": h, "a leaf": x, "a view of an input": h[:1]}[which].mul_(2)
        z.backward()

    refused_with_and_without(act)


def test_after_the_block_a_tensor_changed_in_place_is_still_refused():
    x = leaf(3)
    with mh.trace({"x": x}):
        y = x.exp()
        y.sum().backward(retain_graph=True)
    y.detach().add_(1)
    with pytest.raises(RuntimeError, match=CHANGED):
        y.sum().backward()


def test_the_error_says_which_module_needs_the_tensor():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
    message = re.escape("a tensor of shape (1, 2) that 1 needs")
    with pytest.raises(RuntimeError, match=message), mh.trace(model):
        y = model(torch.ones(1, 2))
        y.data.add_(0)  # this, PyTorch doesn't see
        y.detach().add_(1)
        y.sum().backward()


def test_what_is_changed_in_place_and_not_needed_is_no_error():
    x = leaf(3)
    with mh.trace({"x": x}) as tape:
        y = (x * 3).add_(1)
        y.mul_(2).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 6.0, dtype=torch.float64))
    assert [n.operation for n in tape.graph.nodes if not n.is_leaf] == [
        "MulBackward0",
        "AddBackward0",
        "MulBackward0",
        "SumBackward0",
    ]
