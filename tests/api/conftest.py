"""Networks and data as a user passes them."""

import pytest
import torch
from torch.utils.data import TensorDataset

from tutelage.testing.toys import CLASSES, ToyNetwork


@pytest.fixture(scope="module")
def pairs():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(96, 3, 12, 16, generator=generator), torch.arange(96) % CLASSES)


@pytest.fixture
def student():
    torch.manual_seed(1)
    return ToyNetwork(4)


@pytest.fixture
def teacher():
    torch.manual_seed(2)
    return ToyNetwork(8)
