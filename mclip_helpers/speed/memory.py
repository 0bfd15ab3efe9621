"""How large may the batch be? Measured with a few pairs, before the memory is full.

What a step needs beside the weights grows with the number of pairs that are in the towers at once:
the batch, or the chunk of a batch (`cached_backward`). Most of it are the tensors that autograd
keeps for the backward pass, which the recorder of notebook 04 counts; what the frozen layers hold
on the way comes on top, and is the larger part where adapters sit late.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..checks import whole_number
from ..loss import contrastive_loss
from ..model import Clip, in_train, require_clip
from .encode import plain_encoders

STATE = 3  # numbers for each trained one: its gradient, and AdamW's two averages
SCORES = 4  # N × N matrices of fp32 that the loss holds at a time


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step needs beside the weights.

    `state` whatever the batch is: gradients and the optimizer's averages. `whole` for each pair of
    a step that takes all of them at once. In chunks, one tower is done before the other begins:
    `towers` has what each needs for each pair that is in it, and `given` is for each pair of the
    batch: its image, its tokens, its features and their gradient.
    """

    state: int
    whole: int
    towers: Mapping[str, int]
    given: int

    def bytes(self, batch: int, chunk: int | None = None) -> int:
        """What a step with so many pairs needs, `chunk` of them in a tower at a time."""
        inside = batch * self.whole
        if chunk is not None:
            inside = min(chunk, batch) * max(self.towers.values())
        return self.state + inside + batch * self.given + SCORES * 4 * batch**2

    def largest_batch(self, available: float) -> int:
        """The most pairs whose step fits into so many bytes, all at once; 0 if none.

        The positive root of bytes(batch) = available.
        """
        a, b, c = SCORES * 4, self.whole + self.given, self.state - available
        return max(0, int((-b + math.sqrt(max(0, b**2 - 4 * a * c))) / (2 * a)))

    def largest_chunk(self, batch: int, available: float) -> int:
        """The most pairs that may be in a tower at once for a batch of this size; 0 if none."""
        left = available - self.bytes(batch, 0)
        return max(0, min(batch, int(left / max(1, *self.towers.values()))))


def step_memory(clip: Clip, images: torch.Tensor, tokens: torch.Tensor) -> StepMemory:
    """Measure a step with the 2 or more pairs of `images` and `tokens`, as a loader gives them.

    Call it after `inject_lora`; 8 pairs are enough. Neither weights nor gradients change. What a
    convolution takes as working memory, and what an allocator can't use for its fragments, is not
    seen: benchmarks/large_batch.py compares with what the process holds.
    """
    require_clip(clip)
    pairs = whole_number("the number of pairs", len(images), least=2)
    images, tokens = images.to(clip.device), tokens.to(clip.device)
    encoders = plain_encoders(clip)
    gradients = {parameter: parameter.grad for parameter in clip.model.parameters()}

    def step() -> list[torch.Tensor]:
        features = [encoders.image(images), encoders.text(tokens)]
        contrastive_loss(features[0], features[1], clip.model.logit_scale.exp()).backward()
        return features

    def through(encode: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> None:
        features = encode(batch)
        if features.requires_grad:
            features.backward(torch.ones_like(features))

    def peak(block: Callable[..., Any], *arguments: Any) -> tuple[int, Any]:
        """The bytes for each pair, and what the block returned."""
        for parameter in gradients:
            parameter.grad = None
        with LiveBytes(clip.model) as live:
            result = block(*arguments)
        return (live.peak - trained) // pairs, result

    trained = sum(p.numel() * p.element_size() for p in gradients if p.requires_grad)
    try:
        with in_train(clip.model):
            whole, features = peak(step)
            image, _ = peak(through, encoders.image, images)
            text, _ = peak(through, encoders.text, tokens)
    finally:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
    given = images.nbytes + tokens.nbytes + 2 * sum(f.nbytes for f in features)
    return StepMemory(STATE * trained, whole, {"image": image, "text": text}, given // pairs)


class LiveBytes(TorchDispatchMode):
    """In a block, the bytes of the tensors that its operations make, while they are alive.

    `peak` is the most at a time. Tensors that share their memory count once, and those of the
    model's parameters and buffers not at all.
    """

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        weights = [*model.parameters(), *model.buffers()]
        self.weights = {tensor.untyped_storage()._cdata for tensor in weights}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(
        self, operation: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        made = {t.untyped_storage() for t in tree_leaves(result) if isinstance(t, torch.Tensor)}
        for storage in made:
            if storage._cdata not in self.weights:
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result
