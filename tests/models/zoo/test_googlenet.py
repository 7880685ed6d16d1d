import pytest
import torch

from tutelage.models.zoo.googlenet import tfkd_googlenet


def test_parameters_of_tfkd(parameters):
    counts = tuple(parameters("tfkd_googlenet", classes) for classes in (10, 100, 200))
    assert counts == (6_166_250, 6_258_500, 6_361_000)


@pytest.mark.parametrize("side", [32, 64])
def test_two_images_give_two_rows(side):
    with torch.no_grad():
        assert tfkd_googlenet(10).eval()(torch.rand(2, 3, side, side)).shape == (2, 10)
