"""What becomes of a trained adapter: saved, loaded, merged, and given to other people.

An adapter is a correction to particular weights, so its folder says which: the base's name and a
fingerprint of its numbers lie beside what PEFT and the Hugging Face hub expect.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import open_clip
import torch
from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME
from open_clip.push_to_hf_hub import save_config_for_hf
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import nn

from ..model.clip import hub_repository
from ..names import clean_name, is_adapter
from . import card
from .attention import PROJECTIONS, SplitAttention, fuse_attention, split_attention
from .inject import freeze_batch_norm, lora_layers, unfreeze_batch_norm

BASE_FILE = "base_model.json"
MERGED = "merged"


# ---------------------------------------------------------------------------- the base underneath


def base_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict that open_clip would give for the base: no adapters, attention fused."""
    return _fused(model, _without_adapters(model))


def merged_state_dict(peft: PeftModel) -> dict[str, torch.Tensor]:
    """`base_state_dict` with (alpha / rank) · B A added to each W; `peft` stays as it is."""
    state = _without_adapters(peft)
    with torch.no_grad():
        for name, layer in lora_layers(peft):
            for adapter in layer.active_adapters:
                weight = f"{name}.weight"
                state[weight] = state[weight] + layer.get_delta_weight(adapter)
    return _fused(peft, state)


def _without_adapters(model: nn.Module) -> dict[str, torch.Tensor]:
    state = {}
    for name, value in model.state_dict().items():
        if not is_adapter(name):
            state[clean_name(name)] = value
    return state


def _fused(model: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state` with the projections of each split attention in one tensor again."""
    for name, module in model.named_modules():
        if isinstance(module, SplitAttention):
            name = clean_name(name)
            for kind in ("weight", "bias"):
                parts = [state.pop(f"{name}.{p}.{kind}", None) for p in PROJECTIONS]
                if parts[0] is not None:
                    state[f"{name}.in_proj_{kind}"] = torch.cat(parts)
    return state


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The numbers of `tensor` as they lie in memory, row by row."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def fingerprint(model: nn.Module) -> str:
    """A hash of all the base's numbers but `logit_scale`, which may be trained with an adapter."""
    digest = hashlib.sha256()
    for name, value in sorted(base_state_dict(model).items()):
        if name != "logit_scale" and not name.endswith("num_batches_tracked"):
            digest.update(name.encode())
            digest.update(tensor_bytes(value))
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------------------ save, load, merge


def save_adapter(
    peft: PeftModel,
    path: str | Path,
    *,
    data: str = "",
    metrics: Mapping[str, tuple[float, float]] | None = None,
    merged: bool = False,
) -> Path:
    """Write the adapter to the folder `path`: whole, or not at all. Returns the folder.

    Beside PEFT's `adapter_config.json` and `adapter_model.safetensors` lie `base_model.json` (the
    base's name and fingerprint, the value of `logit_scale`, a checksum) and README.md, a model
    card. For it, `data` says in a sentence or two what was trained with and whom to credit, and
    `metrics` gives shares (0…1) before and after by their names.

    With `merged`, the folder `merged/` holds the merged model in open_clip's own format, for people
    who have open_clip and nothing else: `create_model_and_transforms("local-dir:…/merged")`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    model = peft.get_base_model()
    base = getattr(model, "name_or_path", "unnamed")
    repository = hub_repository(*base.split("/", 1)) if "/" in base else None
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        fresh = Path(temporary) / "adapter"
        # No embedding is trained; left to itself, PEFT would ask the hub for the base's config.
        peft.save_pretrained(fresh, save_embedding_layers=False)
        if repository:
            _name_base(fresh / CONFIG_NAME, repository)
        notes = {
            "name": base,
            "fingerprint": fingerprint(peft),
            "logit_scale": model.logit_scale.item(),
            "adapter_sha256": _sha256(fresh / SAFETENSORS_WEIGHTS_NAME),
        }
        (fresh / BASE_FILE).write_text(json.dumps(notes, indent=2) + "\n")
        if merged:
            _save_merged(peft, fresh / MERGED, base.partition("/")[0])
        layers = [name for name, _ in lora_layers(peft)]
        config = peft.peft_config["default"]
        text = card.write(base, repository, config, layers, data, metrics or {}, merged)
        (fresh / "README.md").write_text(text, encoding="utf-8")
        if card.is_apples(base):
            for folder in (fresh, fresh / MERGED) if merged else (fresh,):
                (folder / "NOTICE").write_text(card.apple_notice(base), encoding="utf-8")
        old = Path(temporary) / "old"
        if path.exists():
            path.rename(old)
        try:
            fresh.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
    return path


def _name_base(config_file: Path, repository: str) -> None:
    """In PEFT's file the base has its name on the hub, where others look for it."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = repository
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _save_merged(peft: PeftModel, folder: Path, name: str) -> None:
    """The merged model as open_clip stores models: architecture, transform and weights."""
    folder.mkdir()
    config = open_clip.get_model_config(name)
    save_config_for_hf(peft.get_base_model(), folder / HF_CONFIG_NAME, config)
    state = {name: value.cpu().contiguous() for name, value in merged_state_dict(peft).items()}
    save_file(state, folder / HF_SAFE_WEIGHTS_NAME)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_adapter(model: nn.Module, path: str | Path, *, trainable: bool = False) -> PeftModel:
    """Put the adapter saved in `path` on `model`, in place; its outputs are those of before.

    Raises FileNotFoundError if the folder is not a saved adapter, and ValueError, before anything
    is changed, if it is damaged or was made for another base: both names are given.
    """
    path = Path(path)
    files = (BASE_FILE, CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME)
    missing = [file for file in files if not (path / file).is_file()]
    if missing:
        raise FileNotFoundError(f"{path} is not an adapter saved by save_adapter: no {missing[0]}")
    if any(isinstance(m, LoraLayer) for m in model.modules()):
        raise ValueError("this model has LoRA adapters already; load a fresh one, or merge them")
    base = json.loads((path / BASE_FILE).read_text())
    # PEFT would only warn of a missing tensor, and leave that adapter at its random start.
    if base.get("adapter_sha256") != _sha256(path / SAFETENSORS_WEIGHTS_NAME):
        raise ValueError(
            f"{path / SAFETENSORS_WEIGHTS_NAME} is damaged, or not the file that {BASE_FILE} "
            f"beside it belongs to; save the adapter again"
        )
    name = getattr(model, "name_or_path", "unnamed")
    if base["name"] != name:
        raise ValueError(f"the adapter in {path} was made for {base['name']!r}, not for {name!r}")
    here = fingerprint(model)
    if base["fingerprint"] != here:
        raise ValueError(
            f"the adapter in {path} was made for {base['name']!r} with other weights (fingerprint "
            f"{base['fingerprint']}) than this {name!r} has ({here})"
        )
    split_attention(model)
    freeze_batch_norm(model)
    peft = PeftModel.from_pretrained(model, path, is_trainable=trainable)
    with torch.no_grad():
        model.logit_scale.fill_(base["logit_scale"])
    return peft.eval()


def merge_adapter(peft: PeftModel) -> nn.Module:
    """Add every (alpha / rank) · B A to its W, and give back a plain open_clip model.

    Works in place: `peft` is used up. The result's state dict loads into a fresh open_clip model
    with `strict=True`. It equals the adapted model up to rounding.
    """
    model = peft.merge_and_unload(safe_merge=True)
    fuse_attention(model)
    unfreeze_batch_norm(model)
    return model.eval()
