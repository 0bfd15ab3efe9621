"""A frozen text tower says the same of a caption in every epoch: it is asked once."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn

from ..model import Clip
from ..names import tower_of
from .encode import plain_encoders

BATCH = 128


def is_constant(model: nn.Module, tower: str) -> bool:
    """Whether a tower, "image" or "text", gives the same features whenever it is asked.

    It does if none of its parameters is trained, and nothing in it draws random numbers or moves
    when it is called in training mode: dropout, stochastic depth, batch norm that is not frozen.
    """
    trained = any(p.requires_grad and tower_of(n) == tower for n, p in model.named_parameters())
    modules = [m for name, m in model.named_modules() if name and tower_of(name) == tower]
    return not trained and not any(map(moves, modules))


def moves(module: nn.Module) -> bool:
    """Whether a call in training mode draws random numbers, or changes the module."""
    if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
        # A frozen one stays in eval mode, whatever it is told.
        was = module.training
        moves = module.train().training
        module.train(was)
        return moves
    chances = (getattr(module, name, 0.0) for name in ("p", "drop_prob", "prob", "dropout"))
    return any(isinstance(chance, float) and chance > 0 for chance in chances)


class CaptionTable:
    """The features of captions, computed once; called with their tokens, as an encoder is.

    `clip`'s text tower must be constant (`is_constant`), else ValueError. The features are those
    that the tower gives in a training step, but for the rounding of another batch. `seconds` is
    what it took: what is saved in each epoch.
    """

    def __init__(self, clip: Clip, captions: Sequence[str]):
        if not is_constant(clip.model, "text"):
            raise ValueError(
                "the text tower is trained, or draws random numbers in training: what it says of "
                "a caption changes from step to step, so it can't be computed once"
            )
        tokens = torch.cat(
            [clip.tokenizer(list(captions[i : i + BATCH])) for i in range(0, len(captions), BATCH)]
        ).unique(dim=0)
        encode, began = plain_encoders(clip).text, time.perf_counter()
        with torch.no_grad():
            self.features = torch.cat([encode(part) for part in tokens.split(BATCH)])
        self.seconds = time.perf_counter() - began
        self.rows = {_key(row): i for i, row in enumerate(tokens)}

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """The features (N, D) of tokens (N, context). KeyError for a caption that is not there."""
        return self.features[[self.rows[_key(row)] for row in tokens]]


def _key(row: torch.Tensor) -> bytes:
    return row.cpu().numpy().tobytes()
