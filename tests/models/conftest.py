"""Counts and maps on the meta device, where a network costs nothing."""

import pytest
import torch

from tutelage.models.catalogue import CATALOGUE


def count_parameters(name, num_classes):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in CATALOGUE[name](num_classes).parameters())


def read_maps(name, side=32):
    """Return `(channels, height)` of each stage, and the length of the embedding."""
    with torch.device("meta"):
        network = CATALOGUE[name](100).eval()
        seen = []
        for stage in network.stage_names:
            network.get_submodule(stage).register_forward_hook(lambda m, i, o: seen.append((o.shape[1], o.shape[2])))
        network(torch.empty(2, 3, side, side))
    return seen, network.classifier.in_features


@pytest.fixture
def parameters():
    return count_parameters


@pytest.fixture
def maps():
    return read_maps
