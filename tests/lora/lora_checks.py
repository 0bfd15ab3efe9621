"""What the tests of this folder share: how models are compared, trained a little, and adapted."""

from __future__ import annotations

import torch
from conftest import load_once
from peft import PeftModel
from torch import nn

import mclip_helpers as mh
from mclip_helpers.lora import is_fused_attention

State = dict[str, torch.Tensor]

# How many layers each set must find, counted from the architectures: text layers × 4, the last
# stage's image blocks × 2 and the head; ViT-B-32's image tower is split like its text tower.
DEFAULT_LAYERS = {
    "nano": 3 * 4 + 2 * 2 + 1,
    "MobileCLIP2-S0": 12 * 4 + 2 * 2 + 1,
    "MobileCLIP-B": 12 * 4 + 12 * 2 + 1,
    "ViT-B-32": 12 * 4 + 12 * 4,
}


def snapshot(model: nn.Module) -> State:
    """All parameters and buffers, those outside the state dict too, but no adapter's."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: t.detach().clone() for name, t in tensors if ".lora_" not in name}


def same_bits(state: State, before: State) -> None:
    """Same names in the same order, same shapes, types and bits."""
    assert list(state) == list(before)
    for name, value in state.items():
        assert value.dtype == before[name].dtype, name
        assert torch.equal(value, before[name]), name


def form(model: nn.Module) -> list:
    """All that a refused call might have touched, but the numbers."""
    return [
        [(name, type(m), m.training) for name, m in model.named_modules()],
        [(name, p.requires_grad) for name, p in model.named_parameters()],
        list(model.state_dict()),
    ]


def untouched(model: nn.Module, name: str) -> None:
    before = load_once(name).model
    assert form(model) == form(before)
    if not next(model.parameters()).is_meta:
        same_bits(model.state_dict(), before.state_dict())


@torch.no_grad()
def outputs(model: nn.Module, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The embeddings (2, 1, D) of the first picture and text, as the model in `eval` gives them."""
    assert not model.training
    return torch.stack([model.encode_image(images[:1]), model.encode_text(tokens[:1])])


def difference(left: torch.Tensor, right: torch.Tensor) -> float:
    """The larger of the two towers' relative differences."""
    norms = (left - right).flatten(1).norm(dim=1) / right.flatten(1).norm(dim=1)
    return norms.max().item()


def two_steps(lora_model: nn.Module, images: torch.Tensor, tokens: torch.Tensor) -> list[dict]:
    """Two steps of AdamW under `.train()`; the norm of every parameter's gradient at each."""
    found = []
    optimizer = torch.optim.AdamW([p for p in lora_model.parameters() if p.requires_grad], lr=1e-2)
    lora_model.train()
    for _ in range(2):
        optimizer.zero_grad()
        loss = mh.contrastive_loss(
            lora_model.encode_image(images),
            lora_model.encode_text(tokens),
            lora_model.logit_scale.exp(),
        )
        loss.backward()
        gradients = {name: p.grad for name, p in lora_model.named_parameters()}
        found.append({n: None if g is None else g.norm().item() for n, g in gradients.items()})
        optimizer.step()
    lora_model.eval()
    return found


def with_random_adapters(clip: mh.Clip, seed: int = 0, targets: str = "default") -> PeftModel:
    """Adapters as if trained: B is not zero."""
    lora_model = mh.inject_lora(clip.model, rank=2, targets=targets).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in lora_model.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator) / 10)
    return lora_model


def adapter_state(model: nn.Module) -> State:
    return {n: p.detach().clone() for n, p in model.named_parameters() if ".lora_" in n}


def an_attention(model: nn.Module) -> str:
    """The name of the first fused attention, of whatever class open_clip makes it."""
    return next(name for name, module in model.named_modules() if is_fused_attention(module))


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
