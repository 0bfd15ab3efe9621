"""Splitting attention into four layers changes no number, and fusing them undoes it to the bit."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import CASES, fresh, load_once
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mclip_helpers as mh

EXACT = {"rtol": 0, "atol": 1e-10}  # in float64: rounding and nothing else
MASKS = ("none", "bool", "float", "bool per head", "float per head", "causal", "is_causal")


class CalledAttention(nn.Module):
    """One raw `in_proj_weight`, like `nn.MultiheadAttention`; unlike there, `out_proj` is called.

    It has no `batch_first` (it is), and its `dropout` is a layer.
    """

    def __init__(self, width: int, num_heads: int, bias: bool = True):
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) / math.sqrt(width))
        self.register_parameter("in_proj_bias", nn.Parameter(torch.randn(3 * width)))
        if not bias:
            self.in_proj_bias = None
        self.out_proj = nn.Linear(width, width, bias=bias)
        self.dropout = nn.Dropout(0.25)

    def forward(self, query, key, value, attn_mask=None, need_weights=False):
        weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if attn_mask is not None:
            scores = scores + attn_mask
        shares = self.dropout(scores.softmax(-1))
        return self.out_proj((shares @ v).transpose(1, 2).flatten(2)), None


class NormedAttention(CalledAttention):
    """It has learned something that four Linear layers can't hold."""

    def __init__(self, width: int, num_heads: int):
        super().__init__(width, num_heads)
        self.ln_q = nn.LayerNorm(width // num_heads)


def original(heads: int = 2, head_width: int = 3, **options) -> nn.MultiheadAttention:
    attention = nn.MultiheadAttention(heads * head_width, heads, dtype=torch.float64, **options)
    with torch.no_grad():
        for p in attention.parameters():  # PyTorch starts biases at zero: mistakes would not show
            p.normal_(std=0.5)
    return attention.eval()


def split(attention: nn.Module) -> mh.SplitAttention:
    return mh.SplitAttention(copy.deepcopy(attention))


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, **EXACT)


def mask_arguments(kind: str, batch: int, heads: int, queries: int, keys: int) -> dict:
    """A mask of this kind under which every query still sees a key (the first)."""
    if kind == "none":
        return {}
    causal = torch.ones(queries, keys, dtype=torch.bool).triu(1)
    if kind in ("causal", "is_causal"):
        return {"attn_mask": causal, "is_causal": kind == "is_causal"}
    shape = (batch * heads, queries, keys) if kind.endswith("per head") else (queries, keys)
    if kind.startswith("float"):
        return {"attn_mask": torch.randn(shape, dtype=torch.float64)}
    mask = torch.rand(shape) < 0.5
    mask[..., 0] = False
    return {"attn_mask": mask}


# ---- a single attention -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    heads=st.integers(1, 3),
    head_width=st.integers(1, 4),
    batch=st.integers(1, 3),
    queries=st.integers(1, 5),
    keys=st.integers(1, 5) | st.none(),
    batch_first=st.booleans(),
    bias=st.booleans(),
    mask=st.sampled_from(MASKS),
    padding=st.sampled_from(("none", "bool", "float")),
    gradients=st.booleans(),
)
def test_split_attention_equals_multihead_attention_in_value_and_gradient(
    seed, heads, head_width, batch, queries, keys, batch_first, bias, mask, padding, gradients
):
    torch.manual_seed(seed)
    one = original(heads, head_width, bias=bias, batch_first=batch_first)
    two = split(one)
    width = heads * head_width
    crossing = keys is not None
    keys = keys if crossing else queries

    arguments = mask_arguments(mask, batch, heads, queries, keys)
    if padding != "none":
        arguments["key_padding_mask"] = torch.rand(batch, keys) < 0.5
        arguments["key_padding_mask"][:, 0] = False
        if padding == "float":
            arguments["key_padding_mask"] = torch.randn(batch, keys, dtype=torch.float64)

    def sequence(length: int) -> torch.Tensor:
        shape = (batch, length, width) if batch_first else (length, batch, width)
        return torch.randn(shape, dtype=torch.float64, requires_grad=gradients)

    query = sequence(queries)
    key, value = (sequence(keys), sequence(keys)) if crossing else (query, query)

    with torch.set_grad_enabled(gradients):
        expected, _ = one(query, key, value, need_weights=False, **arguments)
        found, weights = two(query, key, value, **arguments)
    close(found, expected)
    assert weights is None
    if not gradients:
        return

    inputs = {"query": query, "key": key, "value": value} if crossing else {"query": query}
    direction = torch.randn_like(expected)

    def gradients_of(output: torch.Tensor, attention: nn.Module) -> dict[str, torch.Tensor]:
        of = inputs | dict(attention.named_parameters())
        return dict(zip(of, torch.autograd.grad(output, of.values(), direction), strict=True))

    wanted, got = gradients_of(expected, one), gradients_of(found, two)
    for kind in ("weight", "bias") if bias else ("weight",):
        got[f"in_proj_{kind}"] = torch.cat([got.pop(f"{name}_proj.{kind}") for name in "qkv"])
    assert got.keys() == wanted.keys()
    for name in wanted:
        close(got[name], wanted[name])


def test_padding_and_is_causal_act_together():
    """`nn.MultiheadAttention` refuses `is_causal` without the mask; here neither gets lost."""
    torch.manual_seed(0)
    one = original(batch_first=True)
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    padding = torch.tensor([[False, True, False, False], [False, False, False, True]])
    causal = torch.ones(4, 4, dtype=torch.bool).triu(1)

    expected, _ = one(x, x, x, key_padding_mask=padding, attn_mask=causal, need_weights=False)
    found, _ = split(one)(x, x, x, key_padding_mask=padding, is_causal=True)
    close(found, expected)


def test_is_causal_needs_no_mask():
    torch.manual_seed(0)
    one = original(batch_first=True)
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    causal = torch.ones(4, 4, dtype=torch.bool).triu(1)
    found, _ = split(one)(x, x, x, is_causal=True)
    close(found, one(x, x, x, attn_mask=causal, need_weights=False)[0])


def test_dropout_acts_in_training_alone_and_draws_the_same_numbers():
    torch.manual_seed(0)
    one = original(dropout=0.5, batch_first=True)
    two = split(one)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    close(two(x, x, x)[0], one(x, x, x, need_weights=False)[0])
    close(two(x, x, x)[0], two(x, x, x)[0])

    still = two(x, x, x)[0]
    one.train(), two.train()
    torch.manual_seed(7)
    expected, _ = one(x, x, x, need_weights=False)
    torch.manual_seed(7)
    found, _ = two(x, x, x)
    close(found, expected)
    assert not torch.allclose(found, still)


def test_attention_weights_are_refused_in_words():
    x = torch.zeros(1, 2, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"computes no attention weights.*need_weights=False"):
        split(original(batch_first=True))(x, x, x, need_weights=True)


def test_an_input_without_a_batch_is_refused_with_its_shape():
    x = torch.zeros(2, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"\(N, L, E\), got shape \(2, 6\)"):
        split(original(batch_first=True))(x, x, x)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_fuse_gives_back_the_same_bits_in_every_precision(bias: bool, dtype: torch.dtype):
    one = nn.MultiheadAttention(8, 2, bias=bias, dtype=dtype, batch_first=True)
    before = copy.deepcopy(one.state_dict())
    two = mh.SplitAttention(one)
    assert {p.dtype for p in two.parameters()} == {dtype}
    same_bits(two.fuse().state_dict(), before)


def test_fuse_follows_what_happened_to_the_four_layers():
    """New numbers, another precision, frozen, in training: none of it is lost on the way back."""
    one = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    two = mh.SplitAttention(one).double().requires_grad_(False).train()
    with torch.no_grad():
        two.v_proj.weight.fill_(3)
        two.k_proj.bias.fill_(2)
        two.out_proj.weight.fill_(1)
    fused = two.fuse()
    assert type(fused) is nn.MultiheadAttention
    assert fused.in_proj_weight.dtype == torch.float64
    assert fused.training and not any(p.requires_grad for p in fused.parameters())
    assert (fused.in_proj_weight[16:] == 3).all() and not (fused.in_proj_weight[:16] == 3).any()
    assert (fused.in_proj_bias[8:16] == 2).all() and not (fused.in_proj_bias[:8] == 2).any()
    assert (fused.out_proj.weight == 1).all()


def test_the_original_keeps_no_second_copy_of_the_weights():
    two = mh.SplitAttention(nn.MultiheadAttention(8, 2))
    assert sum(p.numel() for p in two.parameters()) == 4 * (8 * 8 + 8)
    assert all(p.device.type == "meta" for p in two._shell[0].parameters())


def test_deepcopy_gives_an_attention_of_its_own():
    torch.manual_seed(0)
    two = split(original(batch_first=True))
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    twin = copy.deepcopy(two)
    assert torch.equal(twin(x, x, x)[0], two(x, x, x)[0])
    with torch.no_grad():
        twin.q_proj.weight.zero_()
    assert not torch.equal(twin.fuse().in_proj_weight, two.fuse().in_proj_weight)


# ---- found by its shape -------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_an_attention_of_another_class_is_found_by_its_shape(bias: bool):
    torch.manual_seed(0)
    model = (
        nn.ModuleDict({"attn": CalledAttention(6, 2, bias), "mlp": nn.Linear(6, 6)}).double().eval()
    )
    x, context = torch.randn(2, 4, 6).double(), torch.randn(2, 3, 6).double()
    mask = torch.randn(4, 3, dtype=torch.float64)
    before = copy.deepcopy(model.state_dict())
    expected, _ = model["attn"](x, context, context, attn_mask=mask)

    assert mh.split_attention(model) == ["attn"]
    close(model["attn"](x, context, context, attn_mask=mask)[0], expected)
    assert model["attn"].dropout == 0.25
    assert mh.fuse_attention(model) == ["attn"]
    assert type(model["attn"]) is CalledAttention
    same_bits(model.state_dict(), before)
    assert torch.equal(model["attn"](x, context, context, attn_mask=mask)[0], expected)


@pytest.mark.parametrize(
    "attention",
    [
        pytest.param(lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=6), id="other key width"),
        pytest.param(lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True), id="learned key"),
        pytest.param(lambda: nn.MultiheadAttention(8, 2, add_zero_attn=True), id="zero key"),
        pytest.param(lambda: NormedAttention(8, 2), id="norm of the queries"),
    ],
)
def test_an_attention_that_four_layers_cannot_express_is_left_alone(attention):
    model = nn.Sequential(attention())
    before = copy.deepcopy(model.state_dict())
    assert mh.split_attention(model) == []
    assert not isinstance(model[0], mh.SplitAttention)
    same_bits(model.state_dict(), before)


# ---- whole models -------------------------------------------------------------------------------

SPLIT = {"nano": 3, "MobileCLIP2-S0": 12, "MobileCLIP-B": 12, "ViT-B-32": 24}


def same_bits(state: dict[str, torch.Tensor], before: dict[str, torch.Tensor]) -> None:
    """Same names in the same order, same shapes, types and bits."""
    assert list(state) == list(before)
    for name, value in state.items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", CASES)
def test_splitting_changes_no_output_of_a_whole_model(name: str):
    clip = fresh(name)
    model = clip.model.double()
    size = model.visual.image_size
    torch.manual_seed(0)
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    tokens = clip.tokenizer(["a red apple", "a dog on a very long lead, seen from behind"])

    with torch.no_grad():
        text, image = model.encode_text(tokens), model.encode_image(images)
        names = mh.split_attention(model)
        assert len(names) == SPLIT[name]
        close(model.encode_text(tokens), text)
        close(model.encode_image(images), image)
    assert text.std() > 1e-3 and image.std() > 1e-9, "a constant would prove nothing"


def test_split_then_fuse_gives_back_the_bits_keys_and_classes_of_a_whole_model(clip: mh.Clip):
    model = clip.model
    before = load_once(clip.name).model
    split_names = mh.split_attention(model)
    assert list(model.state_dict()) != list(before.state_dict())
    assert mh.split_attention(model) == [], "a second split finds nothing left to do"

    assert mh.fuse_attention(model) == split_names
    same_bits(model.state_dict(), before.state_dict())
    kinds = [(name, type(m)) for name, m in model.named_modules()]
    assert kinds == [(name, type(m)) for name, m in before.named_modules()]
    assert [p.requires_grad for p in model.parameters()] == [
        p.requires_grad for p in before.parameters()
    ]
    tokens = clip.tokenizer(["a red apple"])
    with torch.no_grad():
        assert torch.equal(model.encode_text(tokens), before.encode_text(tokens))
