"""Multi-head attention as four plain Linear layers, and back.

`nn.MultiheadAttention` keeps the query, key and value projections in one raw parameter,
`in_proj_weight` (3E, E), and uses `out_proj.weight` without ever calling `out_proj`. Neither can
carry a LoRA adapter, which wraps a *module* and acts when that module is *called*. Here the same
numbers move into `q_proj`, `k_proj`, `v_proj` and `out_proj`, each of which is called; afterwards
they move back, so that the state dict is open_clip's again.

open_clip has an `Attention` of its own with the same four tensors, and its next major version uses
it everywhere. So attention is recognised by its parameters (`is_fused_attention`), not by its
class. For each of the three signatures that such a layer's `forward` has, there is a class here
that is called in the same way.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import nn

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
DROPOUTS = ("attn_drop", "out_drop")  # after the softmax, and after `out_proj`
TENSORS = {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}


class FusedAttention(nn.Module):
    """What `is_fused_attention` looks for. A type for signatures: no module is of this class."""

    in_proj_weight: nn.Parameter
    in_proj_bias: nn.Parameter | None
    out_proj: nn.Linear
    num_heads: int


class SplitAttention(nn.Module):
    """softmax(Q Kᵀ / √d) V, where a Linear each makes Q, K, V and the output.

    Takes the arguments of `nn.MultiheadAttention.forward` and returns `(output, None)`. It computes
    no attention weights: ValueError for `need_weights=True`. Its results differ from the original's
    by rounding alone. The subclasses are the same layer with other signatures of `forward`.
    """

    def __init__(self, original: FusedAttention):
        """`original`: a module for which `is_fused_attention` is true. Its parameters move out."""
        super().__init__()
        self.num_heads = original.num_heads
        self.batch_first = getattr(original, "batch_first", True)
        # Dropout is a number in PyTorch. In open_clip it is a layer, and a second one follows
        # `out_proj`.
        number = getattr(original, "dropout", 0.0)
        self.dropout: float = getattr(getattr(original, "attn_drop", None), "p", number)
        self.output_dropout: float = getattr(getattr(original, "out_drop", None), "p", 0.0)
        weights, bias = original.in_proj_weight.chunk(3), original.in_proj_bias
        biases = (None, None, None) if bias is None else bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        self.out_proj = _linear(original.out_proj.weight, original.out_proj.bias)
        self.requires_grad_(original.in_proj_weight.requires_grad)
        self.train(original.training)
        # The original without its numbers, which `fuse` fills again. In a tuple, so that its
        # parameters are not registered as this module's.
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
        """Attention of query (N, L, E) to key and value (N, S, E); returns (N, L, E).

        A mask of floats is added to the scores; where a boolean one is True, the key is ignored.
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
    def fuse(self) -> FusedAttention:
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
    """Called like the `Attention` of open_clip 3: only self-attention.

    Where a boolean mask is True, the key is ignored.
    """

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, attn_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x (N, L, E) → (N, L, E)."""
        return self.attend(x, x, x, attn_mask)


class SplitCrossAttention(SplitAttention):
    """Called like the `Attention` of open_clip 4: self-attention or cross-attention.

    Where a boolean mask is True, the key is used. `scaled_dot_product_attention` has the same
    convention; open_clip 3 and `nn.MultiheadAttention` have the opposite one.
    """

    def forward(  # type: ignore[override]
        self,
        x: torch.Tensor,
        k_x: torch.Tensor | None = None,
        v_x: torch.Tensor | None = None,
        attn_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x (N, L, E), k_x and v_x (N, S, E), each of these x itself if not given → (N, L, E)."""
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = ~attn_mask
        return self.attend(x, x if k_x is None else k_x, x if v_x is None else v_x, attn_mask)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A Linear with a copy of `weight` (out, in) and `bias` (out)."""
    out_features, in_features = weight.shape
    like = {"device": weight.device, "dtype": weight.dtype}
    layer = nn.Linear(in_features, out_features, bias=bias is not None, **like)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def _additive_mask(
    attn_mask: torch.Tensor | None,
    key_padding_mask: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
) -> torch.Tensor | None:
    """Both masks as one, which is added to the scores; None without a mask.

    `attn_mask`: (L, S), or (N · heads, L, S); `key_padding_mask`: (N, S).
    """

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


def _parameters(kind: type[nn.Module]) -> tuple[str, ...]:
    """The names of the parameters of `kind.forward`, `self` included."""
    return tuple(inspect.signature(kind.forward).parameters)


# The class that replaces a fused attention, by the signature of the attention's `forward`.
BY_SIGNATURE = {
    _parameters(kind): kind for kind in (SplitAttention, SplitSelfAttention, SplitCrossAttention)
}


def is_fused_attention(module: nn.Module) -> TypeGuard[FusedAttention]:
    """Whether `module` is attention that four Linear layers can express.

    It has `in_proj_weight`, a Linear `out_proj` and `num_heads`, of whatever class it is, and
    nothing that the four layers would lose: a norm of the queries, a scale per head, a `bias_k`.
    """
    weight, heads = getattr(module, "in_proj_weight", None), getattr(module, "num_heads", None)
    if not (
        isinstance(weight, nn.Parameter)
        and isinstance(getattr(module, "out_proj", None), nn.Linear)
        and isinstance(heads, int)
    ):
        return False
    tensors = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    scale = (weight.shape[0] // 3 // heads) ** -0.5
    return (
        tensors <= TENSORS
        and all(_is_expressible(name, layer) for name, layer in module.named_children())
        and math.isclose(getattr(module, "scale", scale), scale)
        and not getattr(module, "add_zero_attn", False)
    )


def _is_expressible(name: str, layer: nn.Module) -> bool:
    """Whether `SplitAttention` does what this child of a fused attention does."""
    if name in DROPOUTS:
        return isinstance(layer, nn.Dropout)
    return name == "out_proj" or isinstance(layer, nn.Identity)


def split_attention(model: nn.Module) -> list[str]:
    """Rewrite every fused attention of `model` as Linear layers, in place. Returns their names.

    Attention that four Linear layers can't express stays as it is. Raises ValueError, before
    anything is changed, for one that they can express but whose `forward` has an unknown signature:
    left as it is, it would get no adapters, and nobody would notice.
    """
    fused = {name: module for name, module in model.named_modules() if is_fused_attention(module)}
    for name, module in fused.items():
        if _parameters(type(module)) not in BY_SIGNATURE:
            known = " or ".join(f"({', '.join(names[1:])})" for names in BY_SIGNATURE)
            raise ValueError(
                f"the attention {name!r} is a {type(module).__name__} whose forward takes "
                f"({', '.join(_parameters(type(module))[1:])}), not {known}: to rewrite it, "
                f"attention.py needs one more class with this signature"
            )
    for name, module in fused.items():
        model.set_submodule(name, BY_SIGNATURE[_parameters(type(module))](module))
    return list(fused)


def fuse_attention(model: nn.Module, keep: Iterable[str] = ()) -> list[str]:
    """Undo `split_attention`, in place. Returns the names of the attentions that it put back.

    An attention stays split if one of its layers is in `keep`.
    """
    kept = {name.rpartition(".")[0] for name in keep}
    split = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, SplitAttention) and name not in kept
    }
    for name, module in split.items():
        model.set_submodule(name, module.fuse())
    return list(split)
