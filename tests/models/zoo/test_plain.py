import pytest
import torch

from tutelage.models.zoo.plain import tfkd_alexnet, tfkd_cnn


def test_parameters_of_tfkd(parameters):
    assert tuple(parameters("tfkd_cnn", classes) for classes in (10, 100)) == (357_514, 369_124)
    counts = tuple(parameters("tfkd_alexnet", classes) for classes in (10, 100, 200))
    assert counts == (2_472_266, 2_495_396, 2_521_096)


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("factory", [tfkd_cnn, tfkd_alexnet])
def test_two_images_give_two_rows(factory, side):
    assert factory(10)(torch.rand(2, 3, side, side)).shape == (2, 10)
