"""Jitter: what it may move, and what colour comes in from outside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine, to_tensor

from mclip_helpers.data import Jitter
from mclip_helpers.data.augment import moved


def square(background: tuple[int, int, int]) -> Image.Image:
    """A red square in the middle of a background."""
    picture = Image.new("RGB", (40, 40), background)
    picture.paste((255, 0, 0), (10, 10, 30, 30))
    return picture


@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), (20, 90, 200)])
def test_corners_take_the_colour_of_the_border(background):
    torch.manual_seed(0)
    for _ in range(20):
        moved = Jitter(degrees=40, translate=0.2, scale=(0.5, 0.8))(square(background))
        assert moved.size == (40, 40)
        corners = np.asarray(moved)[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners == background).all()


def test_nothing_moves_where_nothing_may():
    still = Jitter(degrees=0, translate=0, scale=(1, 1))
    assert still(square((0, 0, 0))).tobytes() == square((0, 0, 0)).tobytes()


def test_pytorchs_generator_decides():
    def moved(seed: int) -> bytes:
        torch.manual_seed(seed)
        return Jitter()(square((0, 0, 0))).tobytes()

    assert moved(0) == moved(0) != moved(1)


# ---------------------------------------------------------------------------------- whole batches


def smooth(height: int, width: int) -> torch.Tensor:
    return to_tensor(Image.radial_gradient("L").crop((20, 60, 220, 200)).resize((width, height)))


@pytest.mark.parametrize(("height", "width"), [(48, 48), (40, 64)])
@pytest.mark.parametrize(
    ("degrees", "translate", "scale"),
    [
        (0, (0, 0), 1),
        (25, (0, 0), 1),
        (0, (0.25, -0.125), 1),
        (0, (0, 0), 0.7),
        (-10, (0.125, 0.25), 1.2),
    ],
)
def test_a_batch_is_moved_as_torchvision_moves_it(height, width, degrees, translate, scale):
    """The angle, the shift and the scale mean the same."""
    shift = [round(translate[0] * width), round(translate[1] * height)]

    def theirs(image: torch.Tensor) -> torch.Tensor:
        bilinear = InterpolationMode.BILINEAR
        return affine(image, degrees, shift, scale, [0.0], interpolation=bilinear)

    image = smooth(height, width).expand(3, -1, -1)
    ours = moved(
        torch.stack([image] * 2),
        torch.tensor([degrees, 0.0]),
        torch.tensor([translate, (0.0, 0.0)]),
        torch.tensor([scale, 1.0]),
    )
    inside = theirs(torch.ones_like(image)) > 0.999  # where nothing of what lies outside comes in
    assert inside.float().mean() > 0.4
    assert (ours[0] - theirs(image))[inside].abs().max() < 0.01
    assert torch.allclose(ours[1], image, atol=1e-5)


@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), (20, 90, 200)])
def test_each_image_of_a_batch_is_moved_otherwise_and_keeps_its_background(background):
    torch.manual_seed(0)
    images = torch.stack([to_tensor(square(background))] * 6)
    result = Jitter(degrees=40, translate=0.2, scale=(0.5, 0.8)).batch(images)
    assert result.shape == images.shape and result.dtype == images.dtype
    assert len({image.numpy().tobytes() for image in result}) == 6
    corners = result[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert torch.allclose(corners, images[:, :, :1, 0].expand_as(corners), atol=1e-5)


def test_a_batch_depends_on_pytorchs_generator_alone_and_stays_as_it_is():
    images = torch.stack([to_tensor(square((9, 9, 9)))] * 3)
    before = images.clone()

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return Jitter().batch(images)

    assert torch.equal(drawn(0), drawn(0)) and not torch.equal(drawn(0), drawn(1))
    assert torch.equal(images, before)
