"""What has no one graph is refused."""

import pytest
import torch
from torch import nn

from tutelage.api import export
from tutelage.data.wrap import as_data
from tutelage.errors import UserError


class Branching(nn.Module):
    """Looks at its data before it decides what to compute."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images if images.mean() > 0.4 else -images)


def test_what_cannot_be_captured_leaves_no_file(data, network, tmp_path):
    with pytest.raises(UserError, match="cannot be captured as a graph: .*data-dependent"):
        export(Branching(network), to="pt2", data=data, out=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_map_of_answers_has_the_size_of_the_images(tmp_path):
    images = torch.rand(8, 3, 8, 8)
    pairs = [(image, torch.zeros(8, 8, dtype=torch.long)) for image in images]
    scenes = as_data(pairs, task="segmentation", num_classes=2)
    coarse = nn.Conv2d(3, 2, 4, stride=4)
    data = scenes.with_splits(test=scenes.train)
    assert export(coarse, to="pt2", data=data, out=tmp_path, progress=False)["pt2"].agreement == 1.0
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert program(images).shape == (8, 2, 8, 8)
