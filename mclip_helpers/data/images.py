"""Any picture file as RGB, and a digest of its pixels."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps


def open_picture(source: Path | bytes) -> Image.Image:
    """The picture in a file, or in the bytes of one, as RGB.

    It is turned upright by its EXIF orientation, transparent parts become white, and of an
    animation it is the first frame. Raises ValueError for a picture of more than twice
    `PIL.Image.MAX_IMAGE_PIXELS`, where Pillow refuses it, and what Pillow raises for a file that is
    missing, truncated or not a picture.
    """
    with warnings.catch_warnings():
        # Up to twice MAX_IMAGE_PIXELS Pillow only warns; that is a large photograph, not an attack.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
                return on_white(ImageOps.exif_transpose(picture))
        except Image.DecompressionBombError as error:
            raise ValueError(
                f"too large: {error}. Save it smaller (CLIP sees a few hundred pixels a side), "
                f"or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            ) from error


def on_white(picture: Image.Image) -> Image.Image:
    """The picture as RGB, with white behind its transparent parts."""
    if picture.mode.startswith("I"):  # 16-bit grey: Pillow would clip nearly all of it to white
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def digest(picture: Image.Image) -> str:
    """SHA-256 of size and pixels: two RGB pictures have the same one only if they are identical."""
    return hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()
