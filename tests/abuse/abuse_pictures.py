"""Promises about pictures: what is opened, what it may cost, and that no colour is guessed."""

from __future__ import annotations

import functools
import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cases import Case
from PIL import Image

import mclip_helpers as mh

WHITE, GREY, RED = (255, 255, 255), (40, 40, 40), (255, 0, 0)


def beside_a_good_one(data: bytes | Callable[[], bytes], name: str) -> Callable[[Path], Path]:
    """A folder with a good picture in row 1, and a file of these bytes in row 2."""

    def prepare(folder: Path) -> Path:
        Image.new("RGB", (8, 8), RED).save(folder / "good.png")
        (folder / name).write_bytes(data if isinstance(data, bytes) else data())
        rows = f"file_name,text\ngood.png,a good picture\n{name},the other one\n"
        (folder / "metadata.csv").write_text(rows, encoding="utf-8")
        return folder

    return prepare


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(name: str, data: bytes | Callable[[], bytes], *says: str, file: str = "x.jpg") -> Case:
    """The folder is refused, and row 2 is named with what is wrong with its file."""
    return Case(
        name,
        prepare=beside_a_good_one(data, file),
        does=mh.folder_dataset,
        refused=mh.DataError,
        says=("1 problem in", f"row 2: {file}: not a readable picture", *says),
        keeps=lambda folder: sorted(os.listdir(folder)),
    )


def opened(
    name: str, data: bytes | Callable[[], bytes], colour: tuple[int, int, int], file: str = "x.jpg"
) -> Case:
    """The folder loads, and the picture of row 2 has this colour at its top left, nearly."""

    def holds(_: Path, dataset: mh.PictureDataset) -> bool:
        picture, _ = dataset[1]
        pixel = picture.getpixel((0, 0))
        return picture.mode == "RGB" and np.allclose(pixel, colour, atol=4)

    return Case(name, beside_a_good_one(data, file), mh.folder_dataset, holds=holds)


# ----------------------------------------------------------------------- formats, whatever the name


class Ghostscript:
    """A program of this name that leaves a note when it is started."""

    def __init__(self, folder: Path):
        beside_a_good_one(saved(Image.new("RGB", (8, 8), RED), "EPS"), "x.jpg")(folder)
        self.folder, self.note = folder, folder / "started"
        for program in ("gs", "gswin32c", "gswin64c"):
            (folder / program).write_text(f"#!/bin/sh\ntouch '{self.note}'\nexit 1\n")
            (folder / program).chmod(0o755)

    def load(self) -> None:
        from PIL import EpsImagePlugin

        path, EpsImagePlugin.gs_binary = os.environ["PATH"], None
        os.environ["PATH"] = f"{self.folder}{os.pathsep}{path}"
        try:
            mh.folder_dataset(self.folder)
        finally:
            os.environ["PATH"], EpsImagePlugin.gs_binary = path, None


BRANDS = b"\0\0\0\x18ftyp%s\0\0\0\0" + bytes(64)
NO_FORMATS_OF_OURS = {  # what → (its bytes, what it is called)
    "an EPS": (lambda: saved(Image.new("RGB", (8, 8)), "EPS"), "EPS"),
    "a PDF": (lambda: saved(Image.new("RGB", (8, 8)), "PDF"), "PDF"),
    "a JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64), "JPEG2000"),
    "a PSD": (b"8BPS\0\1" + bytes(64), "PSD"),
    "an icon": (lambda: saved(Image.new("RGB", (16, 16)), "ICO"), "ICO"),
    "a PPM": (lambda: saved(Image.new("RGB", (8, 8)), "PPM"), "PPM"),
    "a PCX": (lambda: saved(Image.new("RGB", (8, 8)), "PCX"), "PCX"),
    "an SGI": (lambda: saved(Image.new("RGB", (8, 8)), "SGI"), "SGI"),
    "a DDS": (lambda: saved(Image.new("RGB", (8, 8)), "DDS"), "DDS"),
    "a QOI": (b"qoif" + bytes(64), "QOI"),
    "a WMF": (b"\xd7\xcd\xc6\x9a\0\0" + bytes(64), "WMF"),
    "a FITS": (b"SIMPLE  =" + bytes(64), "FITS"),
    "a HEIC": (BRANDS % b"heic", "HEIC"),
    "a video": (BRANDS % b"isom", "a video"),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "a web page": (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
    "a ZIP": (b"PK\x03\x04" + bytes(64), "ZIP"),
    "a text": (b"not a picture at all, but a text", "text"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "nothing": (b"", "empty"),
    "one byte": (b"x", "text"),
    "zeros": (bytes(500), "no picture"),
    "noise": (bytes(range(200, 255)), "no picture"),
}
FORMATS = [
    Case(
        "a .jpg that is EPS starts no Ghostscript",
        prepare=Ghostscript,
        does=Ghostscript.load,
        refused=mh.DataError,
        says=("row 2: x.jpg", "EPS"),
        keeps=lambda scene: scene.note.exists(),
    ),
    *(
        refused(f"a .jpg that is {what} is refused by name", data, called)
        for what, (data, called) in NO_FORMATS_OF_OURS.items()
    ),
    *(
        opened(
            f"a {kind} is opened, whatever its suffix says",
            functools.partial(saved, Image.new("RGB", (8, 8), RED), kind),
            RED,
            "x.gif" if kind != "GIF" else "x.png",
        )
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
    ),
]

# ------------------------------------------------------------------------------------- broken files


def noise(kind: str) -> bytes:
    return saved(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), "u1")), kind
    )


def png_chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)


def png(*chunks: tuple[bytes, bytes], width: int = 8, height: int = 8) -> bytes:
    """An all-black PNG (grey, 8 bits) with further chunks; its pixels are there as they must."""
    header = width.to_bytes(4) + height.to_bytes(4) + b"\x08\0\0\0\0"
    pixels = zlib.compress(bytes((width + 1) * height))
    every = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in every)


BOMB = zlib.compress(bytes(80_000_000))
BROKEN = [
    *(
        refused(f"a {kind} that was cut off after {share:.0%} is refused", cut)
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
        for share in (0.1, 0.5, 0.9)
        for cut in [lambda kind=kind, share=share: noise(kind)[: int(len(noise(kind)) * share)]]
    ),
    refused("a JPEG of nothing but its mark is refused", b"\xff\xd8\xff", "begins as JPEG"),
    refused("a PNG of nothing but its mark is refused", b"\x89PNG\r\n\x1a\n", "begins as PNG"),
    refused("a TIFF of nothing but its mark is refused", b"II*\0" + bytes(40), "TIFF"),
    refused("a PNG with a bomb in its text is refused", lambda: png((b"zTXt", b"a\0\0" + BOMB))),
    refused("a PNG with a bomb in its profile is refused", lambda: png((b"iCCP", b"a\0\0" + BOMB))),
    opened(
        "a colour profile of nonsense is left alone",
        lambda: saved(Image.new("RGB", (8, 8), RED), "JPEG", icc_profile=b"nonsense"),
        RED,
    ),
]

# ----------------------------------------------------------------------------------- size and shape


def sized(width: int, height: int) -> bytes:
    """The first bytes of a PNG that claims this size."""
    header = width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\0\0\0"
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(10)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + pixels


def blank_gif(width: int, height: int) -> bytes:
    data = bytearray(saved(Image.new("P", (1, 1)), "GIF"))
    data[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return bytes(data)


def large_jpeg() -> bytes:
    return saved(Image.new("L", (11_000, 9_000), 40), "JPEG")


SIZES = [
    Case(
        "a JPEG of 99 million pixels is read at an eighth of its width and height",
        prepare=beside_a_good_one(large_jpeg, "x.jpg"),
        does=lambda folder: mh.folder_dataset(folder)[1][0],
        holds=lambda _, picture: picture.size == (1375, 1125) and picture.getpixel((9, 9)) == GREY,
    ),
    *(
        refused(f"a picture of {width:,} × {height:,} pixels is refused", data, "too large")
        for width, height in ((13_000, 13_000), (9_500, 9_500), (30_000, 30_000), (2**31 - 1,) * 2)
        for data in [sized(width, height)]
    ),
    refused(
        "a GIF of 65,535 × 65,535 pixels in 50 bytes is refused",
        blank_gif(65_535, 65_535),
        "too large",
    ),
    *(
        refused(
            f"a picture of {w:,} × {h:,} pixels is refused",
            lambda w=w, h=h: png(width=w, height=h),
            "too narrow",
            "50",
        )
        for w, h in ((1, 16_000), (16_000, 1), (1, 51), (204, 4), (3, 1_000))
    ),
    *(
        opened(
            f"a picture of {w:,} × {h:,} pixels is read",
            lambda w=w, h=h: png(width=w, height=h),
            (0, 0, 0),
        )
        for w, h in ((1, 1), (1, 50), (50, 1), (200, 4), (2_000, 40))
    ),
]

# ------------------------------------------------------------------------------------------ colours


def tiff(mode: str, value, **options) -> Callable[[], bytes]:
    return lambda: saved(Image.new(mode, (8, 8), value), "TIFF", **options)


def tagged(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with one 16-bit tag of it overwritten."""
    entry = data.index(tag.to_bytes(2, "little") + b"\x03\0")
    return data[: entry + 8] + value.to_bytes(2, "little") + data[entry + 10 :]


def sixteen(value: int) -> bytes:
    return saved(Image.new("I;16", (8, 8), value), "TIFF")


ORIENTATION = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0%s\0\0\0\0"

COLOURS = [
    refused(
        "a TIFF of floats from 0 to 1 is not black in silence", tiff("F", 0.5), "floating-point"
    ),
    refused("a TIFF of floats from 0 to 255 is refused, too", tiff("F", 128.0), "floating-point"),
    refused("a TIFF of NaN is refused", tiff("F", float("nan")), "floating-point"),
    refused("a TIFF of 32-bit numbers is not white in silence", tiff("I", 2**30), "32-bit"),
    refused("a TIFF of small 32-bit numbers is not black", tiff("I", 100), "32-bit"),
    refused(
        "a TIFF of signed 16-bit numbers is refused",
        lambda: tagged(saved(Image.new("I", (8, 8), 9), "TIFF"), 258, 16),
        "32-bit",
    ),
    refused("a TIFF in CIELAB is not read as something else", tiff("LAB", (50, 9, 9)), "CIELAB"),
    refused("a TIFF of 12 bits is not black", lambda: tagged(sixteen(4095), 258, 12), "12 bits"),
    refused(
        "16 bits where 0 is white are not inverted",
        lambda: tagged(sixteen(9_999), 262, 0),
        "0 for white",
    ),
    refused("16 bits with 8 bits in them are not black", lambda: sixteen(200), "all black", "200"),
    opened("16 bits that are black are black", lambda: sixteen(0), (0, 0, 0)),
    opened("16 bits become 8", lambda: sixteen(40 * 256), GREY),
    opened(
        "16 bits in a PNG become 8", lambda: saved(Image.new("I;16", (8, 8), 40 * 256), "PNG"), GREY
    ),
    opened("16 bits big-endian become 8", tiff("I;16B", 40 * 256), GREY),
    opened(
        "the transparent value of 16 bits is white",
        lambda: saved(Image.new("I;16", (8, 8), 300), "PNG", transparency=300),
        WHITE,
    ),
    opened("CMYK is read", tiff("CMYK", (0, 255, 255, 0)), RED),
    opened(
        "the inverted CMYK of Adobe is read",
        lambda: saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"),
        RED,
    ),
    opened("YCbCr is read", tiff("YCbCr", (76, 85, 255)), RED),
    opened("black and white is read", tiff("1", 1), WHITE),
    opened("grey is read", tiff("L", 40), GREY),
    opened("grey with transparency is read", tiff("LA", (0, 0)), WHITE),
    opened("RGB with transparency is read", tiff("RGBA", (0, 0, 0, 0)), WHITE),
    opened(
        "a palette is read", lambda: saved(Image.new("RGB", (8, 8), RED).quantize(4), "PNG"), RED
    ),
    opened(
        "a palette with transparency is read",
        lambda: saved(Image.new("P", (8, 8), 0), "GIF", transparency=0),
        WHITE,
    ),
    opened(
        "of many frames the first is read",
        lambda: saved(
            Image.new("RGB", (8, 8), RED),
            "GIF",
            save_all=True,
            append_images=[Image.new("RGB", (8, 8), (0, i, 255)) for i in range(200)],
        ),
        RED,
    ),
    opened(
        "of the pictures of a camera with two lenses (MPO) the first is read",
        lambda: saved(
            Image.new("RGB", (8, 8), RED),
            "MPO",
            save_all=True,
            append_images=[Image.new("RGB", (8, 8))],
        ),
        RED,
    ),
    opened(
        "of many pages the first is read",
        lambda: saved(
            Image.new("RGB", (8, 8), RED),
            "TIFF",
            save_all=True,
            append_images=[Image.new("RGB", (9, 9))] * 3,
        ),
        RED,
    ),
    *(
        opened(
            f"EXIF of {what} is left alone",
            lambda exif=exif: saved(Image.new("RGB", (8, 8), RED), "JPEG", exif=b"Exif\0\0" + exif),
            RED,
        )
        for what, exif in {
            "nonsense": b"nonsense",
            "nothing": b"",
            "a header only": b"II*\0\xff\xff\xff\xff",
            "an orientation in letters": ORIENTATION % b"\2\0\0\0\4abc\0",
            "the orientation 9": ORIENTATION % b"\3\0\0\0\1\0\x09\0\0",
            "an endless orientation": ORIENTATION % b"\3\x7f\xff\xff\xff\0\6\0\0",
        }.items()
    ),
]

# -------------------------------------------------------------------------------------- mh.on_white

NO_PICTURES = {
    "a path": "a.png",
    "a Path": Path("a.png"),
    "bytes": b"a.png",
    "an array": np.zeros((4, 4, 3), np.uint8),
    "None": None,
    "a list of pictures": [Image.new("RGB", (4, 4))],
    "a class": Image.Image,
}
ON_WHITE = [
    *(
        Case(
            f"on_white of {what} says what it takes",
            prepare=lambda _, value=value: value,
            does=mh.on_white,
            refused=TypeError,
            says=("not a picture of Pillow", "PIL.Image.open", "fromarray"),
        )
        for what, value in NO_PICTURES.items()
    ),
    *(
        Case(
            f"on_white of a picture in the mode {mode} says that its colours are not known",
            prepare=lambda _, mode=mode: Image.new(mode, (4, 4)),
            does=mh.on_white,
            refused=ValueError,
            says=("8 bits a channel",),
            keeps=lambda picture: (picture.mode, picture.tobytes()),
        )
        for mode in ("I", "F", "LAB")
    ),
    *(
        Case(
            f"on_white of {mode} of {value} is RGB, and the picture stays as it was",
            prepare=lambda _, mode=mode, value=value: Image.new(mode, (2, 700), value),
            does=mh.on_white,
            holds=lambda _, white, colour=colour: (
                white.mode == "RGB" and white.getcolors() == [(1400, colour)]
            ),
            keeps=lambda picture: (picture.mode, picture.tobytes()),
        )
        for mode, value, colour in (
            ("1", 1, WHITE),
            ("L", 40, GREY),
            ("LA", (40, 255), GREY),
            ("LA", (40, 0), WHITE),
            ("La", (40, 255), GREY),
            ("La", (0, 0), WHITE),
            ("P", 0, (0, 0, 0)),
            ("PA", (0, 0), WHITE),
            ("RGB", RED, RED),
            ("RGBX", (*RED, 0), RED),
            ("RGBA", (*RED, 255), RED),
            ("RGBA", (*RED, 0), WHITE),
            ("RGBa", (*RED, 255), RED),
            ("RGBa", (0, 0, 0, 0), WHITE),
            ("CMYK", (0, 255, 255, 0), RED),
            ("HSV", (0, 255, 255), RED),
            ("I;16", 40 * 256, GREY),
            ("I;16B", 40 * 256, GREY),
            ("I;16L", 40 * 256, GREY),
            ("I;16", 65535, WHITE),
        )
    ),
]

CASES = FORMATS + BROKEN + SIZES + COLOURS + ON_WHITE
