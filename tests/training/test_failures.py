"""Where the data are why a step failed, the message says so."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tutelage
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.training.failures import faulty_sample, single_samples
from tutelage.training.state import State

SETTINGS = {"epochs": 1, "progress": False, "precision": "32-true"}


def images(samples):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(samples, 3, 8, 8, generator=generator), torch.arange(samples) % 2)


def vectors():
    """Batch norm behind the pooling: one value for each channel and sample."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2))


def train(data, **settings):
    return tutelage.distill("supervised", student=vectors(), data=data, validation=images(8), **SETTINGS, **settings)


@pytest.mark.parametrize("data", [images(17), DataLoader(images(17), batch_size=8)], ids=["dataset", "loader"])
def test_a_last_batch_of_one_sample_is_left_out(data):
    assert train(data, batch_size=8) is not None


@pytest.mark.parametrize("data", [images(16), DataLoader(images(16), batch_size=1)], ids=["dataset", "loader"])
def test_batches_of_one_sample_are_named(data):
    with pytest.raises(UserError, match="Batch 1 of epoch 1 has one sample.*--batch-size of 2 or more, or drop_last"):
        train(data, batch_size=1)


def test_a_batch_that_only_a_sampler_knows_is_named_when_it_comes():
    loader = DataLoader(images(9), batch_sampler=[[0, 1, 2, 3], [4, 5, 6, 7], [8]])
    with pytest.raises(UserError, match="Batch 3 of epoch 1 has one sample"):
        train(loader)


def test_other_errors_pass():
    with pytest.raises(ValueError, match="something else"), single_samples(State()):
        raise ValueError("something else")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_sample_that_is_no_number_is_named_instead_of_the_learning_rate(value):
    data = images(40)
    data.tensors[0][33, 0, 0, 0] = value
    with pytest.raises(UserError, match="became infinite or NaN.*Sample 33 of the training data holds NaN") as told:
        train(data, batch_size=8)
    assert "learning rate" not in str(told.value)


def test_sound_samples_are_not_blamed():
    assert faulty_sample(as_data(images(8), validation=images(8))) is None
