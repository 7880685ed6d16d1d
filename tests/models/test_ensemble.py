import math

import pytest
import torch
from torch import nn

from tutelage.models.ensemble import Ensemble


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def softmax(row):
    weights = [math.exp(value - max(row)) for value in row]
    return [weight / math.fsum(weights) for weight in weights]


def test_ensemble_averages_probabilities(double):
    networks = [nn.Linear(4, 3), nn.Linear(4, 3)]
    inputs = torch.randn(5, 4)
    found = Ensemble(networks)(inputs)
    for row, *members in zip(found.tolist(), *(net(inputs).tolist() for net in networks), strict=True):
        expected = [math.fsum(ps) / 2 for ps in zip(*map(softmax, members), strict=True)]
        assert [math.exp(value) for value in row] == pytest.approx(expected, rel=1e-12)


def test_ensemble_of_confident_networks_stays_finite():
    class Sure(nn.Module):
        def forward(self, inputs):
            return inputs

    logits = torch.tensor([[1e4, 0.0, -1e4]])
    found = Ensemble([Sure(), Sure()])(logits)
    assert found.isfinite().all()
    assert torch.allclose(found, logits - 1e4)


def test_members_answer_one_by_one():
    networks = [nn.Linear(4, 3), nn.Linear(4, 3)]
    inputs = torch.randn(5, 4)
    found = Ensemble(networks).member_logits(inputs)
    assert found.shape == (2, 5, 3)
    assert torch.equal(found[1], networks[1](inputs))
