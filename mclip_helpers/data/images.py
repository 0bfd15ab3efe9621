"""Any picture file as RGB, and a digest of its pixels.

Files come from anywhere. So what opens one is chosen here and not by its bytes, and how much time
and memory it may take is known before it is decoded.
"""

from __future__ import annotations

import hashlib
import io
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps

# What photographs and drawings come in. Pillow would open some forty formats: one starts another
# program (EPS), and most of the decoders are old and little used. MPO is JPEG with more pictures.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# How many times as long as wide, or as wide as long, a picture may be. CLIP's transform makes the
# shorter side a few hundred pixels and keeps the shape: 1 × 16,000 would become 256 × 4,096,000.
MAX_RATIO = 50

# A JPEG can be decoded at a half, a quarter or an eighth of its size, which takes a fraction of the
# time. The shorter side keeps at least so many pixels: twice what any MobileCLIP sees.
ENOUGH = 512

STRIP = 512  # rows

SMALLER = (
    "Save it smaller (CLIP sees a few hundred pixels a side), or raise PIL.Image.MAX_IMAGE_PIXELS "
    "if you trust it"
)

# How files begin that are often taken for pictures, beside those that Pillow can tell.
OTHER_FILES = {
    b"%PDF": "PDF",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
    b"{\\rtf": "RTF",
    b"version https://git-lfs": "a pointer of Git LFS (run: git lfs pull)",
}
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

# The modes whose numbers do not say which colour they are.
UNKNOWN_COLOURS = {
    "I": "its values are 32-bit whole numbers, and nothing says which of them are black and white",
    "F": "its values are floating-point numbers, and nothing says which are black and white",
    "LAB": "its colours are in CIELAB",
}


def open_picture(source: Path | bytes) -> Image.Image:
    """The picture in a file, or in the bytes of one, as RGB.

    It is turned upright by its EXIF orientation, transparent parts become white, and of an
    animation or a multi-page file it is the first frame. Colour profiles are not applied. A large
    JPEG is read at the half, quarter or eighth of its width and height that leaves at least ENOUGH
    pixels a side.

    Raises FileNotFoundError for a missing file, and ValueError, in one sentence, for everything
    else: no regular file, a format that is not one of FORMATS, a truncated or broken file, a shape
    beyond MAX_RATIO, more than `PIL.Image.MAX_IMAGE_PIXELS` (89 million; twice as many in a JPEG),
    and values whose colour is not known (`on_white`).
    """
    with _stream(source) as stream:
        name = _format(stream)
        with _pillows_errors_as_one(name):
            picture = _opened(stream, name)
        with picture:
            picture.draft(None, (ENOUGH, ENOUGH))  # JPEG alone has such a form
            _check_size(picture)
            _check_grey(picture)
            with _pillows_errors_as_one(name):
                ImageOps.exif_transpose(picture, in_place=True)
            return on_white(picture)


def on_white(picture: Image.Image) -> Image.Image:
    """The picture as RGB, with white behind its transparent parts. The original stays as it is.

    16-bit grey is scaled to 8 bits. Raises TypeError for anything but a picture of Pillow, and
    ValueError for one of 32-bit numbers, of floats or in CIELAB: what is black there is not known.
    """
    if not isinstance(picture, Image.Image):
        raise TypeError(
            f"this is a {type(picture).__name__}, and not a picture of Pillow; open a file with "
            f"PIL.Image.open(path), or make a picture of an array with PIL.Image.fromarray(array)"
        )
    if picture.mode in UNKNOWN_COLOURS:
        raise ValueError(f"{UNKNOWN_COLOURS[picture.mode]}; save it as RGB with 8 bits a channel")
    if picture.mode.startswith("I;16"):
        return _from_16_bits(picture)
    if picture.mode in ("RGBa", "La"):  # colours that are multiplied by their opacity already
        picture = picture.convert(picture.mode.upper())
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        flat = Image.new("RGB", picture.size)
        for top, strip in _strips(picture):
            white = Image.new("RGBA", strip.size, "white")
            flat.paste(Image.alpha_composite(white, strip.convert("RGBA")).convert("RGB"), (0, top))
        return flat
    return picture.convert("RGB")


def digest(picture: Image.Image) -> str:
    """SHA-256 of size and pixels: two RGB pictures have the same one only if they are identical."""
    pixels = hashlib.sha256(repr(picture.size).encode())
    for _, strip in _strips(picture):
        pixels.update(strip.tobytes())
    return pixels.hexdigest()


def _strips(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The picture in strips, each with its first row: what is made of one takes little memory."""
    width, height = picture.size
    for top in range(0, height, STRIP):
        yield top, picture.crop((0, top, width, min(top + STRIP, height)))


def _stream(source: Path | bytes) -> BinaryIO:
    """The file, open. ValueError unless it is a regular one: to open a pipe would wait for ever."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        kind = kind_of_file(source.stat().st_mode)
        if kind is None:
            return open(source, "rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"it can't be opened: {error.strerror or error}") from error
    raise ValueError(f"it is {kind}, and not a file")


def kind_of_file(mode: int) -> str | None:
    """What is at a path whose `stat` has this mode, if it is not a regular file."""
    if stat.S_ISREG(mode):
        return None
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _format(stream: BinaryIO) -> str:
    """Which of FORMATS a file has, by its first bytes. ValueError names any other."""
    head = stream.read(32)
    stream.seek(0)
    Image.init()
    for name in FORMATS:
        if _begins_as(name, head):
            return name
    raise ValueError(f"{_what_it_is(head)}; {', '.join(FORMATS)} can be read")


def _begins_as(name: str, head: bytes) -> bool:
    """Whether a file that begins so is of a format of Pillow; reads nothing else of it."""
    _, accept = Image.OPEN.get(name, (None, None))
    return bool(accept and accept(head[:16].ljust(16, b"\0")))  # 16 are what Pillow gives it


def _what_it_is(head: bytes) -> str:
    if not head:
        return "the file is empty"
    known = [kind for start, kind in OTHER_FILES.items() if head.startswith(start)]
    known += [name for name in Image.OPEN if _begins_as(name, head)]
    if head[4:8] == b"ftyp":
        known.insert(0, "HEIC" if head[8:12] in HEIF_BRANDS else "a video")
    elif head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        known.insert(0, "HTML, SVG or another kind of XML")
    elif not known and head.isascii() and b"\0" not in head:
        known.append("text")
    return f"what it holds is {known[0]}" if known else "its first bytes are those of no picture"


@contextmanager
def _pillows_errors_as_one(name: str) -> Iterator[None]:
    """Pillow's errors, which are of many types, as ValueError."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large: {error}. {SMALLER}") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"it begins as {name}, and is broken or of a kind that Pillow can't read"
        ) from error
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


# Python's filters of warnings are one list for all threads.
_filtering = threading.Lock()


def _opened(stream: BinaryIO, name: str) -> ImageFile.ImageFile:
    """The picture, not yet decoded. Pillow does not warn of its size: `_check_size` decides."""
    with _filtering, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(stream, formats=[name])


def _check_size(picture: ImageFile.ImageFile) -> None:
    """ValueError for a shape or a size that would cost too much."""
    width, height = picture.size
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ValueError(
            f"too narrow: it has {width} × {height} pixels, and one side may be at most "
            f"{MAX_RATIO} times as long as the other; cut it into pieces"
        )
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and width * height > most:
        raise ValueError(
            f"too large: it has {width} × {height} pixels, and only a JPEG may have more than "
            f"{most:,}. {SMALLER}"
        )


def _check_grey(picture: ImageFile.ImageFile) -> None:
    """ValueError for two kinds of TIFF that Pillow gives as 16-bit grey, and that are not."""
    tags = getattr(picture, "tag_v2", {})
    if picture.mode.startswith("I;16") and (tags.get(258) == (12,) or tags.get(262) == 0):
        kind = "12 bits" if tags.get(258) == (12,) else "16 bits, 0 for white"
        raise ValueError(f"it is a TIFF of {kind}; save it with 8 bits a channel")


def _from_16_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture.convert("I"))
    if 0 < values.max() < 256:
        raise ValueError(
            f"it would be all black: of its 16 bits, which reach to 65,535, the largest value is "
            f"{values.max()}; scale it, or save it with 8 bits a channel"
        )
    grey = (values >> 8).astype(np.uint8)
    if "transparency" in picture.info:
        grey[values == picture.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")
