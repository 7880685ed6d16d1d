"""What batch norms remember and hear."""

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.features.batch_norms import batch_norms, hearing, moments_of, reached, remembered


class Twice(nn.Module):
    """A batch norm that runs twice, one that never runs, and others that remember nothing."""

    def __init__(self):
        super().__init__()
        self.norm, self.spare = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.instance = nn.InstanceNorm2d(2, track_running_stats=True)
        self.forgetful = nn.BatchNorm2d(2, track_running_stats=False)
        self.head = nn.Linear(2, 3)

    def forward(self, inputs):
        return self.head(self.norm(2 * self.norm(inputs)).mean((2, 3)))


class FrozenNorm(nn.Module):
    """As torchvision's: buffers and no batch norm of torch."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.tensor([1.0, 2.0]))
        self.register_buffer("running_var", torch.tensor([3.0, 0.0]))
        self.eps = 1e-3

    def forward(self, inputs):
        return inputs


def test_layers_that_remember_are_found_and_those_that_run_are_reached():
    network = Twice()
    assert list(batch_norms(network)) == ["norm", "spare"]
    assert list(reached(network, torch.randn(2, 2, 4, 4))) == ["norm"]
    with pytest.raises(UserError, match="no batch norm with running statistics"):
        reached(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.randn(2, 4))


def test_frozen_batch_norms_remember_too():
    kept = remembered(FrozenNorm())
    assert kept.mean.tolist() == [1.0, 2.0]
    assert kept.variance.tolist() == [3.0, 0.0]
    assert kept.floor == 1e-3
    assert list(batch_norms(nn.Sequential(FrozenNorm()))) == ["0"]


def test_moments_are_those_of_a_plain_loop_with_gradients():
    network, inputs = Twice().eval(), torch.randn(3, 2, 4, 5, requires_grad=True)
    with hearing(reached(network, inputs.detach())) as heard:
        network(inputs)
    assert [name for name, _ in heard] == ["norm", "norm"]
    for channel in range(2):
        values = inputs[:, channel].flatten().tolist()
        mean = sum(values) / 60
        variance = sum((value - mean) ** 2 for value in values) / 59
        assert heard[0][1].mean[channel].item() == pytest.approx(mean, rel=1e-4, abs=1e-6)
        assert heard[0][1].variance[channel].item() == pytest.approx(variance, rel=1e-4)
        assert heard[0][1].biased_variance[channel].item() == pytest.approx(variance * 59 / 60, rel=1e-4)
    (gradient,) = torch.autograd.grad(heard[1][1].variance.sum(), inputs)
    assert gradient.abs().max() > 0
    assert not network.norm._forward_pre_hooks


def test_half_precision_keeps_its_digits_and_one_value_has_no_variance():
    values = (1000 + torch.randn(8, 1, 16, 16)).half()
    assert moments_of(values).variance.item() == pytest.approx(values.double().var().item(), rel=1e-3)
    assert moments_of(torch.ones(1, 3)).variance.tolist() == [0.0, 0.0, 0.0]
