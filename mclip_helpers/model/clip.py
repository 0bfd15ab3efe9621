"""Loading a MobileCLIP together with everything that belongs to it.

`load_model("nano")` gives the small model that comes with this project; `load_model(
"MobileCLIP2-S0")` and its relatives give Apple's, through open_clip. Both are made of the same
classes of timm and open_clip. Weights are never random unless asked for by that word.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
import torch
from PIL import Image
from torch import nn

from .compute import Compute, choose_compute
from .nano import NANO, nano_weights
from .weights import RANDOM, WeightsFile, default_tag, find_tokenizer, hub_weights, tag_config

ClipModel: TypeAlias = "open_clip.CLIP | open_clip.CustomTextCLIP"

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}  # a transform that leaves colours in 0…1


@dataclass
class Clip:
    """A model with the transform, the tokenizer and the names that belong to it.

    `preprocess` turns an RGB picture into a tensor (3, H, W); `tokenizer` turns a list of N texts
    into token ids (N, context). `pretrained` names the weights. `compute` holds the device and the
    precision of training. `str()` describes all of it in one line.
    """

    model: ClipModel
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: open_clip.SimpleTokenizer
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
        size = self.model.visual.image_size
        return (size, size) if isinstance(size, int) else tuple(size)

    @torch.no_grad()
    def encode_images(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """Unit vectors (N, D) of RGB pictures. TypeError for one picture that is in no list."""
        if isinstance(pictures, Image.Image):
            raise TypeError("this is one picture; pass a list of pictures: [picture]")
        images = torch.stack([self.preprocess(picture) for picture in pictures])
        return self.model.encode_image(images.to(self.device), normalize=True)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors (N, D) of texts. TypeError for one text that is in no list."""
        if isinstance(texts, str):
            raise TypeError(f"this is one text, {texts[:60]!r}; pass a list of texts: [text]")
        return self.model.encode_text(self.tokenizer(list(texts)).to(self.device), normalize=True)

    def unknown_tokens(self, text: str) -> list[str]:
        """The pieces of `text` that these weights have no embedding for: its row is all zeros.

        Empty for models trained on the open web; `nano` knows some 1,500 of its 49,408 tokens.
        """
        # The text tower of a plain CLIP is the model itself.
        table = getattr(self.model, "text", self.model).token_embedding.weight
        ids = [i for i in self.tokenizer([text])[0].tolist() if i and not table[i].any()]
        pieces, unfinished = [], []
        for token in ids:
            unfinished.append(token)
            piece = self.tokenizer.decode(unfinished).strip()
            if "\ufffd" not in piece:  # else the token ends inside a letter: the next one goes on
                pieces.append(piece)
                unfinished = []
        return pieces + [self.tokenizer.decode([token]).strip() for token in unfinished]


def require_clip(value: object) -> None:
    """Raise TypeError, with the right call, unless `value` is a `Clip` or can stand for one."""
    if isinstance(value, nn.Module):
        raise TypeError(
            f"this is a model ({type(value).__name__}); pass the Clip that load_model returned: it "
            f"has the transform and the tokenizer, too"
        )
    if not all(hasattr(value, part) for part in ("model", "encode_images", "encode_texts")):
        raise TypeError(f"this is a {type(value).__name__}; pass the Clip that load_model returns")


def require_model(value: object) -> None:
    """Raise TypeError, with the right call, unless `value` is a model."""
    if isinstance(value, Clip):
        raise TypeError("this is a Clip; pass its model: clip.model")
    if not isinstance(value, nn.Module):
        raise TypeError(f"this is a {type(value).__name__}; pass clip.model")


def mobileclip_names() -> list[str]:
    """`nano` and every MobileCLIP that the installed open_clip lists."""
    return [NANO, *(n for n in open_clip.list_models() if n.startswith("MobileCLIP"))]


def base_name(model: nn.Module) -> str:
    """Model and weights, "name/weights", as `load_model` notes them; "unnamed" without such a note.

    An adapter belongs to the base of this name.
    """
    return getattr(model, "name_or_path", "unnamed")


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
    untrained model. `device`: None for the best one. `cache_dir`: a hub cache other than the usual.

    Raises TypeError for a name or tag that is no string, ValueError for one that does not exist or
    a device that is not there, and WeightsError if the weights or the tokenizer can't be
    downloaded, or if weights are not safetensors, are damaged, or don't fit the model.
    """
    _require_names(name, pretrained)
    if name not in open_clip.list_models():
        raise ValueError(_unknown_name(name))
    if pretrained is None:
        pretrained = NANO if name == NANO else default_tag(name)
    compute = choose_compute(device)
    # What may be missing comes first: building a large model takes long.
    weights = None if pretrained == RANDOM else _find_weights(name, pretrained, cache_dir)
    tokenizer = find_tokenizer(name, cache_dir)
    model, preprocess = _build(name, _transform_config(name, pretrained))
    if weights is not None:
        weights.fill(model)
    model.name_or_path = f"{name}/{pretrained}"  # `base_name`; PEFT notes it in an adapter's config
    model = _place(model, compute.device).eval()
    return Clip(model, preprocess, tokenizer, name, pretrained, compute)


def _require_names(name: object, pretrained: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"this is a {type(name).__name__}; pass a model's name, as in 'nano'")
    if not isinstance(pretrained, str | None):
        raise TypeError(
            f"pretrained is a {type(pretrained).__name__}; it must be the tag of some weights, "
            f"{RANDOM!r}, or None for the first of the tags"
        )


def _unknown_name(name: str) -> str:
    by_lower = {known.lower(): known for known in mobileclip_names()}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    guess = f" Did you mean {by_lower[close[0]]!r}?" if close else ""
    return (
        f"there is no model {name!r}.{guess} The MobileCLIPs of open_clip "
        f"{open_clip.__version__}: {', '.join(mobileclip_names())}. ('nano' works offline.)"
    )


def _find_weights(name: str, pretrained: str, cache_dir: str | Path | None) -> WeightsFile:
    return nano_weights(pretrained) if name == NANO else hub_weights(name, pretrained, cache_dir)


def _transform_config(name: str, pretrained: str) -> Mapping[str, Any]:
    """What open_clip notes about the transform; a random model gets that of the default weights."""
    if not open_clip.list_pretrained_tags_by_model(name):
        return PLAIN
    return tag_config(name, default_tag(name) if pretrained == RANDOM else pretrained)


@contextmanager
def _without_random_weights_warning() -> Iterator[None]:
    """open_clip warns of random weights whenever it builds a model that is filled afterwards."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _build(name: str, transform: Mapping[str, Any]) -> tuple[ClipModel, Callable]:
    """The architecture with random weights, and the transform for evaluation."""
    with _without_random_weights_warning():
        model, _, preprocess = open_clip.create_model_and_transforms(
            name,
            image_mean=transform.get("mean"),
            image_std=transform.get("std"),
            image_interpolation=transform.get("interpolation"),
            image_resize_mode=transform.get("resize_mode"),
        )
    return model, preprocess


def _place(model: ClipModel, device: torch.device) -> ClipModel:
    """To `device`, in the layout in which convolutions run about twice as fast (channels_last).

    Strided 1×1 convolutions stay contiguous on a CPU: in channels_last, torch 2.15 writes beyond
    its memory when it computes the weight gradient of one with few input channels (the stem has
    one). Seen to crash with 3 and 4 channels, at 64 pixels and more, depending on the processor.
    """
    model = model.to(device, memory_format=torch.channels_last)
    if device.type == "cpu":
        for m in model.modules():
            if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1):
                m.to(memory_format=torch.contiguous_format)
    if device.type == "cuda":
        # Models are compared to the rounding of fp32; with TF32, cuDNN rounds to 10 bits.
        torch.backends.cudnn.allow_tf32 = False
    return model
