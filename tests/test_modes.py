"""Eval mode for a while."""

import pytest
from torch import nn

from tutelage.modes import evaluating


def test_every_submodule_returns_to_the_mode_it_had():
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)))
    network[1].eval()
    modes = [module.training for module in network.modules()]
    with pytest.raises(KeyError), evaluating(network):
        assert not any(module.training for module in network.modules())
        raise KeyError
    assert [module.training for module in network.modules()] == modes
