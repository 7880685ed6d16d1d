"""Eval mode for a while, and train mode that leaves no trace."""

import pytest
import torch
from torch import nn

from tutelage.models.modes import evaluating, keeping_statistics


def test_every_submodule_returns_to_the_mode_it_had():
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)))
    network[1].eval()
    modes = [module.training for module in network.modules()]
    with pytest.raises(KeyError), evaluating(network):
        assert not any(module.training for module in network.modules())
        raise KeyError
    assert [module.training for module in network.modules()] == modes


def test_statistics_are_kept_while_the_batch_normalises():
    torch.manual_seed(0)
    norm, twin = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    first, second = torch.randn(8, 3), torch.randn(8, 3) * 5 + 2
    for layer in (norm, twin):
        layer(first)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    with keeping_statistics(nn.Sequential(norm)):
        answer = norm(second)
    assert torch.equal(answer, twin(second)), "normalised by its own batch"
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())
    norm(second)
    assert norm.num_batches_tracked == twin.num_batches_tracked == 2
    assert torch.equal(norm.running_mean, twin.running_mean), "afterwards it counts again"


def test_a_layer_in_eval_mode_goes_on_normalising_by_its_statistics():
    norm = nn.BatchNorm1d(3).eval()
    inputs = torch.randn(8, 3) + 4
    expected = norm(inputs)
    with keeping_statistics(norm):
        assert torch.equal(norm(inputs), expected)
    assert norm.track_running_stats


def test_a_layer_without_statistics_stays_without_after_an_error():
    norms = nn.ModuleList([nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False)])
    with pytest.raises(KeyError), keeping_statistics(norms):
        raise KeyError
    assert [layer.track_running_stats for layer in norms] == [True, False]
