import pytest
import torch
import torchvision
from torch import nn

from tutelage.features.order import entered_before, is_stem, unused
from tutelage.features.trace import Trace
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
def trace():
    return Trace.of(Twice(), torch.zeros(2, 3, 4, 4))


def test_what_is_not_called_before_a_layer_is_unused(trace):
    assert unused(trace, "blocks.1") == ("blocks.2", "spare", "head")
    assert unused(trace, "blocks.1:in") == ("blocks.1.0", "blocks.1.1", "blocks.2", "spare", "head")
    # A container that nothing in was called of goes as a whole.
    assert unused(trace, "shared") == ("blocks", "attention", "spare", "head")


def test_a_module_that_ran_keeps_the_parts_that_it_uses_without_calling_them(trace):
    assert not any(name.startswith("attention") for name in unused(trace, "attention"))
    assert "attention.out_proj" not in unused(trace, "head")


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (["stem"], ["", "stem"]),
        (["blocks.0:in"], ["", "stem", "shared", "shared", "attention"]),
        (["shared", "stem"], ["", "stem", "shared", "shared"]),
        (["shared:in"], ["", "stem", "shared"]),
    ],
)
def test_what_has_begun_when_the_last_of_some_places_is_read(trace, places, names):
    assert list(entered_before(trace, places)) == [trace.network.get_submodule(name) for name in names]


def test_a_stem_is_one_convolution_and_what_activates_it():
    residual = Trace.of(torchvision.models.resnet18(num_classes=5), EXAMPLE)
    assert [is_stem(residual, layer) for layer in ("relu", "maxpool", "layer1", "layer1.0.conv2")] == [
        True,
        True,
        False,
        False,
    ]
    plain = Trace.of(CATALOGUE["vgg8"](5), EXAMPLE)
    assert not is_stem(plain, "layer1")
