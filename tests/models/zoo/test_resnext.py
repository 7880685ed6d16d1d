import torch

from tutelage.models.zoo.resnext import tfkd_resnext29


def test_parameters_of_tfkd(parameters):
    assert tuple(parameters("tfkd_resnext29", classes) for classes in (10, 100)) == (34_426_698, 34_518_948)


def test_two_large_images_give_two_rows():
    with torch.device("meta"):
        assert tfkd_resnext29(200)(torch.empty(2, 3, 64, 64)).shape == (2, 200)
