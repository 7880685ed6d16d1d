import torch

from tutelage.models.zoo.tiny import tiny_cnn


def test_tiny_networks_are_tiny(parameters):
    assert 5_000 <= parameters("tiny_cnn", 10) <= 20_000
    assert parameters("tiny_resnet", 10) <= 25_000


def test_width_is_an_option():
    assert tiny_cnn(10, width=4)(torch.rand(2, 3, 8, 8)).shape == (2, 10)
