import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models.heads import adapt_input, check_classes, last_layer, replace_classifier
from tutelage.models.zoo.resnet import resnet8


class HeadFirst(nn.Module):
    """Registers its classifier before its body."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 10)
        self.body = nn.Conv2d(3, 8, 3)

    def forward(self, inputs):
        return self.head(self.body(inputs).mean((2, 3)))


def test_last_layer_is_the_classifier():
    name, layer = last_layer(resnet8(10))
    assert name == "classifier"
    assert layer.out_features == 10
    assert last_layer(nn.ReLU()) is None


def test_order_of_registration_does_not_mislead():
    network = HeadFirst().train()
    check_classes(network, 10, in_channels=3, source="mine")
    assert network.training
    with pytest.raises(UserError, match="'mine' returns 10 classes, but the data have 100"):
        check_classes(network, 100, in_channels=3, source="mine")


def test_a_network_that_takes_no_image_is_believed():
    check_classes(nn.Linear(7, 3), 10, in_channels=3, source="mine")


@pytest.mark.parametrize("head", [nn.Linear(8, 10, bias=False), nn.Conv2d(8, 10, 1)])
def test_classifier_is_replaced(head):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), head)
    replace_classifier(network, 10)
    assert network[1] is head
    replace_classifier(network, 4)
    assert network[1].weight.shape[0] == 4
    assert (network[1].bias is None) == (head.bias is None)
    with pytest.raises(UserError, match="no linear layer"):
        replace_classifier(nn.ReLU(), 4)


def test_grey_images_are_seen_as_colour_ones():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1))
    grey = torch.rand(2, 1, 8, 8)
    expected = network(grey.expand(-1, 3, -1, -1))
    adapt_input(network, 1)
    assert torch.allclose(network(grey), expected, atol=1e-6)
    with pytest.raises(UserError, match="no convolution"):
        adapt_input(nn.Linear(3, 3), 1)
