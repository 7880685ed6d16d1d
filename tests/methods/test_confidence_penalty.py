import math

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.confidence_penalty import ConfidencePenalty

LOGITS = [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [5.0, -1.0, 0.5]]
LABELS = [2, 0, 1]


def slow(rows, labels, beta):
    """Pereyra et al.'s loss, one sample and one class at a time."""
    total = 0.0
    for row, label in zip(rows, labels, strict=True):
        norm = sum(math.exp(z) for z in row)
        p = [math.exp(z) / norm for z in row]
        entropy = -sum(value * math.log(value) for value in p)
        total += -math.log(p[label]) - beta * entropy
    return total / len(rows)


def weighted(logits, beta):
    method = ConfidencePenalty(nn.Identity(), beta=beta)
    losses = dict(method.losses(Batch(inputs=logits, targets=torch.tensor(LABELS))))
    return losses["ce"] + beta * losses["negative_entropy"], method


@pytest.mark.parametrize("beta", [0.0, 0.1, 2.5])
def test_value_is_the_papers(beta):
    total, method = weighted(torch.tensor(LOGITS, dtype=torch.float64), beta)
    assert total.item() == pytest.approx(slow(LOGITS, LABELS, beta), rel=1e-12)
    assert method.weight("negative_entropy", Progress()) == beta


def test_gradient_is_the_closed_form():
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    total, _ = weighted(logits, 0.3)
    (gradient,) = torch.autograd.grad(total, logits)
    p = logits.detach().softmax(1)
    q = torch.eye(3, dtype=torch.float64)[LABELS]
    entropy = -(p * p.log()).sum(1, keepdim=True)
    # d(-H)/dz = p (log p + H)
    expected = (p - q + 0.3 * p * (p.log() + entropy)) / len(LOGITS)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)


def test_the_penalty_is_zero_for_certainty_and_least_for_uniform_logits():
    certain = torch.tensor([[1e4, 0.0, 0.0]])
    uniform = torch.zeros(1, 3)
    batch = {"targets": torch.tensor([0])}
    penalty = ConfidencePenalty(nn.Identity())
    assert penalty.losses(Batch(inputs=certain, **batch))["negative_entropy"].item() == 0.0
    assert penalty.losses(Batch(inputs=uniform, **batch))["negative_entropy"].item() == pytest.approx(-math.log(3))


def test_a_reward_for_certainty_is_refused():
    for beta in (-1, float("nan")):
        with pytest.raises(UserError, match=f"beta={beta} must be zero or more"):
            ConfidencePenalty(nn.Identity(), beta=beta)
