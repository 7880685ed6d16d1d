import torch

from tutelage.models.zoo.shuffle import ChannelShuffle


def test_parameters(parameters):
    assert parameters("shufflev1", 100) == 949_258
    assert parameters("shufflev2", 100) == 1_355_528


def test_maps(maps):
    assert maps("shufflev1") == ([(24, 32), (240, 16), (480, 8), (960, 4)], 960)
    assert maps("shufflev2") == ([(24, 32), (116, 16), (232, 8), (464, 4)], 1024)


def test_parameters_of_tfkd(parameters):
    counts = tuple(parameters("tfkd_shufflenetv2", classes) for classes in (10, 100, 200))
    assert counts == (1_268_646, 1_360_896, 1_463_396)


def test_shuffle_deals_channels_round():
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert ChannelShuffle(2)(channels).flatten().tolist() == [0, 3, 1, 4, 2, 5]
