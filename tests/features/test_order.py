import pytest
import torch
import torchvision
from torch import nn

from tutelage.features.order import Order
from tutelage.models import CATALOGUE

EXAMPLE = torch.zeros(2, 3, 32, 32)


class Twice(nn.Module):
    """Calls one layer twice, holds a container that is never called, and one layer that is never reached."""

    def __init__(self):
        super().__init__()
        self.stem, self.shared = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()) for _ in range(3))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.spare, self.head = nn.Linear(3, 3), nn.Linear(4, 5)

    def forward(self, inputs):
        maps = self.shared(self.shared(self.stem(inputs)))
        tokens = maps.flatten(2).transpose(1, 2)
        maps = maps + self.attention(tokens, tokens, tokens)[0].transpose(1, 2).reshape(maps.shape)
        for block in self.blocks:
            maps = block(maps)
        return self.head(maps.mean((2, 3)))


@pytest.fixture(scope="module")
def order():
    return Order.of(Twice(), torch.zeros(2, 3, 4, 4))


def test_layers_come_in_the_order_of_their_last_call(order):
    layers = ["stem", "shared", "attention", "blocks.0:in", "blocks.0", "blocks.1", "head:in", "head"]
    assert sorted(sorted(layers), key=order.when) == layers


def test_calls_are_counted(order):
    assert [order.calls(layer) for layer in ("stem", "shared", "shared:in", "spare")] == [1, 2, 2, 0]


def test_what_is_not_called_before_a_layer_is_unused(order):
    assert order.unused("blocks.1") == ("blocks.2", "spare", "head")
    assert order.unused("blocks.1:in") == ("blocks.1.0", "blocks.1.1", "blocks.2", "spare", "head")
    # A container that nothing in was called of goes as a whole.
    assert order.unused("shared") == ("blocks", "attention", "spare", "head")


def test_a_module_that_ran_keeps_the_parts_that_it_uses_without_calling_them(order):
    assert not any(name.startswith("attention") for name in order.unused("attention"))
    assert "attention.out_proj" not in order.unused("head")


def test_no_hook_stays_and_no_mode_changes():
    network = Twice().train()
    network.stem.eval()
    Order.of(network, torch.zeros(2, 3, 4, 4))
    assert network.training
    assert not network.stem.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_a_stem_is_one_convolution_and_what_activates_it():
    residual = torchvision.models.resnet18(num_classes=5)
    order = Order.of(residual, EXAMPLE)
    assert [order.is_stem(layer) for layer in ("relu", "maxpool", "layer1", "layer1.0.conv2")] == [
        True,
        True,
        False,
        False,
    ]
    plain = Order.of(CATALOGUE["vgg8"](5), EXAMPLE)
    assert not plain.is_stem("layer1")


def test_a_network_that_is_asked_by_name():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, ids):
            return self.head(self.words(ids).mean(1))

    order = Order.of(Text(), {"ids": torch.ones(2, 5, dtype=torch.long)})
    assert order.when("words") < order.when("head")
