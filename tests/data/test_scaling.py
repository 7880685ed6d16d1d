"""Random scales of images and of the maps on them."""

import pytest
import torch

from tutelage.data.augment import Augmentation
from tutelage.data.scaling import Scale
from tutelage.errors import UserError


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_a_factor_of_one_changes_nothing():
    images = torch.randint(0, 256, (2, 3, 7, 9), dtype=torch.uint8)
    whole = boxes((0, 0, 1), (0, 0, 1))
    assert torch.equal(Scale().apply(images, whole), images)
    assert torch.equal(Scale().apply_to_maps(images, whole, -1), images)


def test_twice_as_large_is_a_quarter_of_the_image():
    maps = torch.arange(64).view(1, 1, 8, 8)
    upper_left = Scale().apply_to_maps(maps, boxes((-0.5, -0.5, 0.5)), -1)
    assert torch.equal(upper_left, maps[..., :4, :4].repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_half_as_large_lies_on_black_and_is_not_learned_from_around():
    images = torch.full((1, 1, 8, 8), 200, dtype=torch.uint8)
    corner = boxes((1, 1, 2))
    assert Scale().apply(images, corner)[0, 0, 1:3, 1:3].eq(200).all()
    maps = Scale().apply_to_maps(images.long(), corner, -1)
    assert maps[0, 0, :4, :4].eq(200).all()
    assert maps[0, 0, 4:].eq(-1).all()
    assert maps[0, 0, :, 4:].eq(-1).all()


def test_factors_and_places_are_drawn_within_their_bounds():
    x, y, half = Scale(0.5, 2).sample(chance(), 4000, (8, 8)).unbind(1)
    assert (half >= 0.5).all()
    assert (half <= 2).all()
    factors = 1 / half
    assert factors.mean() == pytest.approx(1.25, abs=0.03), "uniform in the factor"
    room = (1 - half).abs()
    assert (x.abs() <= room + 1e-6).all()
    assert (y.abs() <= room + 1e-6).all()
    assert (x / room.clamp(min=1e-3)).std() == pytest.approx(3**-0.5, abs=0.05)


def test_its_text_reads_back():
    assert str(Scale()) == "scale"
    assert Augmentation.parse("scale:0.75:1.5") == Augmentation((Scale(0.75, 1.5),))
    assert str(Scale(0.75, 1.5)) == "scale:0.75:1.5"


@pytest.mark.parametrize("factors", [(0, 1), (2, 1)])
def test_impossible_factors_are_refused(factors):
    with pytest.raises(UserError, match="give factors above 0, small one first"):
        Scale(*factors)
