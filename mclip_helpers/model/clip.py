"""Loading a MobileCLIP together with everything that belongs to it.

`load_model("nano")` gives the small model that this project carries; `load_model("MobileCLIP2-S0")`
and its relatives give Apple's, through open_clip. Both are the same classes of timm and open_clip.
Weights come from safetensors files alone, and are never random unless asked for by that word.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import open_clip
import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from open_clip.constants import HF_SAFE_WEIGHTS_NAME
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import build_model_with_cfg, register_model
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from torch import nn

from ..files import data_folder
from .compute import Compute, choose_compute

NANO = "nano"
RANDOM = "random"
PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}  # a transform that leaves colours at 0…1
APPLE_LICENCE = (
    "Apple's weights are under Apple's research licence (AMLR): for research, not for products. "
    "Adapters made from them are derivatives and carry it on."
)


class WeightsError(RuntimeError):
    """The weights that were asked for can't be had; the message says why and what to do."""


@dataclass
class Clip:
    """A model with the transform, the tokenizer and the names that belong to it.

    `preprocess` turns an RGB picture into a tensor (3, H, W); `tokenizer` turns a list of N texts
    into token numbers (N, context). `pretrained` names the weights. `compute` says on what and in
    which precision training runs. `str()` says all of it in one line.
    """

    model: nn.Module
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    name: str
    pretrained: str
    compute: Compute

    def __str__(self) -> str:
        height, width = self.image_size
        return f"{self.name}, weights {self.pretrained!r}, {height}×{width} pixels · {self.compute}"

    @property
    def device(self) -> torch.device:
        return self.model.logit_scale.device

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels, of what `preprocess` gives."""
        return image_size(self.model)

    @torch.no_grad()
    def encode_images(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """Unit vectors (N, D) of RGB pictures."""
        images = torch.stack([self.preprocess(picture) for picture in pictures])
        return self.model.encode_image(images.to(self.device), normalize=True)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors (N, D) of texts."""
        return self.model.encode_text(self.tokenizer(list(texts)).to(self.device), normalize=True)

    def unknown_tokens(self, text: str) -> list[str]:
        """The pieces of `text` that these weights never saw in training: all zeros in the table.

        Empty for models trained on the open web; `nano` knows some 1,500 of its 49,408 tokens.
        """
        table = self.model.text.token_embedding.weight
        numbers = [n for n in self.tokenizer([text])[0].tolist() if n and not table[n].any()]
        pieces, part = [], []
        for n in numbers:
            part.append(n)
            piece = self.tokenizer.decode(part).strip()
            if "\ufffd" not in piece:  # else a part of a letter: it goes on in the next token
                pieces.append(piece)
                part = []
        return pieces + [self.tokenizer.decode([n]).strip() for n in part]


def image_size(model: nn.Module) -> tuple[int, int]:
    """Height and width, in pixels, of the pictures that an open_clip model takes."""
    size = model.visual.image_size
    return (size, size) if isinstance(size, int) else tuple(size)


# ------------------------------------------------------------------------------------------ nano


@register_model
def mclip_helpers_nano(pretrained: bool = False, **kwargs) -> FastVit:
    """The image tower of `nano`: MobileCLIP-S0's (`fastvit_mci0` in timm), narrow and shallow."""
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


def _nano_state(path: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    """`model`'s whole state dict from the compact file that data/train_nano.py wrote.

    The file is in half precision, and of the token table it holds only the rows that training
    has seen; the others become zero. Batch norm's counters of batches are not kept.
    """
    stored = load_file(path)
    rows = stored.pop("text.token_embedding.rows").long()
    state = {k: v.float() if v.is_floating_point() else v for k, v in stored.items()}
    table = torch.zeros_like(model.text.token_embedding.weight)
    table[rows] = state["text.token_embedding.weight"]
    state["text.token_embedding.weight"] = table
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros_like(value)
    return state


# --------------------------------------------------------------------------------------- loading


def mobileclip_names() -> list[str]:
    """`nano` and every MobileCLIP that the installed open_clip lists."""
    return [NANO, *(n for n in open_clip.list_models() if n.startswith("MobileCLIP"))]


def load_model(
    name: str = NANO,
    *,
    pretrained: str | None = None,
    device: str | torch.device | None = None,
    cache_dir: str | Path | None = None,
) -> Clip:
    """Load `name` with its weights, transform and tokenizer, ready for inference (`eval`).

    `name`: "nano", or a MobileCLIP of open_clip ("MobileCLIP2-S0", …; other open_clip models work
    too). `pretrained`: a tag of open_clip, None for the first one listed, or "random" for an
    untrained model. `device`: None for the best one. `cache_dir`: another hub cache than the usual.

    Raises ValueError for a name or tag that does not exist, and WeightsError where the weights
    can't be reached, are not safetensors, are damaged, or don't fit the model.
    """
    if name not in open_clip.list_models():
        raise ValueError(_unknown(name))
    if pretrained == RANDOM:
        tags = open_clip.list_pretrained_tags_by_model(name)
        model, preprocess = _build(name, _tag_config(name, tags[0]) if tags else PLAIN)
    elif name == NANO:
        if pretrained not in (None, NANO):
            raise ValueError(f"nano has no weights {pretrained!r}; leave `pretrained` out")
        pretrained = NANO
        model, preprocess = _build(name, PLAIN)
        path = data_folder() / f"{NANO}.safetensors"
        if not path.exists():
            raise WeightsError(f"{path} is missing; get it back with: git checkout {path}")
        _fill(model, path, lambda: _nano_state(path, model), f"git checkout {path}")
    else:
        pretrained = pretrained or _first_tag(name)
        path = _download(name, pretrained, cache_dir)  # first: building a large model takes long
        model, preprocess = _build(name, _tag_config(name, pretrained))
        _fill(model, path, lambda: load_file(path), f"delete {path.resolve()} and load again")
    # PEFT notes this as the base of every adapter made from the model.
    model.name_or_path = f"{name}/{pretrained}"
    compute = choose_compute(device)
    model = _place(model, compute.device).eval()
    return Clip(model, preprocess, open_clip.get_tokenizer(name), name, pretrained, compute)


def _place(model: nn.Module, device: torch.device) -> nn.Module:
    """To `device`, in the layout in which convolutions run about twice as fast (channels_last).

    Except strided 1×1 convolutions on a CPU: with torch 2.15, the weight gradient of one with few
    input channels (the stem has it) writes beyond its memory in this layout. Seen to crash with 3
    and 4 channels, at 64 pixels and more, depending on the processor.
    """
    model = model.to(device, memory_format=torch.channels_last)
    if device.type == "cpu":
        for m in model.modules():
            if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1):
                m.to(memory_format=torch.contiguous_format)
    if device.type == "cuda":
        # Models are compared here to the rounding of fp32; cuDNN would round to 10 bits (TF32).
        torch.backends.cudnn.allow_tf32 = False
    return model


def _unknown(name: str) -> str:
    by_lower = {known.lower(): known for known in mobileclip_names()}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    guess = f" Did you mean {by_lower[close[0]]!r}?" if close else ""
    return (
        f"there is no model {name!r}.{guess} The MobileCLIPs of open_clip "
        f"{open_clip.__version__}: {', '.join(mobileclip_names())}. ('nano' works offline.)"
    )


def _first_tag(name: str) -> str:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tags:
        raise ValueError(f"open_clip lists no weights for {name!r}; pretrained='random' builds it")
    return tags[0]


def _tag_config(name: str, tag: str) -> dict:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise ValueError(f"{name!r} has no weights {tag!r}; it has: {', '.join(tags) or 'none'}")
    return open_clip.get_pretrained_cfg(name, tag)


@contextmanager
def _without_warnings_about_random_weights() -> Iterator[None]:
    """open_clip warns of random weights, rightly, before ours are filled in."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _build(name: str, transform: dict) -> tuple[nn.Module, Callable]:
    """The architecture with random weights, and the transform for evaluation."""
    with _without_warnings_about_random_weights():
        model, _, preprocess = open_clip.create_model_and_transforms(
            name,
            image_mean=transform.get("mean"),
            image_std=transform.get("std"),
            image_interpolation=transform.get("interpolation"),
            image_resize_mode=transform.get("resize_mode"),
        )
    return model, preprocess


def hub_repository(name: str, tag: str) -> str | None:
    """Where the hub has the weights `tag` of `name`: "owner/repository", or None if it has not."""
    config = open_clip.get_pretrained_cfg(name, tag) or {}
    return (config.get("hf_hub") or "").rstrip("/") or None


def _download(name: str, tag: str, cache_dir: str | Path | None) -> Path:
    _tag_config(name, tag)  # refuses a tag that does not exist
    repo = hub_repository(name, tag)
    if not repo:
        raise WeightsError(f"the weights {name}/{tag} are not on the hub as safetensors")
    cache = cache_dir or hub_constants.HF_HUB_CACHE
    try:
        return Path(hf_hub_download(repo, HF_SAFE_WEIGHTS_NAME, cache_dir=cache_dir))
    except LocalEntryNotFoundError as error:
        raise WeightsError(
            f"the weights of {name} ({repo}, file {HF_SAFE_WEIGHTS_NAME}) are not in the cache "
            f"{cache}, and the hub can't be reached from here. Load the model once with a network, "
            f"or copy the cache of a machine that has it. Offline, load_model('nano') works."
        ) from error
    except EntryNotFoundError as error:
        raise WeightsError(
            f"{repo} on the hub has no {HF_SAFE_WEIGHTS_NAME}; other formats are not loaded here, "
            f"because unpickling a file can run code. Offline, load_model('nano') works."
        ) from error
    except Exception as error:
        raise WeightsError(
            f"the hub did not give {repo}/{HF_SAFE_WEIGHTS_NAME}: {type(error).__name__}: {error}. "
            f"Offline, load_model('nano') works."
        ) from error


def _fill(
    model: nn.Module, path: Path, read: Callable[[], dict[str, torch.Tensor]], cure: str
) -> None:
    """Load what `read` gives, every key of it and no other, into `model`."""
    try:
        model.load_state_dict(read(), strict=True)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({error}). To mend it: {cure}") from error
    except (KeyError, IndexError, RuntimeError) as error:
        raise WeightsError(
            f"{path} does not hold the weights of this model: it is another model's file, or made "
            f"for another version of open_clip or timm (here: open_clip {open_clip.__version__}). "
            f"To mend it: {cure}. {str(error)[:400]}"
        ) from error
