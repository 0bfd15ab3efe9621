"""Weight files: where they are, how they are read into a model, and what can be wrong with them.

Only safetensors files are read: unpickling another format can run code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from open_clip.constants import HF_SAFE_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..files import file_hash
from ..network import hub_or_cache

RANDOM = "random"
APPLE_LICENCE = (
    "Apple's weights are under Apple's research licence (AMLR): for research, not for products. "
    "Adapters made from them are derivatives and carry it on."
)
ADVICE = "Offline, load_model('nano') works."

StateDict = dict[str, torch.Tensor]


class WeightsError(RuntimeError):
    """The weights can't be loaded; the message says why and what to do."""


@dataclass(frozen=True)
class WeightsFile:
    """A safetensors file, how to get it again if it is damaged, and how it is read.

    `read(path, model)` returns a state dict with every key of `model`'s.
    """

    path: Path
    repair: str
    read: Callable[[Path, nn.Module], StateDict]

    def fill(self, model: nn.Module) -> None:
        """Load the file into `model`. Raises WeightsError if it is damaged or doesn't fit."""
        try:
            model.load_state_dict(self.read(self.path, model), strict=True)
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{self.path} is damaged ({error}). Repair: {self.repair}"
            ) from error
        except (KeyError, IndexError, RuntimeError) as error:
            raise WeightsError(
                f"{self.path} does not hold the weights of this model: it is another model's file, "
                f"or one for another version of open_clip or timm (open_clip "
                f"{open_clip.__version__} is installed). Repair: {self.repair}. {str(error)[:400]}"
            ) from error
        state = model.state_dict()
        broken = [name for name, value in state.items() if not value.isfinite().all()]
        if broken:
            raise WeightsError(
                f"{self.path} holds numbers that are NaN or infinite, in {len(broken)} of its "
                f"{len(state)} tensors ({broken[0]}, …): nothing can be computed with them. "
                f"Repair: {self.repair}"
            )


# ------------------------------------------------------------------------------------------- tags


def default_tag(name: str) -> str:
    """The first of the weights that open_clip lists for `name`; ValueError if there are none."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tags:
        raise ValueError(f"open_clip lists no weights for {name!r}; pretrained='random' builds it")
    return tags[0]


def tag_config(name: str, tag: str) -> dict[str, Any]:
    """open_clip's entry for these weights: transform and repository. ValueError if it has none."""
    if not isinstance(tag, str):
        raise TypeError(f"pretrained is {tag!r:.60}; it must be a tag of open_clip, or None")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise ValueError(f"{name!r} has no weights {tag!r}; it has: {', '.join(tags) or 'none'}")
    return open_clip.get_pretrained_cfg(name, tag)


def find_tokenizer(name: str, cache_dir: str | Path | None = None) -> open_clip.SimpleTokenizer:
    """The tokenizer: open_clip's own, or one of the hub (SigLIP). WeightsError if that is missing.

    One of the hub is an `HFTokenizer`, which is called in the same way.
    """
    repository = open_clip.get_model_config(name)["text_cfg"].get("hf_tokenizer_name")
    if not repository:
        return open_clip.get_tokenizer(name)
    unreachable: str | None = None
    try:
        with hub_or_cache(repository, "tokenizer_config.json") as unreachable:
            return open_clip.get_tokenizer(name, cache_dir=cache_dir)
    except Exception as error:
        what = f"the tokenizer of {name} ({repository} on the hub)"
        if unreachable is None:
            raise WeightsError(
                f"{what} can't be loaded: {type(error).__name__}: {str(error)[:400]}. {ADVICE}"
            ) from error
        raise WeightsError(
            f"{what} is not in the cache {cache_dir or hub_constants.HF_HUB_CACHE}, and the hub "
            f"can't be reached from here ({unreachable}). Load the model once with a network, or "
            f"copy the cache of a machine that has it. {ADVICE}"
        ) from error


def is_apples(name: str, pretrained: str) -> bool:
    """Whether these weights are under Apple's research licence."""
    return name.startswith("MobileCLIP") and pretrained != RANDOM


# -------------------------------------------------------------------------------------------- hub


def hub_repository(name: str, tag: str) -> str | None:
    """The hub repository that holds these weights, "owner/repository"; None if there is none."""
    config = open_clip.get_pretrained_cfg(name, tag) or {}
    return (config.get("hf_hub") or "").rstrip("/") or None


def hub_weights(name: str, tag: str, cache_dir: str | Path | None = None) -> WeightsFile:
    """The weights `tag` of `name`, downloaded unless they are in the cache.

    Raises ValueError for a tag that does not exist, and WeightsError if the download fails.
    """
    tag_config(name, tag)
    path = _download(name, tag, cache_dir)
    repair = f"delete {path.resolve()} and load again"
    return WeightsFile(path, repair, _read_whole)


def _read_whole(path: Path, model: nn.Module) -> StateDict:
    """The state dict in a file of the hub's cache, which calls a large file by its SHA-256."""
    name = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", name) and file_hash(path) != name:
        raise OSError("its checksum is not the one that the hub gave")
    return load_file(path)


def _download(name: str, tag: str, cache_dir: str | Path | None) -> Path:
    repository = hub_repository(name, tag)
    if not repository:
        raise WeightsError(f"the weights {name}/{tag} are not on the hub as safetensors")
    cache = _cache(cache_dir)
    get = partial(hf_hub_download, repository, HF_SAFE_WEIGHTS_NAME, cache_dir=cache)
    try:
        return Path(get(local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # the usual case of a first time
    unreachable: str | None = None
    try:
        with hub_or_cache(repository, HF_SAFE_WEIGHTS_NAME) as unreachable:
            return Path(get())  # with a progress bar of the hub's client
    except LocalEntryNotFoundError as error:
        raise WeightsError(
            f"the weights of {name} ({repository}, file {HF_SAFE_WEIGHTS_NAME}) are not in the "
            f"cache {cache}, and the hub can't be reached from here "
            f"({unreachable or error.__cause__ or 'it stopped answering'}). Load the model once "
            f"with a network, or copy the cache of a machine that has it. {ADVICE}"
        ) from error
    except EntryNotFoundError as error:
        raise WeightsError(
            f"{repository} on the hub has no {HF_SAFE_WEIGHTS_NAME}; other formats are not loaded "
            f"here, because unpickling a file can run code. {ADVICE}"
        ) from error
    except Exception as error:
        raise WeightsError(
            f"downloading {repository}/{HF_SAFE_WEIGHTS_NAME} from the hub failed: "
            f"{type(error).__name__}: {error}. {ADVICE}"
        ) from error


def _cache(cache_dir: str | Path | None) -> Path:
    """The hub cache in use. TypeError and WeightsError for a `cache_dir` that can't be one."""
    if not isinstance(cache_dir, str | Path | None) or cache_dir == "":
        raise TypeError(f"cache_dir is {cache_dir!r:.60}; it must be a folder, or None")
    cache = Path(cache_dir or hub_constants.HF_HUB_CACHE)
    if cache.exists() and not cache.is_dir():
        raise WeightsError(f"the hub cache {cache} is no folder; take another cache_dir. {ADVICE}")
    return cache
