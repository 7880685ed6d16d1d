import copy

import torch
from torch import nn

from tutelage.training.memory_format import store_channels_last


def test_channels_last_moves_only_what_is_not_so_yet():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(1, 1, 1))
    network.register_buffer("mean", torch.zeros(1, 1, 1, 1))
    twin = copy.deepcopy(network).to(memory_format=torch.channels_last)
    assert store_channels_last(network) is network
    assert [one.stride() for one in network.parameters()] == [one.stride() for one in twin.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))
    before = [one.data_ptr() for one in (*network.parameters(), *network.buffers())]
    store_channels_last(network)
    assert [one.data_ptr() for one in (*network.parameters(), *network.buffers())] == before
