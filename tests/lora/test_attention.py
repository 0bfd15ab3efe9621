"""Splitting attention into four layers changes no number, and fusing them undoes it to the bit."""

from __future__ import annotations

import copy
import inspect
import math

import open_clip
import pytest
import torch
import torch.nn.functional as F
from conftest import CASES, fresh, load_once
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_checks import same_bits
from torch import nn

import mclip_helpers as mh
from mclip_helpers.lora import SplitAttention, is_fused_attention

EXACT = {"rtol": 0, "atol": 1e-10}  # in float64: rounding and nothing else
MASKS = ("none", "bool", "float", "bool per head", "float per head", "causal", "is_causal")


class CalledAttention(nn.Module):
    """A stand-in for the attention of open_clip's next major version.

    One raw `in_proj_weight`, like `nn.MultiheadAttention`. Unlike there, `out_proj` is called, the
    output comes alone, key and value may be left out, and True in a mask means "look here".
    """

    def __init__(self, width: int, num_heads: int, bias: bool = True, dropout: float = 0.0):
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) / math.sqrt(width))
        self.register_parameter("in_proj_bias", nn.Parameter(torch.randn(3 * width)))
        if not bias:
            self.in_proj_bias = None
        self.attn_drop = nn.Dropout(dropout)
        self.out_proj = nn.Linear(width, width)
        self.out_drop = nn.Dropout(dropout)

    def forward(self, x, k_x=None, v_x=None, attn_mask=None):
        inputs = (x, x if k_x is None else k_x, x if v_x is None else v_x)
        weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, w, b in zip(inputs, weights, biases, strict=True)
        )
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if attn_mask is not None:
            if attn_mask.dim() == 3:
                attn_mask = attn_mask.view_as(scores)
            if attn_mask.dtype == torch.bool:
                scores = scores.masked_fill(~attn_mask, float("-inf"))
            else:
                scores = scores + attn_mask
        shares = self.attn_drop(scores.softmax(-1))
        return self.out_drop(self.out_proj((shares @ v).transpose(1, 2).flatten(2)))


class NormedAttention(CalledAttention):
    """It has learned something that four Linear layers can't hold."""

    def __init__(self, width: int, num_heads: int):
        super().__init__(width, num_heads)
        self.ln_q = nn.LayerNorm(width // num_heads)


class FixedNormAttention(CalledAttention):
    """It has learned nothing more, but computes something more."""

    def __init__(self, width: int, num_heads: int):
        super().__init__(width, num_heads)
        self.ln_inner = nn.LayerNorm(width, elementwise_affine=False)


class BufferedAttention(CalledAttention):
    """It holds something that is in no state dict."""

    def __init__(self, width: int, num_heads: int):
        super().__init__(width, num_heads)
        self.register_buffer("gate", torch.ones(num_heads), persistent=False)


class ScaledAttention(CalledAttention):
    """Its scores are divided by d, not by √d."""

    def __init__(self, width: int, num_heads: int):
        super().__init__(width, num_heads)
        self.scale = num_heads / width


class DroppingAttention(CalledAttention):
    """It drops something, too, and who knows where."""

    def __init__(self, width: int, num_heads: int):
        super().__init__(width, num_heads)
        self.value_drop = nn.Dropout(0.5)


class StrangeAttention(CalledAttention):
    def forward(self, tokens, mask=None):
        return super().forward(tokens, attn_mask=mask)


def original(heads: int = 2, head_width: int = 3, **options) -> nn.MultiheadAttention:
    attention = nn.MultiheadAttention(heads * head_width, heads, dtype=torch.float64, **options)
    with torch.no_grad():
        for p in attention.parameters():  # PyTorch starts biases at zero: mistakes would not show
            p.normal_(std=0.5)
    return attention.eval()


def split(attention: nn.Module) -> SplitAttention:
    model = nn.Sequential(copy.deepcopy(attention))
    assert mh.split_attention(model) == ["0"]
    return model[0]


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
    two = SplitAttention(one)
    assert {p.dtype for p in two.parameters()} == {dtype}
    same_bits(two.fuse().state_dict(), before)


def test_fuse_follows_what_happened_to_the_four_layers():
    """New numbers, another precision, frozen, in training: none of it is lost on the way back."""
    one = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    two = SplitAttention(one).double().requires_grad_(False).train()
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
    two = SplitAttention(nn.MultiheadAttention(8, 2))
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


# ---- every way of calling it --------------------------------------------------------------------


def batch_first(width: int, heads: int, bias: bool, dropout: float) -> nn.Module:
    return nn.MultiheadAttention(width, heads, dropout, bias, batch_first=True)


def length_first(width: int, heads: int, bias: bool, dropout: float) -> nn.Module:
    return nn.MultiheadAttention(width, heads, dropout, bias)


def open_clips(width: int, heads: int, bias: bool, dropout: float) -> nn.Module:
    """Whichever version is installed: the oldest and the newest differ in what a mask means."""
    return open_clip.transformer.Attention(
        width, heads, qkv_bias=bias, attn_drop=dropout, proj_drop=dropout
    )


KINDS = (batch_first, length_first, open_clips, CalledAttention)


def build(kind, bias: bool = True, dropout: float = 0.0, dtype=torch.float64) -> nn.Module:
    torch.manual_seed(0)
    attention = kind(6, 2, bias, dropout).to(dtype)
    with torch.no_grad():
        for p in attention.parameters():  # some start at zero: mistakes would not show
            p.normal_(std=0.5)
    return attention.eval()


def call(attention: nn.Module, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Self-attention over x, as the block around such a layer asks for it."""
    if "query" not in inspect.signature(type(attention).forward).parameters:
        return attention(x, attn_mask=mask)
    return attention(x, x, x, attn_mask=mask, need_weights=False)[0]


def a_mask(kind: str, x: torch.Tensor) -> torch.Tensor | None:
    """Of x (2, 4, E) with two heads, or (4, 2, E). The diagonal and the key beside it differ."""
    if kind == "none":
        return None
    shape = (4, 4, 4) if kind.endswith("per head") else (4, 4)
    if kind.startswith("float"):
        return torch.randn(shape, dtype=x.dtype)
    mask = torch.rand(shape) < 0.5  # whichever way True is meant, each query still sees a key
    mask[..., 0], mask[..., 1] = True, False
    return mask


@pytest.mark.parametrize("mask", ["none", "bool", "float", "bool per head", "float per head"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_called_as_before_it_gives_the_same_values_and_gradients(kind, bias: bool, mask: str):
    one = build(kind, bias)
    two = split(one)
    x = torch.randn((4, 2, 6) if kind is length_first else (2, 4, 6), dtype=torch.float64)
    x.requires_grad_()
    given = a_mask(mask, x)
    expected, found = call(one, x, given), call(two, x, given)
    close(found, expected)
    if given is not None:
        assert not torch.allclose(expected, call(one, x)), "this mask would prove nothing"

    direction = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, [x, *one.parameters()], direction)
    got = torch.autograd.grad(found, [x, *two.parameters()], direction)
    close(got[0], wanted[0])
    wanted = dict(zip(dict(one.named_parameters()), wanted[1:], strict=True))
    got = dict(zip(dict(two.named_parameters()), got[1:], strict=True))
    for part in ("weight", "bias") if bias else ("weight",):
        got[f"in_proj_{part}"] = torch.cat([got.pop(f"{name}_proj.{part}") for name in "qkv"])
    assert got.keys() == wanted.keys()
    for name in wanted:
        close(got[name], wanted[name])


@pytest.mark.parametrize("left_out", [(), ("k_x",), ("v_x",), ("k_x", "v_x")], ids=str)
def test_key_and_value_may_be_others_or_left_out(left_out: tuple[str, ...]):
    one = build(CalledAttention)
    two = split(one)
    x, k_x, v_x = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    others = {n: t for n, t in {"k_x": k_x, "v_x": v_x}.items() if n not in left_out}
    close(two(x, **others), one(x, **others))
    if not left_out:
        mask = a_mask("bool", x)
        close(two(x, k_x, v_x, mask), one(x, k_x, v_x, mask))  # by position, too
        close(two(x, k_x[:, :2], v_x[:, :2]), one(x, k_x[:, :2], v_x[:, :2]))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_in_bf16_it_differs_by_the_rounding_of_bf16(kind):
    one = build(kind, dtype=torch.bfloat16)
    two = split(one)
    x = torch.randn(2, 4, 6, dtype=torch.bfloat16)
    for mask in (None, torch.randn(*((2, 2) if kind is length_first else (4, 4))).bfloat16()):
        expected, found = call(one, x, mask), call(two, x, mask)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found, expected, rtol=0, atol=0.03 * expected.std().item())
        if mask is not None:  # one that was made in full precision
            assert torch.equal(call(two, x, mask.double()), found)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_dropout_of_the_original_draws_the_same_numbers(kind):
    one = build(kind, dropout=0.5)
    two = split(one)
    x = torch.randn(4, 4, 6, dtype=torch.float64)
    close(call(two, x), call(one, x))
    still = call(two, x)
    one.train(), two.train()
    torch.manual_seed(7)
    expected = call(one, x)
    torch.manual_seed(7)
    found = call(two, x)
    close(found, expected)
    assert not torch.allclose(found, still)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_fuse_gives_back_the_class_the_bits_and_the_way_of_calling(kind, bias: bool):
    one = build(kind, bias, dropout=0.25)
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    model = nn.Sequential(copy.deepcopy(one))
    assert mh.split_attention(model) == mh.fuse_attention(model) == ["0"]
    assert str(model[0]) == str(one) and type(model[0]) is type(one)
    same_bits(model[0].state_dict(), one.state_dict())
    assert torch.equal(call(model[0], x), call(one, x))


def test_an_unknown_way_of_calling_is_refused_before_anything_is_changed():
    model = nn.Sequential(build(batch_first), nn.Sequential(StrangeAttention(6, 2)))
    before = str(model)
    with pytest.raises(
        ValueError, match=r"'1\.0' is a StrangeAttention .*\(tokens, mask\), not \(q"
    ):
        mh.split_attention(model)
    assert str(model) == before


@pytest.mark.parametrize(
    "attention",
    [
        pytest.param(lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=6), id="other key width"),
        pytest.param(lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True), id="learned key"),
        pytest.param(lambda: nn.MultiheadAttention(8, 2, add_zero_attn=True), id="zero key"),
        pytest.param(lambda: NormedAttention(8, 2), id="norm of the queries"),
        pytest.param(lambda: FixedNormAttention(8, 2), id="norm without numbers"),
        pytest.param(lambda: BufferedAttention(8, 2), id="buffer in no state dict"),
        pytest.param(lambda: ScaledAttention(8, 2), id="another scale"),
        pytest.param(lambda: DroppingAttention(8, 2), id="unknown dropout"),
        *(
            pytest.param(lambda o=o: open_clip.transformer.Attention(8, 2, **{o: True}), id=o)
            for o in ("qk_norm", "scaled_cosine", "scale_heads", "inner_norm")
        ),
    ],
)
def test_an_attention_that_four_layers_cannot_express_is_left_alone(attention):
    model = nn.Sequential(attention())
    before = copy.deepcopy(model.state_dict())
    assert mh.split_attention(model) == []
    assert not isinstance(model[0], SplitAttention)
    same_bits(model.state_dict(), before)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_fused_attention_is_recognised_whatever_its_class(kind):
    assert is_fused_attention(build(kind))
    assert not is_fused_attention(split(build(kind)))
    assert not is_fused_attention(build(kind).out_proj)


# ---- whole models -------------------------------------------------------------------------------

SPLIT = {"nano": 3, "MobileCLIP2-S0": 12, "MobileCLIP-B": 12, "ViT-B-32": 24}


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
        fused = [n for n, module in model.named_modules() if is_fused_attention(module)]
        names = mh.split_attention(model)
        assert names == fused
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


# ---- a whole model whose attention is of the other class ----------------------------------------


class CalledBlock(open_clip.transformer.ResidualAttentionBlock):
    """open_clip's block around an attention that is called like the stand-in."""

    def attention(self, q_x, k_x=None, v_x=None, attn_mask=None):
        return self.attn(q_x, k_x=k_x, v_x=v_x, attn_mask=attn_mask)


def with_the_stand_in(model: nn.Module) -> nn.Module:
    """The same numbers, but every block's attention is the stand-in. In place."""
    for block in model.modules():
        if isinstance(block, open_clip.transformer.ResidualAttentionBlock):
            old = block.attn
            new = CalledAttention(old.out_proj.in_features, old.num_heads)
            new.load_state_dict(old.state_dict(), strict=True)
            block.attn = new.requires_grad_(False).train(old.training)
            block.__class__ = CalledBlock
    return model


def small_clip() -> nn.Module:
    """Two towers of `nn.MultiheadAttention`; the text tower's has a causal mask."""
    torch.manual_seed(1)
    vision = {"layers": 2, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 16}
    text = {"layers": 2, "width": 32, "heads": 2, "context_length": 8, "vocab_size": 50}
    model = open_clip.model.CLIP(
        16, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text)
    )
    return model.requires_grad_(False).eval()


MODELS = {"nano": (lambda: fresh("nano").model, 3), "a small CLIP": (small_clip, 4)}


@torch.no_grad()
def outputs(model: nn.Module, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return torch.stack([model.encode_image(images), model.encode_text(tokens)])


@pytest.mark.parametrize("name", MODELS)
def test_lora_goes_all_its_way_on_the_other_class(name: str, tmp_path):
    """Inject, trace, train, save, load and merge.

    The numbers have the same names, so an adapter fits a model of either class.
    """
    new, attentions = MODELS[name]
    model = new()
    torch.manual_seed(0)
    tokens = torch.randint(1, 50, (2, model.context_length))
    seen = (torch.rand(2, 3, *model.visual.image_size), tokens)
    plain = outputs(model, *seen)
    near = {"rtol": 0, "atol": 1e-5 * plain.std().item()}
    model = with_the_stand_in(model)
    torch.testing.assert_close(outputs(model, *seen), plain, **near)

    lora_model = mh.inject_lora(model, rank=2).train()
    found = [name for name, m in lora_model.named_modules() if isinstance(m, SplitAttention)]
    assert len(found) == attentions
    torch.testing.assert_close(outputs(lora_model.eval(), *seen), plain, **near)
    optimizer = torch.optim.AdamW([p for p in lora_model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):  # in the first, every B is zero, and so is every A's gradient
        optimizer.zero_grad()
        with mh.trace(lora_model) as tape:
            image, text = lora_model.encode_image(seen[0]), lora_model.encode_text(seen[1])
            mh.contrastive_loss(image, text, lora_model.logit_scale.exp()).backward()
        optimizer.step()
    adapters = [p for n, p in lora_model.named_parameters() if ".lora_" in n]
    assert all(p.grad is not None and p.grad.any() for p in adapters)
    assert tape.graph.gradients.dead == ()
    modules = {node.module for node in tape.graph.nodes}
    for attention in found:
        for layer in ("q_proj", "k_proj", "v_proj", "out_proj"):
            assert f"{attention}.{layer}.lora_B.default" in modules

    trained = outputs(lora_model, *seen)
    assert not torch.allclose(trained, plain, rtol=0, atol=1e-2 * plain.std().item())
    folder = mh.save_adapter(lora_model, tmp_path / "adapter")
    same = mh.load_adapter(with_the_stand_in(new()), folder)
    assert torch.equal(outputs(same, *seen), trained)
    torch.testing.assert_close(outputs(mh.load_adapter(new(), folder), *seen), trained, **near)

    merged = mh.merge_adapter(same)
    assert not any(isinstance(m, SplitAttention) for m in merged.modules())
    assert sum(isinstance(m, CalledAttention) for m in merged.modules()) == len(found)
    torch.testing.assert_close(outputs(merged, *seen), trained, **near)
    own = new()
    own.load_state_dict(merged.state_dict(), strict=True)
    torch.testing.assert_close(outputs(own, *seen), trained, **near)
