"""What becomes of a trained adapter: saved with a model card, loaded, merged into its base.

An adapter is a correction to particular weights, so its folder names them: `base_model.json` holds
the base's name and a fingerprint of its numbers.
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
from peft import LoraConfig, PeftModel
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file

from ..model.clip import ClipModel, base_name
from ..model.weights import hub_repository, is_apples
from .attention import fuse_attention, split_attention
from .batch_norm import freeze_batch_norm, unfreeze_batch_norm
from .card import apple_notice, write_card
from .inject import lora_layers, require_no_adapters
from .state import fingerprint, merged_state_dict

BASE_FILE = "base_model.json"
MERGED = "merged"


def save_adapter(
    peft: PeftModel,
    path: str | Path,
    *,
    data: str = "",
    metrics: Mapping[str, tuple[float, float]] | None = None,
    merged: bool = False,
) -> Path:
    """Write the adapter to the folder `path`: whole, or not at all. Returns the folder.

    Beside PEFT's `adapter_config.json` and `adapter_model.safetensors` it holds `base_model.json`
    (the base's name and fingerprint, the value of `logit_scale`, a checksum) and README.md, a model
    card. For the card, `data` describes in a sentence or two what was trained with and whom to
    credit, and `metrics` gives shares (0…1) before and after, by the metrics' names.

    With `merged`, the folder `merged/` holds the merged model in open_clip's own format, for people
    who have open_clip and nothing else: `create_model_and_transforms("local-dir:…/merged")`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        fresh = Path(temporary) / "adapter"
        _write_folder(fresh, peft, data, metrics or {}, merged)
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


def _write_folder(
    folder: Path,
    peft: PeftModel,
    data: str,
    metrics: Mapping[str, tuple[float, float]],
    merged: bool,
) -> None:
    model: ClipModel = peft.get_base_model()
    config = peft.peft_config["default"]
    assert isinstance(config, LoraConfig)
    name, _, weights = base_name(model).partition("/")
    repository = hub_repository(name, weights)
    # No embedding is trained; left to itself, PEFT would ask the hub for the base's config.
    peft.save_pretrained(str(folder), save_embedding_layers=False)
    if repository:
        _name_base(folder / CONFIG_NAME, repository)
    notes = {
        "name": base_name(model),
        "fingerprint": fingerprint(peft),
        "logit_scale": model.logit_scale.item(),
        "adapter_sha256": _sha256(folder / SAFETENSORS_WEIGHTS_NAME),
    }
    (folder / BASE_FILE).write_text(json.dumps(notes, indent=2) + "\n")
    card = write_card(
        name=name,
        weights=weights,
        repository=repository,
        config=config,
        layers=[layer for layer, _ in lora_layers(peft)],
        trained_with=data,
        metrics=metrics,
        merged=merged,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    if merged:
        _save_merged(peft, folder / MERGED, name)
    if is_apples(name, weights):
        for place in (folder, folder / MERGED) if merged else (folder,):
            (place / "NOTICE").write_text(apple_notice(name, weights), encoding="utf-8")


def _name_base(config_file: Path, repository: str) -> None:
    """Write the base's name on the hub into PEFT's file, where other programs look for it."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = repository
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _save_merged(peft: PeftModel, folder: Path, name: str) -> None:
    """The merged model as open_clip stores models: architecture, transform and weights."""
    folder.mkdir()
    config = open_clip.get_model_config(name)
    save_config_for_hf(peft.get_base_model(), folder / HF_CONFIG_NAME, config)
    state = {key: value.cpu().contiguous() for key, value in merged_state_dict(peft).items()}
    save_file(state, folder / HF_SAFE_WEIGHTS_NAME)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_adapter(model: ClipModel, path: str | Path, *, trainable: bool = False) -> PeftModel:
    """Put the adapter saved in `path` on `model`, in place; it computes what the saved model did.

    Raises FileNotFoundError if the folder is not a saved adapter, and ValueError if the adapter is
    damaged or was made for another base (both are named); `model` then stays as it was.
    """
    path = Path(path)
    for file in (BASE_FILE, CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME):
        if not (path / file).is_file():
            raise FileNotFoundError(f"{path} is not an adapter saved by save_adapter: no {file}")
    require_no_adapters(model)
    notes = json.loads((path / BASE_FILE).read_text())
    _check_adapter_file(path, notes)
    _check_base(model, path, notes)
    split_attention(model)
    freeze_batch_norm(model)
    peft = PeftModel.from_pretrained(model, path, is_trainable=trainable)
    with torch.no_grad():
        model.logit_scale.fill_(notes["logit_scale"])
    return peft.eval()


def _check_adapter_file(path: Path, notes: Mapping) -> None:
    """Raise ValueError for a damaged file.

    PEFT would only warn of a missing tensor, and leave that adapter at its random start.
    """
    if notes.get("adapter_sha256") != _sha256(path / SAFETENSORS_WEIGHTS_NAME):
        raise ValueError(
            f"{path / SAFETENSORS_WEIGHTS_NAME} is damaged, or not the file that {BASE_FILE} "
            f"beside it belongs to; save the adapter again"
        )


def _check_base(model: ClipModel, path: Path, notes: Mapping) -> None:
    """Raise ValueError if the adapter was made for another base than `model`."""
    name = base_name(model)
    if notes["name"] != name:
        raise ValueError(f"the adapter in {path} was made for {notes['name']!r}, not for {name!r}")
    here = fingerprint(model)
    if notes["fingerprint"] != here:
        raise ValueError(
            f"the adapter in {path} was made for {notes['name']!r} with other weights (fingerprint "
            f"{notes['fingerprint']}) than this {name!r} has ({here})"
        )


def merge_adapter(peft: PeftModel) -> ClipModel:
    """Add every (alpha / rank) · B A to its W, and return a plain open_clip model.

    Works in place: `peft` can't be used afterwards. The result's state dict loads into a fresh
    open_clip model with `strict=True`. Its outputs equal the adapted model's up to rounding.
    """
    model = peft.merge_and_unload(safe_merge=True)
    fuse_attention(model)
    unfreeze_batch_norm(model)
    return model.eval()
