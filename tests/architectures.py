"""Small models of open_clip's other architectures, of the same classes, with random weights.

Each has something that an adapter could fall for; the names are those of open_clip's large ones.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transform import image_transform
from timm.models import build_model_with_cfg, register_model
from timm.models.eva import Eva
from torch import nn

import mclip_helpers as mh
from mclip_helpers.model import choose_compute

TEXT = {"context_length": 12, "width": 32, "heads": 2, "layers": 2}
WIDTH = 16  # of the embedding


@register_model
def mclip_helpers_test_eva(pretrained: bool = False, **kwargs: Any) -> Eva:
    """EVA with a separate bias for the queries, as EVA01 has it: it reads `qkv.weight`."""
    kwargs["pretrained_cfg"] = kwargs.get("pretrained_cfg") or {"url": ""}
    size = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return build_model_with_cfg(Eva, "mclip_helpers_test_eva", pretrained, **size, **kwargs)


def timm_vision(name: str, size: int, **settings: Any) -> dict[str, Any]:
    return {"timm_model_name": name, "timm_model_pretrained": False, "image_size": size} | settings


def rn50() -> nn.Module:
    """Its pooling attention reads the weights of four Linear layers and calls none."""
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    return CLIP(WIDTH, vision, TEXT)


def convnext() -> nn.Module:
    """The image tower has no attention, and its last layer is `visual.head.proj`."""
    vision = timm_vision("test_convnext", 64, timm_pool="", timm_proj="linear", timm_drop_path=0.5)
    return CLIP(WIDTH, vision, TEXT)


def vit() -> nn.Module:
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
    return CLIP(WIDTH, vision, TEXT)


def coca() -> nn.Module:
    """A pooling attention with weights for q, k and v of their own, and a decoder of captions."""
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
    vision |= {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    decoder = {"width": WIDTH, "heads": 2, "layers": 2, "attn_pooler_heads": 2}
    text = TEXT | {"embed_cls": True, "output_tokens": True, "context_length": 11}
    model = CoCa(WIDTH, decoder | {"context_length": 11}, text, vision)
    # open_clip leaves this one as the memory was, and a NaN there is not equal to itself.
    nn.init.zeros_(model.text_decoder.text_projection)
    return model


def siglip() -> nn.Module:
    """open_clip asks whether `text_projection` is an `nn.Linear`."""
    vision = timm_vision("test_vit", 160, timm_pool="map", timm_proj="none")
    text = TEXT | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    return CustomTextCLIP(64, vision, text, init_logit_bias=-10)


def eva() -> nn.Module:
    """Its attention reads `qkv.weight`, and calls `proj`."""
    vision = timm_vision("mclip_helpers_test_eva", 32, timm_pool="token", timm_proj=None)
    return CustomTextCLIP(WIDTH, vision, TEXT)


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "RN50": rn50,
    "convnext_base": convnext,
    "ViT-B-16": vit,
    "coca_ViT-B-32": coca,
    "ViT-B-16-SigLIP": siglip,
    "EVA01-g-14": eva,
}


@functools.cache
def _built(name: str) -> mh.Clip:
    torch.manual_seed(0)
    model = ARCHITECTURES[name]()
    with torch.no_grad():
        for p in model.parameters():  # a norm that starts at zero closes its block to the gradient
            if p.dim() == 1 and not p.any():
                p.normal_(std=0.5)
    model.name_or_path = f"{name}/random"
    size = model.visual.image_size
    height = size if isinstance(size, int) else size[0]
    preprocess = image_transform(height, is_train=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    return mh.Clip(model.eval(), preprocess, tokenizer, name, "random", choose_compute("cpu"))


def small(name: str) -> mh.Clip:
    """A `Clip` whose model may be changed."""
    clip = _built(name)
    return dataclasses.replace(clip, model=copy.deepcopy(clip.model))
