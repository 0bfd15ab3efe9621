"""`nano`: MobileCLIP-S0 made narrow and shallow, whose few MB of weights come with the project.

Importing this module makes its architecture known to timm and to open_clip. `data/train_nano.py`
trained the weights.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file
from timm.models import build_model_with_cfg, register_model
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from torch import nn

from ..files import data_folder
from .weights import StateDict, WeightsError, WeightsFile

NANO = "nano"


@register_model
def mclip_helpers_nano(pretrained: bool = False, **kwargs: Any) -> FastVit:
    """The image tower: MobileCLIP-S0's (`fastvit_mci0` in timm), narrow and shallow."""
    kwargs["pretrained_cfg"] = kwargs.get("pretrained_cfg") or {"url": ""}
    return build_model_with_cfg(
        FastVit,
        "mclip_helpers_nano",
        pretrained,
        layers=(1, 2, 2, 2),
        embed_dims=(32, 64, 128, 256),
        mlp_ratios=(3, 3, 3, 3),
        se_downsamples=(False, False, True, True),
        pos_embs=(None, None, None, partial(RepConditionalPosEnc, spatial_shape=(7, 7))),
        token_mixers=("repmixer", "repmixer", "repmixer", "attention"),
        lkc_use_act=True,
        **kwargs,
    )


open_clip.add_model_config(data_folder() / f"{NANO}.json")


def nano_weights(pretrained: str = NANO) -> WeightsFile:
    """The weight file of `nano`.

    Raises ValueError for other weights than its own, and WeightsError if the file is missing.
    """
    if pretrained != NANO:
        raise ValueError(f"nano has no weights {pretrained!r}; leave `pretrained` out")
    path = data_folder() / f"{NANO}.safetensors"
    repair = f"git checkout {path}"
    if not path.exists():
        raise WeightsError(f"{path} is missing. Repair: {repair}")
    return WeightsFile(path, repair, read_compact)


def read_compact(path: Path, model: nn.Module) -> StateDict:
    """The whole state dict of `model` from the compact file at `path`.

    The file is in half precision. Of the token embeddings it holds only the rows of tokens that
    occurred in training; the others become zero. Batch norm's batch counters are not stored.
    """
    stored = load_file(path)
    rows = stored.pop("text.token_embedding.rows").long()
    state = {k: v.float() if v.is_floating_point() else v for k, v in stored.items()}
    table = torch.zeros_like(model.get_parameter("text.token_embedding.weight"))
    table[rows] = state["text.token_embedding.weight"]
    state["text.token_embedding.weight"] = table
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros_like(value)
    return state
