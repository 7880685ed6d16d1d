import math

import pytest
import torch
from torch import nn

from tutelage.methods.parts.regressor import Regressor


@pytest.mark.parametrize(
    ("size", "teacher_size", "kernel"),
    [
        # The sizes of the fact sheet, square.
        ((32, 32), (16, 16), (3, 3)),
        ((16, 16), (32, 32), (4, 4)),
        ((8, 8), (8, 8), (1, 1)),
        ((8, 8), (5, 5), (4, 4)),
        # Height and width each by itself.
        ((32, 16), (16, 16), (3, 1)),
        ((16, 10), (16, 7), (1, 4)),
        ((9, 8), (5, 5), (3, 4)),
        ((6, 16), (12, 16), (4, 1)),
        # Odd sizes are halved as well; one place stays one place.
        ((33, 25), (17, 13), (3, 3)),
        ((1, 1), (1, 1), (1, 1)),
        ((2, 1), (1, 1), (3, 1)),
        # Where no convolution leads, maps are interpolated.
        ((7, 7), (20, 9), (1, 1)),
        ((16, 4), (8, 8), (1, 1)),
        ((1, 1), (4, 4), (1, 1)),
    ],
)
def test_output_has_the_shape_of_the_teachers_map(size, teacher_size, kernel):
    regressor = Regressor(3, size, 5, teacher_size)
    assert regressor(torch.randn(2, 3, *size), teacher_size).shape == (2, 5, *teacher_size)
    assert regressor.convolution.kernel_size == kernel
    assert regressor.convolution.bias is not None


def test_sequences_may_be_longer_or_shorter_than_the_example():
    regressor = Regressor(3, (1, 10), 5, (1, 10))
    for length in (7, 10, 13):
        assert regressor(torch.randn(2, 3, 1, length), (1, length)).shape == (2, 5, 1, length)
    assert Regressor(3, (1, 10), 5, (1, 5))(torch.randn(2, 3, 1, 7), (1, 3)).shape == (2, 5, 1, 3)


def test_parameter_count_of_the_sheet():
    count = sum(p.numel() for p in Regressor(128, (16, 16), 128, (16, 16)).parameters())
    assert count == 128 * 128 + 128 + 256 == 16768


def test_doubling_is_a_transposed_convolution():
    assert isinstance(Regressor(3, (4, 5), 2, (8, 10)).convolution, nn.ConvTranspose2d)


def test_equal_sizes_against_loops():
    torch.manual_seed(0)
    regressor = Regressor(3, (2, 4), 2, (2, 4)).double()
    nn.init.normal_(regressor.norm.weight)
    nn.init.normal_(regressor.norm.bias)
    maps = torch.randn(5, 3, 2, 4, dtype=torch.float64)
    weight, bias = regressor.convolution.weight.tolist(), regressor.convolution.bias.tolist()
    places = [(b, y, x) for b in range(5) for y in range(2) for x in range(4)]
    found = regressor(maps, (2, 4))
    for channel in range(2):
        mixed = {
            (b, y, x): bias[channel] + sum(weight[channel][c][0][0] * maps[b, c, y, x].item() for c in range(3))
            for b, y, x in places
        }
        mean = math.fsum(mixed.values()) / len(places)
        variance = math.fsum((value - mean) ** 2 for value in mixed.values()) / len(places)
        scale, shift = regressor.norm.weight[channel].item(), regressor.norm.bias[channel].item()
        for (b, y, x), value in mixed.items():
            expected = (value - mean) / math.sqrt(variance + 1e-5) * scale + shift
            assert found[b, channel, y, x].item() == pytest.approx(expected, rel=1e-9)


def test_the_relu_is_there_only_if_asked_for():
    maps = torch.randn(8, 3, 4, 4)
    assert Regressor(3, (4, 4), 2, (4, 4))(maps, (4, 4)).min() < 0
    assert Regressor(3, (4, 4), 2, (4, 4), final_relu=True)(maps, (4, 4)).min() == 0


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant_maps_have_finite_gradients(value):
    maps = torch.full((4, 3, 4, 4), value, requires_grad=True)
    regressor = Regressor(3, (4, 4), 2, (4, 4))
    regressor(maps, (4, 4)).square().sum().backward()
    assert maps.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in regressor.parameters())
