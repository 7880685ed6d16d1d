"""A small network with batch norms that remember something, and a call that makes images from it."""

import pytest
import torch
from torch import nn

from tutelage.models.normalization import Normalized
from tutelage.synthesis.subject import subject_of
from tutelage.synthesis.writing import synthesize


class Small(nn.Module):
    """Two convolutions with batch norms, four classes, colour images of 8 x 8 pixels."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6)
        self.spare = nn.BatchNorm2d(5)  # Never reached.
        self.linear = nn.Linear(6, 4)

    def forward(self, inputs):
        maps = self.bn2(self.conv2(self.bn1(self.conv1(inputs)).relu())).relu()
        return self.linear(maps.mean((2, 3)))


@pytest.fixture(scope="session")
def network():
    """The network, trained for a moment on blotches of four colours."""
    torch.manual_seed(0)
    net = Small()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    for _ in range(30):
        labels = torch.randint(4, (32,))
        images = 0.3 * torch.rand(32, 3, 8, 8) + 0.7 * colours[labels][:, :, None, None]
        loss = nn.functional.cross_entropy(net((images - 0.5) / 0.25), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Normalized(net.eval(), (0.5,) * 3, (0.25,) * 3)


@pytest.fixture(scope="session")
def subject(network):
    return subject_of(network, image_size=8)


@pytest.fixture(scope="session")
def make(network):
    """Make images: `make(folder, scheme=..., per_class=...)`."""

    def made(folder, teacher=None, **given):
        usual = {"per_class": 3, "image_size": 8, "iterations": 4, "batch_size": 6, "copies": 1, "device": "cpu"}
        return synthesize(network if teacher is None else teacher, out=folder, **{**usual, **given})

    return made
