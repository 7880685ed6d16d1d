import pytest
import torch

from tutelage.models.zoo.densenet import tfkd_densenet121


def test_parameters_of_tfkd(parameters):
    counts = tuple(parameters("tfkd_densenet121", classes) for classes in (10, 100, 200))
    assert counts == (6_956_298, 7_048_548, 7_151_048)


@pytest.mark.parametrize("side", [32, 64])
def test_two_images_give_two_rows(side):
    with torch.no_grad():
        assert tfkd_densenet121(10).eval()(torch.rand(2, 3, side, side)).shape == (2, 10)
