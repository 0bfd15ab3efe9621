"""The gradient of a large batch in the memory of a small one.

In a contrastive loss every pair is compared with every other, so a batch can't be cut into parts
whose losses are added up. But its gradient can: the loss sees nothing of a picture but its
features. So it is computed from the features of all, and it says for each feature in which
direction it should move; each part of the batch is then run again, and carries that on into the
weights.

Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
(GradCache); for CLIP, Pham et al. 2021, "Combined Scaling for Zero-shot Transfer Learning".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from ..checks import whole_number
from .encode import Encode


def cached_backward(
    encoders: Sequence[Encode],
    inputs: Sequence[torch.Tensor],
    loss_of: Callable[..., torch.Tensor],
    chunk: int,
    scale: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Fill `.grad` with the gradient of `loss_of(*features)`; return the loss, without a graph.

    Encoder i turns inputs i (N, …) into features (N, D), `chunk` rows at a time. `scale` is that of
    a gradient scaler. What the whole batch needs at once is its inputs and features, and the loss's
    N × N matrix; of the towers, no more than a chunk. Each chunk is run forward twice, the second
    time with the random numbers of the first, so that dropout leaves out the same again.

    ValueError if `chunk` is below 1. A batch norm that is not frozen makes this another step: it
    would see one chunk after the other, and each twice.
    """
    chunk = whole_number("chunk", chunk, least=1)
    towers = list(zip(encoders, inputs, strict=True))

    # 1. The features of all, without a graph.
    features, drawn_from = [], []
    with torch.no_grad():
        for encode, batch in towers:
            states, parts = [], []
            for part in batch.split(chunk):
                states.append(_random_state())
                parts.append(encode(part))
            drawn_from.append(states)
            features.append(torch.cat(parts).requires_grad_())

    # 2. The loss of the whole batch: the gradient goes back to the features, and stops there.
    loss = loss_of(*features)
    (loss if scale is None else scale(loss)).backward()

    # 3. Each chunk again, with a graph: it carries the gradient of its features into the weights.
    for (encode, batch), of_all, states in zip(towers, features, drawn_from, strict=True):
        assert of_all.grad is not None
        chunks = zip(batch.split(chunk), of_all.grad.split(chunk), states, strict=True)
        for part, gradient, state in chunks:
            with _drawing_from(state):
                again = encode(part)
            if not again.requires_grad:
                break  # a frozen tower: the gradient of its features leads nowhere
            again.backward(gradient)
    return loss.detach()


def _random_state() -> list[torch.Tensor]:
    """The states of PyTorch's generators, of the CPU and of each GPU."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


@contextmanager
def _drawing_from(state: list[torch.Tensor]) -> Iterator[None]:
    """A block that draws from `state` on; afterwards the generators are as they were before it."""
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices):
        torch.set_rng_state(state[0])
        torch.cuda.set_rng_state_all(state[1:])
        yield
