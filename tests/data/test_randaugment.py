import math
import time
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from tutelage.data.augment import Augmentation
from tutelage.data.randaugment import MAGNITUDES, RandAugment, as_pixels
from tutelage.data.transforms import Rotate
from tutelage.errors import UserError

NAMES = list(MAGNITUDES)
SIZE = (10, 13)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=12, channels=3, size=SIZE):
    """Pictures of low and of full contrast, dark and bright."""
    noise = torch.rand(n, channels, *size, generator=chance(1))
    low, high = torch.rand(2, n, channels, 1, 1, generator=chance(2)).sort(0).values
    return (255 * (low + (high - low) * noise)).round().byte()


def views(name, magnitude, n=12):
    """Parameters of one operation, with the magnitude in each place."""
    return torch.tensor([[NAMES.index(name)] + [magnitude] * 6], dtype=torch.float32).repeat(n, 1)


def by_pil(image, name, magnitude):
    """The same operation by PIL, one image."""
    picture = Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy())
    result = {
        "identity": lambda: picture,
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "posterize": lambda: ImageOps.posterize(picture, int(magnitude)),
        "solarize": lambda: ImageOps.solarize(picture, magnitude),
        "brightness": lambda: ImageEnhance.Brightness(picture).enhance(magnitude),
        "color": lambda: ImageEnhance.Color(picture).enhance(magnitude),
        "contrast": lambda: ImageEnhance.Contrast(picture).enhance(magnitude),
        "sharpness": lambda: ImageEnhance.Sharpness(picture).enhance(magnitude),
    }[name]()
    return torch.from_numpy(np.array(result)).view(*SIZE, -1).permute(2, 0, 1)


TONES = NAMES[: NAMES.index("rotate")]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.77, 0.999])
@pytest.mark.parametrize("name", TONES)
def test_tones_are_those_of_pil(name, share, channels):
    low, high = MAGNITUDES[name]
    magnitude, batch = low + share * (high - low), images(channels=channels)
    expected = torch.stack([by_pil(image, name, magnitude) for image in batch])
    gap = (RandAugment(1).apply(batch, views(name, magnitude)).int() - expected.int()).abs()
    assert gap.max() <= 1
    # Where PIL divides in floating point, a whole result may come out as the one below.
    assert (gap > 0).float().mean() < (0.05 if name == "autocontrast" else 0.002)


@pytest.mark.parametrize("name", TONES)
def test_flat_images_stay_flat(name):
    flat = torch.tensor([0, 7, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, *SIZE).contiguous()
    changed = RandAugment(1).apply(flat, views(name, 0.5 if MAGNITUDES[name][1] < 1 else 5.0, 3))
    assert torch.equal(changed.amin((1, 2, 3)), changed.amax((1, 2, 3)))
    if name in ("identity", "autocontrast", "equalize", "color", "contrast", "sharpness"):
        assert torch.equal(changed, flat)


def test_equalize_spreads_the_tones_evenly():
    # 52 tones of five pixels each: 51 steps of 5 up to 255.
    dark = (torch.arange(260).view(1, 1, 20, 13) // 5).byte()
    assert torch.equal(RandAugment(1).apply(dark, views("equalize", 0, 1)), 5 * dark)


def test_the_smooth_image_is_a_weighted_mean():
    batch = images()
    smooth = RandAugment(1).apply(batch, views("sharpness", 0.0))
    picture = Image.fromarray(batch[0].permute(1, 2, 0).numpy()).filter(ImageFilter.SMOOTH)
    assert np.array_equal(smooth[0].permute(1, 2, 0).numpy(), np.array(picture))


def drawn(name, n=12):
    """Parameters of images that all drew one operation, with their magnitudes unknown."""
    found = [view for view in RandAugment(1).sample(chance(), 100 * n, SIZE) if view[0] == NAMES.index(name)]
    return torch.stack(found[:n])


def slow_affine(image, rows):
    """Read the image where the map leads, one pixel at a time; outside is black."""
    (xx, xy, x0), (yx, yy, y0) = rows
    channels, height, width = image.shape
    result = np.zeros((channels, height, width))
    for i in range(height):
        for j in range(width):
            x, y = j - (width - 1) / 2, i - (height - 1) / 2
            column = xx * x + xy * y + x0 * width + (width - 1) / 2
            row = yx * x + yy * y + y0 * height + (height - 1) / 2
            left, top = math.floor(column), math.floor(row)
            for r in (top, top + 1):
                for c in (left, left + 1):
                    if 0 <= r < height and 0 <= c < width:
                        result[:, i, j] += (1 - abs(column - c)) * (1 - abs(row - r)) * image[:, r, c]
    return result


@pytest.mark.parametrize("name", NAMES[NAMES.index("rotate") :])
def test_moves_equal_a_slow_loop(name):
    batch, view = images(4), drawn(name, 4)
    result = RandAugment(1).apply(batch, view)
    for image, changed, numbers in zip(batch.double().numpy(), result, view.double().numpy(), strict=True):
        expected = torch.from_numpy(slow_affine(image, numbers[1:].reshape(2, 3)))
        assert (changed - expected).abs().max() <= 0.51


def test_moves_are_what_they_are_called():
    maps = {name: drawn(name)[:, 1:].view(-1, 2, 3) for name in NAMES[NAMES.index("rotate") :]}
    cosine, sine = maps["rotate"][:, 1, 1], maps["rotate"][:, 1, 0]
    assert torch.allclose(cosine**2 + sine**2, torch.ones(12))
    assert torch.equal(maps["rotate"][:, 0, :2], torch.stack([cosine, -sine], 1))
    straight = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    for name, (row, column) in {
        "shear-x": (0, 1),
        "shear-y": (1, 0),
        "translate-x": (0, 2),
        "translate-y": (1, 2),
    }.items():
        rest = maps[name].clone()
        assert (rest[:, row, column].abs() <= 0.3).all()
        assert len(rest[:, row, column].unique()) == 12
        rest[:, row, column] = 0
        assert torch.equal(rest, straight.expand(12, 2, 3)), name


def test_rotation_turns_as_the_transform_of_that_name():
    batch, view = images(), drawn("rotate")
    expected = Rotate(30).apply(batch, torch.stack([view[:, 5], view[:, 4]], dim=1))
    assert torch.equal(RandAugment(1).apply(batch, view), expected)


def test_operations_are_drawn_alike_and_magnitudes_from_their_range():
    view = RandAugment(2).sample(chance(), 20_000, SIZE).view(-1, 7)
    number = view[:, 0].long()
    assert torch.allclose(torch.bincount(number, minlength=14) / 40_000, torch.tensor(1 / 14), atol=0.006)
    for position, name in enumerate(TONES):
        low, high = MAGNITUDES[name]
        magnitude = view[number == position, 1]
        assert low <= magnitude.min() <= low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) <= magnitude.max() <= high
        assert abs(magnitude.mean() - (low + high) / 2) <= 0.03 * (high - low)
    degrees = torch.atan2(view[:, 4], view[:, 5])[number == NAMES.index("rotate")].rad2deg()
    assert 29 < degrees.abs().max() <= 30.001


def test_operations_follow_each_other():
    batch = images()
    one, other = views("solarize", 100.0), views("brightness", 0.5)
    both = RandAugment(2).apply(batch, torch.cat([one, other], dim=1))
    assert torch.equal(both, RandAugment(1).apply(RandAugment(1).apply(batch, one), other))
    assert not torch.equal(both, RandAugment(2).apply(batch, torch.cat([other, one], dim=1)))


def test_positions_travel_to_the_device_once_an_operation(monkeypatch):
    augmentation, batch = RandAugment(2), images(64)
    view = augmentation.sample(chance(), 64, SIZE)
    monkeypatch.setattr(torch, "tensor", Mock(wraps=torch.tensor))
    augmentation.apply(batch, view)
    assert torch.tensor.call_count == 2


def test_images_that_all_stay_as_they_are():
    batch = images()
    assert torch.equal(RandAugment(1).apply(batch, views("identity", 0.0)), batch)


def test_floats_are_their_256_levels_and_images_are_not_changed_in_place():
    batch, augmentation = images(64), RandAugment(2)
    before, view = batch.clone(), augmentation.sample(chance(), 64, SIZE)
    changed = augmentation.apply(batch, view)
    assert torch.equal(batch, before)
    assert torch.equal(augmentation.apply(batch.float() / 255, view), changed.float() / 255)
    assert torch.equal(as_pixels(batch.float() / 255), batch)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_images_that_are_no_tones_are_refused(wrong):
    with pytest.raises(UserError, match="before normalisation"):
        RandAugment().apply(torch.full((1, 3, 4, 4), wrong), RandAugment().sample(chance(), 1, (4, 4)))
    with pytest.raises(UserError, match="2 channels"):
        RandAugment().apply(torch.zeros(1, 2, 4, 4), RandAugment().sample(chance(), 1, (4, 4)))


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 3)])
def test_small_images_are_changed_too(size):
    augmentation, batch = RandAugment(2), images(200, size=size)
    assert augmentation.apply(batch, augmentation.sample(chance(), 200, size)).shape == batch.shape


def test_a_batch_at_once_is_faster_than_image_by_image():
    batch, augmentation = images(64, size=(32, 32)), Augmentation.parse("randaugment:2,random-cutout")
    view = augmentation.sample(chance(), 64, (32, 32))

    def seconds(work):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def one_by_one():
        for number in range(64):
            augmentation.apply(batch[number : number + 1], view[number : number + 1])

    rounds = [(seconds(lambda: augmentation.apply(batch, view)), seconds(one_by_one)) for _ in range(5)]
    at_once, alone = (min(times) for times in zip(*rounds, strict=True))
    assert at_once < alone / 2
