"""Any picture file as RGB, and two names for what is in it: its exact pixels, and its look."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

LOOK_BYTES = 56


def open_picture(source: Path | bytes) -> Image.Image:
    """The picture in a file, or in the bytes of one, as RGB: upright, transparent parts white.

    Of an animation it is the first frame. Upright means turned as its EXIF note says. Raises
    ValueError for a picture beyond Pillow's limit of pixels (`PIL.Image.MAX_IMAGE_PIXELS`, twice),
    and whatever Pillow raises for a file that is missing, truncated or no picture.
    """
    with warnings.catch_warnings():
        # Up to twice MAX_IMAGE_PIXELS Pillow only warns: a large photograph, and no attack.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
                return on_white(ImageOps.exif_transpose(picture))
        except Image.DecompressionBombError as error:
            raise ValueError(
                f"too large: {error}. Save it smaller (CLIP looks at a few hundred pixels a side), "
                f"or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            ) from error


def on_white(picture: Image.Image) -> Image.Image:
    """Any picture as RGB, transparent parts white."""
    if picture.mode.startswith("I"):  # 16-bit grey: Pillow would clip nearly all of it to white
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def digest(picture: Image.Image) -> str:
    """A name for the exact pixels: equal for two pictures if and only if all of them are."""
    return hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()


def look(picture: Image.Image) -> bytes:
    """448 bits of which a resized or re-encoded copy of an RGB picture changes but a few.

    256 bits are a difference hash: on a grid of 16×16, is the next cell to the right brighter? A
    picture with much flat ground has few such edges, and shares their absence with many others. So
    192 bits more tell the colours of a grid of 4×4: per channel, which of four levels it exceeds.
    """
    grey = np.asarray(picture.convert("L").resize((17, 16), Image.Resampling.LANCZOS))
    colours = np.asarray(picture.resize((4, 4), Image.Resampling.BOX))
    brighter = grey[:, 1:] > grey[:, :-1]
    exceeds = colours[..., None] >= np.array([51, 102, 153, 204])
    return np.packbits(np.concatenate([brighter.ravel(), exceeds.ravel()])).tobytes()
