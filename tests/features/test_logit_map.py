"""The layer whose map becomes the answer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.features.logit_map import logit_map
from tutelage.models.normalization import Normalized
from tutelage.testing.toys import ToyNetwork


class Net(nn.Module):
    def __init__(self, ending):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, 4, 1)
        self.classifier, self.aux = nn.Conv2d(4, 5, 1), nn.Conv2d(4, 5, 1)
        self.ending = ending

    def forward(self, inputs):
        features = self.body(inputs).relu()
        return self.ending(self.classifier(features), self.aux(features), inputs.shape[2:])


ENDINGS = {
    "as it is": lambda coarse, aux, size: coarse,
    "bilinear": lambda coarse, aux, size: F.interpolate(coarse, size, mode="bilinear", align_corners=False),
    "corners": lambda coarse, aux, size: F.interpolate(coarse, size, mode="bilinear", align_corners=True),
    "mapping": lambda coarse, aux, size: {"out": F.interpolate(coarse, size, mode="bilinear"), "aux": aux},
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_it_is_found_before_it_is_enlarged(ending):
    assert logit_map(Net(ENDINGS[ending]), torch.rand(2, 3, 16, 24)) == "classifier"


def test_it_is_found_where_a_wrapper_cuts_the_answer():
    network = Normalized(Net(ENDINGS["bilinear"]), [0.0], [1.0], multiple=8)
    images = torch.rand(2, 3, 15, 24)
    assert network(images).shape[2:] == (15, 24)
    assert logit_map(network, images) == "classifier"


@pytest.mark.parametrize(
    "network",
    [ToyNetwork(4), Net(lambda coarse, aux, size: F.interpolate(coarse, size, mode="nearest")),
     Net(lambda coarse, aux, size: coarse + aux)],
)  # fmt: skip
def test_there_is_none(network):
    assert logit_map(network, torch.rand(2, 3, 16, 24)) is None
