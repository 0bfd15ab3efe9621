"""What the page makes of a picture is what Pillow and the model's transform make of it."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from browser import Browser
from PIL import Image, ImageDraw

import mclip_helpers as mh
from mclip_helpers.data.images import open_picture

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SIZES = [((72, 72), (64, 64)), ((301, 199), (64, 42)), ((40, 30), (96, 64)), ((500, 7), (64, 64))]
SIZES += [((64, 120), (64, 64)), ((1, 1), (5, 3)), ((640, 480), (256, 256))]


def noise(width: int, height: int) -> Image.Image:
    """The hardest picture: every pixel of its own, many of them black or white."""
    values = np.random.default_rng(0).normal(128, 120, (height, width, 3)).clip(0, 255)
    return Image.fromarray(values.astype(np.uint8))


def drawing(width: int, height: int) -> Image.Image:
    picture = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    ImageDraw.Draw(picture).ellipse((width // 5, height // 5, width // 2, height - 3), fill="teal")
    return picture


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def page_view(page: Browser, file: bytes) -> np.ndarray:
    """(3, H, W) in 0…1: what the page gives the model for a file, without the normalisation."""
    numbers = page.run(
        """
        const { readPicture } = await import("./pictures.js");
        const { normalised } = await import("./pixels.js");
        const view = model.view(await readPicture(blob(data)));
        const plain = { mean: [0, 0, 0], std: [1, 1, 1] };
        return { size: [3, view.height, view.width], values: [...normalised(view, plain)] };
        """,
        data=base64.b64encode(file).decode(),
    )
    return np.array(numbers["values"], dtype=np.float32).reshape(numbers["size"])


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_resize_is_pillows(
    page: Browser, size: tuple[int, int], wanted: tuple[int, int], interpolation: str
) -> None:
    picture = noise(*size)
    found = page.run(
        """
        const { resize } = await import("./pixels.js");
        const data = Uint8ClampedArray.from(atob(pixels), (letter) => letter.charCodeAt(0));
        const picture = { data, width: size[0], height: size[1] };
        return [...resize(picture, ...wanted, interpolation).data];
        """,
        pixels=base64.b64encode(picture.convert("RGBA").tobytes()).decode(),
        size=size,
        wanted=wanted,
        interpolation=interpolation,
    )
    expected = picture.resize(wanted, FILTERS[interpolation]).convert("RGBA")
    assert bytes(found) == expected.tobytes()


@pytest.mark.parametrize("size", [(72, 72), (301, 199), (199, 301), (97, 64), (64, 97), (40, 30)])
def test_view_is_the_transforms(page: Browser, size: tuple[int, int]) -> None:
    for picture in (noise(*size), drawing(*size)):
        expected = mh.load_model("nano", device="cpu").preprocess(picture).numpy()
        assert np.allclose(page_view(page, encoded(picture)), expected, atol=1e-6)


@pytest.mark.parametrize(
    "transform",
    [
        {"image_size": [32, 32], "resize_mode": "squash", "interpolation": "bilinear"},
        {"image_size": [48, 48], "resize_mode": "shortest", "interpolation": "bilinear"},
    ],
)
def test_other_transforms(page: Browser, transform: dict) -> None:
    from mclip_helpers.export.folder import transform_of

    picture = noise(131, 83)
    mean, std = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
    found = page.run(
        """
        const { modelView, normalised } = await import("./pixels.js");
        const { readPicture } = await import("./pictures.js");
        const picture = await readPicture(blob(data));
        return [...normalised(modelView(picture, transform), transform)];
        """,
        data=base64.b64encode(encoded(picture)).decode(),
        transform={**transform, "mean": mean, "std": std},
    )
    expected = transform_of({**transform, "mean": mean, "std": std})(picture)
    assert np.allclose(found, expected.flatten().numpy(), atol=1e-5)


def test_transparent_is_white(page: Browser) -> None:
    picture = mh.draw_emoji(next(e for e in mh.emoji_catalogue() if e.en == "guitar"), "twemoji")
    assert picture.mode == "RGBA"
    expected = mh.load_model("nano", device="cpu").preprocess(mh.on_white(picture)).numpy()
    # A canvas keeps colours multiplied by their opacity, which rounds once more.
    assert np.abs(page_view(page, encoded(picture)) - expected).max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(page: Browser, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(drawing(160, 120), "JPEG", exif=exif, quality=95)
    expected = mh.load_model("nano", device="cpu").preprocess(open_picture(file)).numpy()
    # Decoders of JPEG may round differently.
    assert np.abs(page_view(page, file) - expected).max() <= 2 / 255


def test_unreadable_file(page: Browser) -> None:
    said = page.run(
        """
        const { readPicture } = await import("./pictures.js");
        return readPicture(new Blob(["no picture"])).catch((error) => error.message);
        """
    )
    assert "can’t read that file as a picture" in said


def test_unknown_transforms_are_refused(page: Browser) -> None:
    said = page.run(
        """
        const { modelView, resize } = await import("./pixels.js");
        const picture = new ImageData(9, 9);
        const other = { image_size: [8, 8], resize_mode: "longest", interpolation: "bicubic" };
        const messages = [];
        const attempts = [() => modelView(picture, other), () => resize(picture, 4, 4, "box")];
        for (const attempt of attempts) {
          try { attempt(); } catch (error) { messages.push(error.message); }
        }
        return messages;
        """
    )
    assert len(said) == 2 and "longest" in said[0] and "box" in said[1]
