"""Random tones."""

import numpy as np
import pytest
import torch

from tutelage.data.tones import Colour
from tutelage.errors import UserError


def slow(image, brightness, contrast, saturation):
    """The three changes of one image of uint8, pixel by pixel."""
    found = np.zeros(image.shape)
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            pixel = [(float(value) * brightness - 127.5) * contrast + 127.5 for value in image[:, row, column]]
            if len(pixel) == 3:
                grey = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
                pixel = [(value - grey) * saturation + grey for value in pixel]
            found[:, row, column] = [min(255, max(0, value)) for value in pixel]
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_tones_equal_a_slow_loop(channels):
    images = torch.randint(0, 256, (3, channels, 4, 5), dtype=torch.uint8)
    factors = Colour(0.4).sample(torch.Generator().manual_seed(0), 3, (4, 5))
    found = Colour(0.4).apply(images, factors)
    for image, row, expected in zip(found, factors.tolist(), images, strict=True):
        assert np.abs(image.numpy() - slow(expected.numpy(), *row)).max() <= 0.51
    floats = Colour(0.4).apply(images / 255, factors)
    assert (floats * 255 - found).abs().max() <= 0.51
    assert floats.dtype == torch.float32


def test_factors_of_one_change_nothing_and_maps_never_change():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    assert torch.equal(Colour().apply(images, torch.ones(2, 3)), images)
    maps = torch.randint(0, 9, (2, 1, 4, 5))
    assert Colour().apply_to_maps(maps, torch.full((2, 3), 0.5), -1) is maps


def test_factors_are_drawn_around_one():
    drawn = Colour(0.3).sample(torch.Generator().manual_seed(0), 3000, (4, 5))
    assert drawn.min() >= 0.7
    assert drawn.max() <= 1.3
    assert drawn.mean() == pytest.approx(1.0, abs=0.01)
    assert str(Colour()) == "colour"
    assert str(Colour(0.5)) == "colour:0.5"
    with pytest.raises(UserError, match="more than 0 and at most 1"):
        Colour(2)
