"""A small network and data for it."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from tutelage.data.wrap import as_data


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.classifier = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, images):
        return self.classifier(self.norm(self.conv(images)).relu().mean((2, 3)))


@pytest.fixture(scope="session")
def pairs():
    """Images and labels of three classes."""
    return TensorDataset(torch.rand(90, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(90) % 3)


@pytest.fixture(scope="session")
def data(pairs):
    """They as data with a test split of 50."""
    images, labels = pairs.tensors
    return as_data(pairs, test=TensorDataset(images[:50], labels[:50]))


@pytest.fixture(scope="session")
def network():
    torch.manual_seed(0)
    return Small().eval()
