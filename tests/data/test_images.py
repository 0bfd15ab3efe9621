"""Any kind of picture as RGB, and the digest of its pixels."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mclip_helpers.data import images
from mclip_helpers.data.images import digest, on_white, open_picture

WHITE, RED = (255, 255, 255), (255, 0, 0)


def opened(tmp_path: Path, picture: Image.Image, name: str = "a.png", **options) -> Image.Image:
    """`picture` after it was saved and opened again: as a file, and as the bytes of it."""
    path = tmp_path / name
    picture.save(path, **options)
    back = open_picture(path)
    assert back.mode == "RGB"
    assert open_picture(path.read_bytes()).tobytes() == back.tobytes()
    return back


# EXIF's number for how the stored picture must be turned → how the camera turned the scene.
TURNED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_a_photograph_that_says_how_it_was_held_comes_upright(tmp_path, orientation):
    upright = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    stored = np.ascontiguousarray(TURNED[orientation](upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = opened(tmp_path, Image.fromarray(stored), exif=exif)
    assert np.array_equal(np.asarray(back), upright)


def test_transparent_parts_become_white_and_half_transparent_ones_mix(tmp_path):
    picture = Image.new("RGBA", (3, 1))
    for x, colour in enumerate([(0, 0, 0, 0), (255, 0, 0, 128), (0, 0, 255, 255)]):
        picture.putpixel((x, 0), colour)
    back = opened(tmp_path, picture)
    assert back.getpixel((0, 0)) == WHITE
    assert back.getpixel((1, 0)) == pytest.approx((255, 127, 127), abs=1)
    assert back.getpixel((2, 0)) == (0, 0, 255)


def test_half_transparent_noise_is_composed_as_pillow_does_it_however_tall_it_is():
    bands = [Image.effect_noise((3, 1300), 80) for _ in "RGBA"]
    picture = Image.merge("RGBA", bands)
    white = Image.new("RGBA", picture.size, "white")
    whole = Image.alpha_composite(white, picture).convert("RGB")
    assert on_white(picture).tobytes() == whole.tobytes()


def test_every_value_of_16_bits_is_its_higher_byte():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    grey = np.asarray(on_white(Image.fromarray(values)))
    assert np.array_equal(grey, np.repeat((values >> 8)[..., None], 3, axis=2))


def test_grey_with_transparency_becomes_rgb_on_white(tmp_path):
    picture = Image.new("LA", (2, 1), (40, 255))
    picture.putpixel((1, 0), (40, 0))
    back = opened(tmp_path, picture)
    assert [back.getpixel((x, 0)) for x in (0, 1)] == [(40, 40, 40), WHITE]


def palette_picture() -> Image.Image:
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    return picture


def test_a_palette_becomes_its_colours(tmp_path):
    back = opened(tmp_path, palette_picture())
    assert [back.getpixel((x, 0)) for x in (0, 1)] == [RED, (0, 0, 255)]


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_the_transparent_colour_of_a_palette_becomes_white(tmp_path, name):
    back = opened(tmp_path, palette_picture(), name, transparency=1)
    assert [back.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


@pytest.mark.parametrize(("mode", "transparent"), [("RGB", RED), ("L", 76)])
def test_a_colour_that_stands_for_transparency_becomes_white(tmp_path, mode, transparent):
    picture = Image.new(mode, (2, 1), transparent)
    picture.putpixel((1, 0), 0 if mode == "L" else (0, 0, 0))
    back = opened(tmp_path, picture, transparency=transparent)
    assert [back.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (0, 0, 0)]


@pytest.mark.parametrize(
    ("mode", "colour", "name", "expected"),
    [
        ("L", 40, "a.png", (40, 40, 40)),
        ("1", 1, "a.png", WHITE),
        ("1", 0, "a.png", (0, 0, 0)),
        ("CMYK", (0, 255, 255, 0), "a.tif", RED),
        ("CMYK", (0, 0, 0, 0), "a.tif", WHITE),
        ("I;16", 40 * 256, "a.png", (40, 40, 40)),
        ("I;16", 65535, "a.png", WHITE),
    ],
)
def test_other_kinds_of_picture_become_the_same_colours_in_rgb(
    tmp_path, mode, colour, name, expected
):
    assert opened(tmp_path, Image.new(mode, (4, 4), colour), name).getpixel((1, 1)) == expected


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_becomes_rgb_in_any_format(tmp_path, name):
    back = opened(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), name)
    assert back.getpixel((4, 4)) == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_an_animation_gives_its_first_frame(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 0, 255), WHITE)]
    lossless = {"lossless": True} if name == "a.webp" else {}
    back = opened(
        tmp_path, frames[0], name, save_all=True, append_images=frames[1:], duration=100, **lossless
    )
    with Image.open(tmp_path / name) as picture:
        assert picture.n_frames == 3
    assert back.getpixel((4, 4)) == RED


# ---------------------------------------------------------------------------- large and broken ones


def test_between_pillows_warning_and_its_limit_a_jpeg_comes_at_half_its_size_and_no_other(
    tmp_path, monkeypatch, recwarn
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    monkeypatch.setattr(images, "ENOUGH", 5)
    back = opened(tmp_path, Image.new("RGB", (30, 10), RED), "a.jpg")
    assert back.size == (15, 5)
    assert back.getpixel((7, 2)) == pytest.approx(RED, abs=3)
    assert list(recwarn) == []
    with pytest.warns(Image.DecompressionBombWarning):  # elsewhere Pillow goes on to warn
        Image.open(tmp_path / "a.jpg").close()
    Image.new("RGB", (30, 10)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"too large: .*30 × 10 pixels, and only a JPEG .* 200"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("size", "read"),
    [((1023, 900), (1023, 900)), ((1300, 1024), (650, 512)), ((4096, 5000), (512, 625))],
)
def test_a_large_jpeg_is_read_at_the_smallest_form_that_is_large_enough(tmp_path, size, read):
    gradient = Image.radial_gradient("L").convert("RGB").resize(size)
    assert opened(tmp_path, gradient, "a.jpg", quality=95).size == read
    assert opened(tmp_path, gradient, "a.png", compress_level=0).size == size


def test_the_smaller_form_of_a_jpeg_gives_nearly_the_pixels_that_the_model_would_have_seen(
    tmp_path,
):
    """Both are made 256 pixels wide, as a transform does it."""
    noise = Image.effect_noise((300, 300), 60).convert("RGB").resize((2400, 2400), Image.BICUBIC)
    noise.save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as full:
        expected = np.asarray(full.convert("RGB").resize((256, 256), Image.BICUBIC), float)
    small = open_picture(tmp_path / "a.jpg")
    assert small.size == (600, 600)
    apart = np.asarray(small.resize((256, 256), Image.BICUBIC), float) - expected
    assert np.abs(apart).mean() < 2  # of 255
    assert expected.std() > 20


def test_a_picture_beyond_the_limit_is_refused_with_its_size_and_what_to_do(tmp_path, monkeypatch):
    Image.new("RGB", (25, 10)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"too large: .*250 pixels.*200 pixels.*Save it smaller"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.tif"])
def test_a_truncated_picture_is_an_error_and_not_half_a_picture(tmp_path, name):
    path = tmp_path / name
    Image.effect_noise((200, 200), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((OSError, SyntaxError, EOFError, ValueError)):
        open_picture(path)


def test_the_file_is_closed_afterwards_so_that_windows_can_delete_it(tmp_path, recwarn):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    open_picture(tmp_path / "a.png")
    gc.collect()
    assert [w for w in recwarn if issubclass(w.category, ResourceWarning)] == []


# ------------------------------------------------------------------------------------------ digest


def test_a_digest_is_equal_for_equal_pixels_alone():
    red = Image.new("RGB", (4, 6), RED)
    other = red.copy()
    assert digest(red) == digest(other)
    other.putpixel((3, 5), (254, 0, 0))
    assert digest(red) != digest(other)
    assert digest(red) != digest(Image.new("RGB", (6, 4), RED)), "as many pixels of the same colour"


def test_a_digest_is_that_of_the_whole_picture_however_tall_it_is():
    noise = Image.effect_noise((3, 1300), 80).convert("RGB")
    whole = repr(noise.size).encode() + noise.tobytes()
    assert digest(noise) == hashlib.sha256(whole).hexdigest()
