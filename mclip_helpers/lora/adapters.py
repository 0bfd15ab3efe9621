"""What becomes of a trained adapter: saved with a model card, loaded, merged into its base.

An adapter is a correction to particular weights, so its folder names them (`folder.py`). Loading is
three steps: read, check (`verify.py`), and only then put it on the model, as `inject_lora` does.
"""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME
from open_clip.push_to_hf_hub import save_config_for_hf
from peft import LoraConfig, PeftModel
from peft.utils import CONFIG_NAME
from safetensors.torch import save_file

from ..checks import finite_number
from ..files import replace
from ..model.clip import ClipModel, base_name, require_model
from ..model.weights import hub_repository, is_apples
from ..names import is_adapter
from .attention import fuse_attention, split_attention
from .batch_norm import unfreeze_batch_norm
from .card import adapter_notice, write_card
from .fold import unfold
from .folder import (
    BASE_FILE,
    check_scalar,
    find_folder,
    read_notes,
    readable,
    refuse_foreign,
    require_as_saved,
    write_notes,
)
from .inject import adapter_name, inject_lora, lora_config, lora_layers, require_no_adapters
from .state import fingerprint, merged_state_dict, merged_weights, scalars
from .undo import whole_or_not_at_all
from .verify import Adapter, read_adapter

MERGED = "merged"


def save_adapter(
    lora_model: PeftModel,
    path: str | Path,
    *,
    data: str = "",
    metrics: Mapping[str, Sequence[float]] | None = None,
    merged: bool = False,
) -> Path:
    """Write the adapter to the folder `path`: whole, or not at all. Returns the folder.

    Beside PEFT's `adapter_config.json` and `adapter_model.safetensors` it holds `base_model.json`
    (the base's name and fingerprint, the value of `logit_scale`, a checksum of every file) and
    README.md, a model card. For the card, `data` describes in a sentence or two what was trained
    with and whom to credit, and `metrics` gives shares (0…1) before and after, by the metrics'
    names; two more numbers are the interval of 95 % of the difference. Both are shown as the text
    that they are.

    With `merged`, the folder `merged/` holds the merged model in open_clip's own format, for people
    who have open_clip and nothing else: `create_model_and_transforms("local-dir:…/merged")`.

    An adapter that this function saved is replaced, and nothing else: FileExistsError, with what is
    in the way, if anything else is at `path`. TypeError and ValueError, before anything is written,
    for a model that has no adapters, and for adapters that `load_adapter` would refuse.
    """
    _require_adapters(lora_model)
    _require_saveable(lora_model, merged)
    metrics = _checked_metrics(data, metrics)
    replace(
        path,
        lambda folder: _write_folder(folder, lora_model, data, metrics, merged),
        refuse_foreign,
    )
    return Path(path)


def _require_adapters(lora_model: object) -> None:
    """TypeError for what is no model of `inject_lora`; ValueError for one without its adapters."""
    if not isinstance(lora_model, PeftModel):
        raise TypeError(
            f"this is a {type(lora_model).__name__}; pass the model with adapters, which "
            f"inject_lora or load_adapter returned"
        )
    if not any(lora_layers(lora_model)):
        raise ValueError(
            "this model has no LoRA adapters: merge_adapter has taken them out and returned the "
            "plain model; for new ones, call inject_lora with that"
        )


def _require_apart(lora_model: PeftModel) -> None:
    """ValueError while PEFT has the adapters added to the base's weights."""
    if any(layer.merged for _, layer in lora_layers(lora_model)):
        raise ValueError(
            "these adapters are added to the base at the moment; call its unmerge_adapter() first"
        )


def _require_saveable(lora_model: PeftModel, merged: bool) -> None:
    """ValueError if the adapter is not the only one, or if nobody could load what was saved."""
    if list(lora_model.peft_config) != ["default"]:
        raise ValueError(
            f"this model has the adapters {', '.join(lora_model.peft_config)}; save_adapter saves "
            f"one, called 'default', as inject_lora makes it"
        )
    _require_apart(lora_model)
    model = lora_model.get_base_model()
    found = scalars(model)
    if "logit_scale" not in found:
        raise ValueError(f"this {type(model).__name__} is no CLIP: it has no logit_scale")
    for name, value in found.items():
        check_scalar(name, value)
    if merged and open_clip.get_model_config(_base(model)[0]) is None:
        raise ValueError(
            "merged=True needs the name of the model's architecture, which load_model notes; load "
            "the base with load_model, or leave merged out"
        )


def _checked_metrics(
    data: str, metrics: Mapping[str, Sequence[float]] | None
) -> dict[str, tuple[float, ...]]:
    """`metrics` as floats. ValueError unless the card can show them and `data`."""
    metrics = {} if metrics is None else metrics
    if not isinstance(metrics, Mapping):
        raise ValueError(
            f"metrics is a {type(metrics).__name__}; it must be a dict of name: (before, after)"
        )
    for what, text in [("data", data), *(("a name in metrics", name) for name in metrics)]:
        if not isinstance(text, str):
            raise ValueError(f"{what} is {text!r} (a {type(text).__name__}); it must be a text")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(f"{what} has half a character in it (a lone surrogate): {text!r}")
    checked: dict[str, tuple[float, ...]] = {}
    for name, pair in metrics.items():
        if not isinstance(pair, tuple | list) or len(pair) not in (2, 4):
            raise ValueError(
                f"metrics[{name!r}] is {pair!r}; it must be two shares, (before, after), or four "
                f"numbers, (before, after, low, high), with the interval of the difference"
            )
        bounds = [(0, 1), (0, 1), (-1, 1), (-1, 1)][: len(pair)]
        checked[name] = tuple(
            finite_number(f"metrics[{name!r}]", number, least=least, most=most)
            for number, (least, most) in zip(pair, bounds, strict=True)
        )
    return checked


def _base(model: ClipModel) -> tuple[str, str]:
    """The names of the model and of its weights."""
    name, _, weights = base_name(model).partition("/")
    return name, weights


def _write_folder(
    folder: Path,
    lora_model: PeftModel,
    data: str,
    metrics: Mapping[str, Sequence[float]],
    merged: bool,
) -> None:
    model: ClipModel = lora_model.get_base_model()
    config = lora_model.peft_config["default"]
    assert isinstance(config, LoraConfig)
    name, weights = _base(model)
    repository = hub_repository(name, weights)
    # No embedding is trained; left to itself, PEFT would ask the hub for the base's config.
    lora_model.save_pretrained(str(folder), save_embedding_layers=False)
    layers = [layer for layer, _ in lora_layers(lora_model)]
    _complete_config(folder / CONFIG_NAME, layers, repository)
    try:
        read_adapter(folder, lora_model)
    except ValueError as error:
        raise ValueError(f"this adapter can't be saved: {error}") from None
    card = write_card(
        name=name,
        weights=weights,
        repository=repository,
        config=config,
        layers=layers,
        trained_with=data,
        metrics=metrics,
        merged=merged,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    if merged:
        _save_merged(lora_model, folder / MERGED, name)
    if is_apples(name, weights):
        for place in (folder, folder / MERGED) if merged else (folder,):
            (place / "NOTICE").write_text(adapter_notice(name, weights), encoding="utf-8")
    write_notes(folder, base_name(model), fingerprint(lora_model), scalars(model))


def _complete_config(file: Path, layers: Sequence[str], repository: str | None) -> None:
    """Write into PEFT's file the whole names of the layers, and the base's name on the hub.

    Other programs look for the base there. PEFT matches a list by how names end, so the names are
    a pattern.
    """
    config = json.loads(file.read_text(encoding="utf-8"))
    config["target_modules"] = "|".join(map(re.escape, layers))
    if repository:
        config["base_model_name_or_path"] = repository
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _save_merged(lora_model: PeftModel, folder: Path, name: str) -> None:
    """The merged model as open_clip stores models: architecture, transform and weights."""
    folder.mkdir()
    config = open_clip.get_model_config(name)
    save_config_for_hf(lora_model.get_base_model(), folder / HF_CONFIG_NAME, config)
    state = {key: value.cpu().contiguous() for key, value in merged_state_dict(lora_model).items()}
    save_file(state, folder / HF_SAFE_WEIGHTS_NAME)


def load_adapter(
    model: ClipModel | PeftModel,
    path: str | Path,
    *,
    name: str = "default",
    trainable: bool = False,
    unchecked_base: bool = False,
) -> PeftModel:
    """Put the adapter saved in `path` on `model`, in place; it computes what the saved model did.

    One base carries several, each loaded under a `name` of its own: pass what the first call
    returned to the next. The last one that was loaded is on; its `set_adapter(name)` switches to
    another, and `with lora_model.disable_adapter():` to the base.

    With `unchecked_base`, `path` may hold an adapter that PEFT itself saved, without our
    `base_model.json`. Its layers, shapes and numbers are checked as any other's; a warning says
    what can't be.

    Raises FileNotFoundError if the folder is not a saved adapter, TypeError for anything but a
    model, and ValueError if the model has an adapter of this name, or if the one that is saved is
    damaged, was changed, was made for another base (both are named) or with another temperature
    than those that are there, or computes something else than LoRA; `model` then stays as it was.
    """
    require_model(model)
    name = adapter_name(name)
    _require_room(model, name)
    with readable(path):
        folder = find_folder(path, needs_notes=not unchecked_base)
        notes = read_notes(folder) if (folder / BASE_FILE).is_file() else None
        if notes is not None:
            require_as_saved(folder, notes)
            _check_name(model, folder, notes)
        try:
            adapter = read_adapter(folder, model)
            if notes is not None and not adapter.exact:
                raise ValueError(f"{CONFIG_NAME} has a pattern where save_adapter writes names")
        except ValueError as error:
            raise ValueError(f"the adapter in {folder} can't be loaded: {error}") from None
        if notes is not None:
            _check_weights(model, folder, notes)
            if isinstance(model, PeftModel):
                _check_scalars(model, folder, notes)
    lora_model = _put_on(model, adapter, name, trainable)
    if notes is None:
        _warn_of_unchecked(folder, adapter.exact)
    else:
        with torch.no_grad():
            for scalar in scalars(model):
                getattr(model, scalar).fill_(notes[scalar])
    return lora_model


def _warn_of_unchecked(folder: Path, exact: bool) -> None:
    layers = "" if exact else ", nor whether it has all layers that its pattern means"
    warnings.warn(
        f"{folder} has no {BASE_FILE}: which weights its adapter was trained on can't be checked"
        f"{layers}, and logit_scale stays as the base has it",
        stacklevel=3,
    )


def _check_name(model: ClipModel, folder: Path, notes: Mapping[str, Any]) -> None:
    """ValueError if the adapter was made for another base than `model`, by its name."""
    name = base_name(model)
    if notes["name"] != name:
        raise ValueError(
            f"the adapter in {folder} was made for {notes['name']!r}, not for {name!r}"
        )


def _check_weights(model: ClipModel, folder: Path, notes: Mapping[str, Any]) -> None:
    """ValueError if the base of this name had other weights. Reads all of them: the last check."""
    name, here = base_name(model), fingerprint(model)
    if notes["fingerprint"] != here:
        raise ValueError(
            f"the adapter in {folder} was made for {notes['name']!r} with other weights "
            f"(fingerprint {notes['fingerprint']}) than this {name!r} has ({here})"
        )
    if lacking := [key for key in scalars(model) if key not in notes]:
        raise ValueError(f"{folder / BASE_FILE} lacks {lacking[0]}, which this model has")


def _put_on(
    model: ClipModel | PeftModel, adapter: Adapter, name: str, trainable: bool
) -> PeftModel:
    """The step that changes `model`, after all checks."""
    settings = adapter.settings
    numbers = (settings.rank, settings.alpha, settings.dropout)
    if isinstance(model, PeftModel):
        base, adapted = model.get_base_model(), [layer for layer, _ in lora_layers(model)]
        with whole_or_not_at_all(model):
            split_attention(base)
            fuse_attention(base, keep=[*adapted, *adapter.layers])
            model.add_adapter(name, lora_config(adapter.layers, *numbers))
            model.set_adapter(name)
        lora_model = model
    else:
        lora_model = inject_lora(model, *numbers, targets=adapter.layers, name=name)
    adapter.fill(lora_model, name)
    lora_model.peft_config[name].inference_mode = not trainable
    for key, parameter in lora_model.named_parameters():
        parameter.requires_grad_(trainable and is_adapter(key) and key.endswith(f".{name}.weight"))
    return lora_model.eval()


def _require_room(model: ClipModel | PeftModel, name: str) -> None:
    """ValueError if an adapter of this name is on `model`, or adapters without PEFT's model."""
    if not isinstance(model, PeftModel):
        require_no_adapters(model)
    elif not any(lora_layers(model)):
        raise ValueError("the adapters of this model were merged; pass what merge_adapter returned")
    elif name in model.peft_config:
        raise ValueError(
            f"this model has LoRA adapters already, called {', '.join(model.peft_config)}: give "
            f"the next one another name (name='thermal'), or load a fresh model"
        )
    else:
        _require_apart(model)


def _check_scalars(lora_model: PeftModel, folder: Path, notes: Mapping[str, Any]) -> None:
    """ValueError if the adapter's scalars are not those that the model shares with its others."""
    for scalar, value in scalars(lora_model.get_base_model()).items():
        if notes[scalar] != value:
            raise ValueError(
                f"the adapter in {folder} was trained with {scalar} = {notes[scalar]:g}, and the "
                f"adapters on this model share {value:g}: load it on a model of its own"
            )


def merge_adapter(lora_model: PeftModel) -> ClipModel:
    """Add every (alpha / rank) · B A to its W, and return a plain open_clip model.

    Works in place: `lora_model` can't be used afterwards. The result's state dict loads into a
    fresh open_clip model with `strict=True`. Its outputs equal the adapted model's up to rounding.
    TypeError for anything but a model with adapters, ValueError if they were merged already, or if
    the sum is not finite; `lora_model` then stays as it was.
    """
    _require_adapters(lora_model)
    for name, weight in merged_weights(lora_model).items():
        if not torch.isfinite(weight).all():
            raise ValueError(
                f"the weight of {name} would hold NaN or infinity; these adapters can't be merged"
            )
    return _as_open_clip_has_it(lora_model.merge_and_unload(safe_merge=True))


def merged_copy(model: ClipModel) -> ClipModel:
    """A plain open_clip model that computes what `model` does now; `model` stays as it is.

    Adapters that are on are added to their W, those that are off are left out. TypeError for
    anything but a model, ValueError if a sum is not finite.
    """
    require_model(model)
    copied = copy.deepcopy(model)
    for name, layer in lora_layers(copied):
        if not (layer.merged or layer.disable_adapters):
            layer.merge()  # type: ignore[operator]  # each kind of LoraLayer has it
        base = layer.get_base_layer()
        if not torch.isfinite(base.get_parameter("weight")).all():
            raise ValueError(
                f"the weight of {name} would hold NaN or infinity; these adapters can't be merged"
            )
        copied.set_submodule(name, base)
    return _as_open_clip_has_it(copied)


def _as_open_clip_has_it(model: ClipModel) -> ClipModel:
    """`model`, on which no adapter is left, without anything that was rewritten for adapters."""
    unfold(model)
    fuse_attention(model)
    unfreeze_batch_norm(model)
    return model.eval()
