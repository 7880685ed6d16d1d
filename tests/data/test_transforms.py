import math
import time

import numpy as np
import pytest
import torch

from tutelage.data.augment import Augmentation
from tutelage.data.randaugment import RandAugment
from tutelage.data.transforms import Crop, Cutout, Flip, RandomCutout, ResizedCrop, Rotate
from tutelage.errors import UserError

ALL = [Crop(4), Flip(), Rotate(30), ResizedCrop(), Cutout(5), RandomCutout(), RandAugment(2)]


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, channels=3, height=10, width=13, dtype=torch.uint8):
    pixels = torch.randint(1, 256, (n, channels, height, width), generator=chance(1), dtype=torch.uint8)
    return pixels if dtype == torch.uint8 else pixels.to(dtype) / 255


def slow_crop(image, row, column, padding):
    _, height, width = image.shape
    result = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            y, x = i + row - padding, j + column - padding
            if 0 <= y < height and 0 <= x < width:
                result[:, i, j] = image[:, y, x]
    return result


def slow_cutout(image, row, column, size, colour=0):
    result = image.copy()
    for i in range(image.shape[1]):
        for j in range(image.shape[2]):
            if 0 <= i - (row - size // 2) < size and 0 <= j - (column - size // 2) < size:
                result[:, i, j] = colour
    return result


def slow_bilinear(image, x, y):
    """Read one image at fractional pixel positions; outside is black."""
    channels, height, width = image.shape
    result = np.zeros((channels, *x.shape))
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            left, top = math.floor(x[i, j]), math.floor(y[i, j])
            for row in (top, top + 1):
                for column in (left, left + 1):
                    if 0 <= row < height and 0 <= column < width:
                        share = (1 - abs(x[i, j] - column)) * (1 - abs(y[i, j] - row))
                        result[:, i, j] += share * image[:, row, column]
    return result


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_equals_a_slow_loop(dtype, channels):
    batch, transform = images(40, channels, dtype=dtype), Crop(3)
    view = transform.sample(chance(), 40, (10, 13))
    expected = [slow_crop(image.numpy(), int(row), int(column), 3) for image, (row, column) in zip(batch, view)]
    assert torch.equal(transform.apply(batch, view), torch.from_numpy(np.stack(expected)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_flip_equals_a_slow_loop(dtype):
    batch, view = images(40, dtype=dtype), Flip().sample(chance(), 40, (10, 13))
    expected = [image.numpy()[:, :, ::-1] if flipped else image.numpy() for image, (flipped,) in zip(batch, view)]
    assert torch.equal(Flip().apply(batch, view), torch.from_numpy(np.stack(expected)))


@pytest.mark.parametrize("size", [1, 4, 5, 40])
def test_cutout_equals_a_slow_loop(size):
    batch, transform = images(40), Cutout(size)
    view = transform.sample(chance(), 40, (10, 13))
    expected = [slow_cutout(image.numpy(), int(row), int(column), size) for image, (row, column) in zip(batch, view)]
    assert torch.equal(transform.apply(batch, view), torch.from_numpy(np.stack(expected)))


@pytest.mark.parametrize(("channels", "colour"), [(3, (125, 123, 114)), (1, (123,)), (4, (123,))])
def test_random_cutout_equals_a_slow_loop(channels, colour):
    batch, transform = images(40, channels), RandomCutout(0.9)
    view = transform.sample(chance(), 40, (10, 13))
    expected = np.stack([slow_cutout(image.numpy(), *map(int, square), colour) for image, square in zip(batch, view)])
    assert torch.equal(transform.apply(batch, view), torch.from_numpy(expected))
    floats = transform.apply(batch.float() / 255, view)
    torch.testing.assert_close(floats, torch.from_numpy(expected) / 255, rtol=0, atol=1e-7)


@pytest.mark.parametrize("transform", [Rotate(40), Rotate(180)])
def test_rotate_equals_a_slow_loop(transform):
    batch = images(5, dtype=torch.float32)
    view = transform.sample(chance(), 5, (10, 13))
    rows, columns = np.meshgrid(np.arange(10) - 4.5, np.arange(13) - 6.0, indexing="ij")
    expected = [
        slow_bilinear(image.numpy(), c * columns - s * rows + 6.0, s * columns + c * rows + 4.5)
        for image, (c, s) in zip(batch, view.double().numpy())
    ]
    torch.testing.assert_close(
        transform.apply(batch, view).double(), torch.from_numpy(np.stack(expected)), atol=1e-4, rtol=0
    )


def test_resized_crop_equals_a_slow_loop():
    batch, transform = images(5, dtype=torch.float32), ResizedCrop((0.1, 0.5))
    view = transform.sample(chance(), 5, (10, 13))
    expected = []
    for image, (centre_x, centre_y, half_x, half_y) in zip(batch, view.double().numpy()):
        x = np.clip(((2 * np.arange(13) + 1) / 13 - 1) * half_x * 6.5 + centre_x * 6.5 + 6.0, 0, 12)
        y = np.clip(((2 * np.arange(10) + 1) / 10 - 1) * half_y * 5.0 + centre_y * 5.0 + 4.5, 0, 9)
        x, y = np.meshgrid(x, y)
        expected.append(slow_bilinear(image.numpy(), x, y))
    torch.testing.assert_close(
        transform.apply(batch, view).double(), torch.from_numpy(np.stack(expected)), atol=1e-4, rtol=0
    )


def angle(degrees, n=6):
    radians = math.radians(degrees)
    return torch.tensor([[math.cos(radians), math.sin(radians)]]).repeat(n, 1)


def test_rotate_by_nothing_changes_nothing():
    assert torch.equal(Rotate().apply(images(), angle(0)), images())


def test_rotate_by_a_right_angle_is_a_permutation_counter_clockwise():
    batch = images(height=9, width=9)
    assert torch.equal(Rotate().apply(batch, angle(90)), batch.rot90(1, (-2, -1)))
    assert torch.equal(Rotate().apply(batch, angle(180)), batch.rot90(2, (-2, -1)))


def test_rotating_back_restores_a_smooth_image():
    height = width = 33
    y, x = torch.meshgrid(torch.linspace(-2, 2, height), torch.linspace(-2, 2, width), indexing="ij")
    smooth = torch.exp(-(x**2) - 2 * y**2)[None, None]
    there = Rotate().apply(smooth, angle(20, 1))
    assert (there - smooth).abs().max() > 0.05
    torch.testing.assert_close(Rotate().apply(there, angle(-20, 1)), smooth, atol=0.02, rtol=0)


def test_resized_crop_of_everything_changes_nothing():
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(6, 1)
    assert torch.equal(ResizedCrop().apply(images(), whole), images())


@pytest.mark.parametrize("transform", ALL, ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_do_not_depend_on_the_batch(transform, dtype, layout):
    batch = images(33, height=32, width=32, dtype=dtype).contiguous(memory_format=layout)
    view = transform.sample(chance(), 33, (32, 32))
    together = transform.apply(batch, view)
    assert together.dtype == dtype
    alone = torch.cat([transform.apply(batch[i : i + 1], view[i : i + 1]) for i in range(33)])
    assert torch.equal(together, alone)
    order = torch.randperm(33)[:17]
    assert torch.equal(together[order], transform.apply(batch[order], view[order]))


@pytest.mark.parametrize("transform", ALL, ids=str)
def test_the_generator_alone_decides(transform):
    first = transform.sample(chance(3), 9, (8, 8))
    assert first.shape == (9, transform.width)
    assert first.dtype == torch.float32
    torch.rand(5)
    assert torch.equal(first, transform.sample(chance(3), 9, (8, 8)))
    assert not torch.equal(first, transform.sample(chance(4), 9, (8, 8)))


@pytest.mark.parametrize("transform", ALL, ids=str)
def test_no_images_give_no_images(transform):
    view = transform.sample(chance(), 0, (8, 8))
    assert transform.apply(torch.empty(0, 3, 8, 8), view).shape == (0, 3, 8, 8)


def test_draws_are_spread_as_they_should_be():
    n = 20_000
    corners = Crop(4).sample(chance(), n, (32, 32))
    assert torch.allclose(torch.bincount(corners[:, 0].long(), minlength=9) / n, torch.tensor(1 / 9), atol=0.01)
    assert torch.allclose(torch.bincount(corners[:, 1].long(), minlength=9) / n, torch.tensor(1 / 9), atol=0.01)
    assert abs(Flip().sample(chance(), n, (32, 32)).mean() - 0.5) < 0.02
    assert abs(Flip(0.2).sample(chance(), n, (32, 32)).mean() - 0.2) < 0.02
    cosine, sine = Rotate(15).sample(chance(), n, (32, 32)).unbind(1)
    degrees = torch.atan2(sine, cosine).rad2deg()
    assert degrees.abs().max() <= 15
    assert abs(degrees.std() - 30 / math.sqrt(12)) < 0.2
    x, y, half_x, half_y = ResizedCrop((0.25, 1.0)).sample(chance(), n, (32, 32)).unbind(1)
    assert ((x.abs() + half_x) <= 1 + 1e-6).all()
    assert ((y.abs() + half_y) <= 1 + 1e-6).all()
    assert 0.55 < (half_x * half_y).mean() < 0.63
    centres = Cutout(8).sample(chance(), n, (16, 32))
    assert centres.amax(0).tolist() == [15, 31]
    assert abs(centres[:, 0].mean() - 7.5) < 0.1
    *corner, side = RandomCutout(0.5).sample(chance(), n, (16, 32)).unbind(1)
    assert [values.max() for values in corner] == [15, 31]
    assert torch.equal(side.unique(), torch.arange(9))
    assert abs(side.mean() - 4) < 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Crop(0),
        lambda: Flip(1.5),
        lambda: Rotate(0),
        lambda: Rotate(200),
        lambda: ResizedCrop((0.5, 0.2)),
        lambda: ResizedCrop(ratio=(2, 1)),
        lambda: Cutout(0),
        lambda: RandomCutout(0.0),
        lambda: RandomCutout(1.5),
        lambda: RandAugment(0),
    ],
)
def test_senseless_numbers_are_refused(make):
    with pytest.raises(UserError):
        make()


def test_crop_and_flip_of_a_batch_take_milliseconds():
    batch, augmentation = images(128, 3, 32, 32), Augmentation((Crop(4), Flip()))
    view = augmentation.sample(chance(), 128, (32, 32))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(30):
            start = time.perf_counter()
            augmentation.apply(batch, view)
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    assert min(times) < 0.003
