import torch
from torch import nn

from tutelage.models import Normalized, describe
from tutelage.models.zoo.resnet import resnet20


def test_parameters_and_multiply_adds():
    size = describe(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 5)), input_shape=(3, 4, 4)
    )
    assert size.parameters == 3 * 8 * 9 + 8 + 8 * 16 * 5 + 5
    assert size.multiply_adds == 16 * 3 * 8 * 9 + 8 * 16 * 5


def test_a_known_network_and_no_change_of_mode():
    network = Normalized(resnet20(10), (0.5,), (0.5,)).train()
    before = network.model.stem[1].running_mean.clone()
    size = describe(network)
    stem, basic, down, projections = 3 * 16 * 9 * 1024, 16 * 16 * 9 * 1024, 16 * 32 * 9 * 256, 2 * 16 * 32 * 256
    assert size.multiply_adds == stem + 16 * basic + 2 * down + projections + 64 * 10
    assert str(size) == "0.27 M parameters, 40.8 M multiply-adds"
    assert network.training
    assert torch.equal(network.model.stem[1].running_mean, before)
