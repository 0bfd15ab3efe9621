"""Multi-head attention as four plain Linear layers, and back.

`nn.MultiheadAttention` keeps the query, key and value projections in one raw parameter,
`in_proj_weight` (3E, E), and uses `out_proj.weight` without ever calling `out_proj`. Neither can
carry a LoRA adapter, which wraps a *module* and acts when that module is *called*. Here the same
numbers move into `q_proj`, `k_proj`, `v_proj` and `out_proj`, each called in the open; afterwards
they move back, so that the state dict is open_clip's again.

open_clip has an `Attention` of its own with the same four tensors, and its next major version uses
it everywhere. Three ways to call such a layer are known here, one class for each: the arguments of
its `forward` tell them apart.
"""

from __future__ import annotations

import inspect
import math

import torch
import torch.nn.functional as F
from torch import nn

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
DROPOUTS = {"attn_drop": nn.Dropout, "out_drop": nn.Dropout}  # after the softmax, at the end
FUSED = {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}


class SplitAttention(nn.Module):
    """softmax(Q Kᵀ / √d) V, with Q, K, V and the output each through a Linear of its own.

    Takes the arguments of `nn.MultiheadAttention.forward` and returns `(output, None)`; it
    computes no attention weights, and says so if they are asked for. Its results differ from the
    original's by rounding alone. The classes below it are the same layer, called in other ways.
    """

    def __init__(self, original: nn.Module):
        super().__init__()
        width, inner = original.out_proj.weight.shape
        self.num_heads = original.num_heads
        self.batch_first = getattr(original, "batch_first", True)
        # A number in PyTorch, a layer in open_clip, which has a second one after `out_proj`.
        layers = dict(original.named_children())
        number = getattr(original, "dropout", 0.0)
        self.dropout = layers["attn_drop"].p if "attn_drop" in layers else number
        self.output_dropout = layers["out_drop"].p if "out_drop" in layers else 0.0
        like = {"device": original.in_proj_weight.device, "dtype": original.in_proj_weight.dtype}
        bias = original.in_proj_bias is not None
        for name, weight in zip(PROJECTIONS, original.in_proj_weight.chunk(3), strict=True):
            setattr(self, name, nn.Linear(weight.shape[1], weight.shape[0], bias=bias, **like))
        self.out_proj = nn.Linear(inner, width, bias=original.out_proj.bias is not None, **like)
        with torch.no_grad():
            for i, name in enumerate(PROJECTIONS):
                getattr(self, name).weight.copy_(original.in_proj_weight.chunk(3)[i])
                if bias:
                    getattr(self, name).bias.copy_(original.in_proj_bias.chunk(3)[i])
            self.out_proj.load_state_dict(original.out_proj.state_dict())
        self.requires_grad_(original.in_proj_weight.requires_grad)
        self.train(original.training)
        # The original without its numbers, to be filled again by `fuse`. In a tuple, so that its
        # parameters don't count as this module's.
        self._shell = (original.to("meta"),)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, None]:
        """query (N, L, E) and key, value (N, S, E), or (L, N, E) if not `batch_first`."""
        if need_weights:
            raise ValueError("SplitAttention computes no attention weights: need_weights=False")
        if query.dim() != 3:
            raise ValueError(f"expected a batch (N, L, E), got shape {tuple(query.shape)}")
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        out = self.attend(query, key, value, attn_mask, key_padding_mask, is_causal)
        return (out if self.batch_first else out.transpose(0, 1)), None

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        key_padding_mask: torch.Tensor | None = None,
        is_causal: bool = False,
    ) -> torch.Tensor:
        """What every way of calling it comes down to: (N, L, E) and twice (N, S, E) → (N, L, E).

        A mask of floats is added to the scores; in a boolean one, True means "look away".
        """
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        if is_causal and attn_mask is None and key_padding_mask is not None:
            # scaled_dot_product_attention takes a mask or `is_causal`, not both.
            size = (q.shape[2], k.shape[2])
            attn_mask = torch.ones(size, dtype=torch.bool, device=q.device).triu(1)
        mask = _additive_mask(attn_mask, key_padding_mask, q, k)
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal and mask is None
        )
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        return F.dropout(out, self.output_dropout, self.training)

    @torch.no_grad()
    def fuse(self) -> nn.Module:
        """The original module with the numbers that the four layers hold now."""
        device = self.q_proj.weight.device
        original = self._shell[0].to_empty(device=device).to(self.q_proj.weight.dtype)
        layers = [getattr(self, name) for name in PROJECTIONS]
        original.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        if original.in_proj_bias is not None:
            original.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        original.out_proj.load_state_dict(self.out_proj.state_dict())
        original.requires_grad_(self.q_proj.weight.requires_grad)
        return original.train(self.training)


class SplitSelfAttention(SplitAttention):
    """Called like the `Attention` of open_clip 3: x in, x out; True in a mask means "look away"."""

    def forward(self, x: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
        """x (N, L, E)."""
        return self.attend(x, x, x, attn_mask)


class SplitCrossAttention(SplitAttention):
    """Called like the `Attention` of open_clip 4, where True in a mask means "look here".

    That is how `scaled_dot_product_attention` has it, and the opposite of open_clip 3 and of
    `nn.MultiheadAttention`.
    """

    def forward(
        self,
        x: torch.Tensor,
        k_x: torch.Tensor | None = None,
        v_x: torch.Tensor | None = None,
        attn_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x (N, L, E); k_x and v_x (N, S, E), each x itself if it is not given."""
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = ~attn_mask
        return self.attend(x, x if k_x is None else k_x, x if v_x is None else v_x, attn_mask)


def _additive_mask(
    attn_mask: torch.Tensor | None,
    key_padding_mask: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
) -> torch.Tensor | None:
    """Both masks as one that is added to the scores."""

    def additive(mask: torch.Tensor) -> torch.Tensor:
        if mask.dtype != torch.bool:
            return mask.to(q.dtype)
        return torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, float("-inf"))

    total = None
    if attn_mask is not None:
        total = additive(attn_mask)
        if total.dim() == 3:  # one mask per sample and head
            total = total.view(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    if key_padding_mask is not None:
        padding = additive(key_padding_mask)[:, None, None, :]
        total = padding if total is None else total + padding
    return total


def _arguments(kind: type[nn.Module]) -> tuple[str, ...]:
    return tuple(inspect.signature(kind.forward).parameters)


# Each takes what the class that it stands in for takes.
WAYS_TO_CALL = {
    _arguments(kind): kind for kind in (SplitAttention, SplitSelfAttention, SplitCrossAttention)
}


def _is_fused_attention(module: nn.Module) -> bool:
    """By its shape, not by its class; and only if four Linear layers say all that it does."""
    weight = getattr(module, "in_proj_weight", None)
    if not (
        isinstance(weight, nn.Parameter)
        and isinstance(getattr(module, "out_proj", None), nn.Linear)
        and hasattr(module, "num_heads")
    ):
        return False
    # Anything more (a norm of the queries, a scale per head, a `bias_k`) would be lost.
    tensors = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    scale = (weight.shape[0] // 3 // module.num_heads) ** -0.5
    return (
        tensors <= FUSED
        and all(
            name == "out_proj" or isinstance(layer, DROPOUTS.get(name, nn.Identity))
            for name, layer in module.named_children()
        )
        and math.isclose(getattr(module, "scale", scale), scale)
        and not getattr(module, "add_zero_attn", False)
    )


def split_attention(model: nn.Module) -> list[str]:
    """Rewrite every fused attention of `model`, in place. Returns the names of what it rewrote.

    One that does more than four Linear layers can say is left as it is. Raises ValueError, before
    anything is changed, for one that could be rewritten but is called in a way not known here:
    left alone, it would miss its adapters without a word.
    """
    found = {name: module for name, module in model.named_modules() if _is_fused_attention(module)}
    for name, module in found.items():
        if _arguments(type(module)) not in WAYS_TO_CALL:
            known = " or ".join(f"({', '.join(names[1:])})" for names in WAYS_TO_CALL)
            raise ValueError(
                f"the attention {name!r} is a {type(module).__name__} whose forward takes "
                f"({', '.join(_arguments(type(module))[1:])}), not {known}: to rewrite it, "
                f"attention.py needs one more class that is called in this way"
            )
    for name, module in found.items():
        model.set_submodule(name, WAYS_TO_CALL[_arguments(type(module))](module))
    return list(found)


def fuse_attention(model: nn.Module) -> list[str]:
    """Undo `split_attention`, in place. Returns the names of what it put back."""
    names = [name for name, module in model.named_modules() if isinstance(module, SplitAttention)]
    for name in names:
        model.set_submodule(name, model.get_submodule(name).fuse())
    return names
