import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import tutelage
from tutelage.data.resolve import resolve_data
from tutelage.errors import UserError
from tutelage.searching.batch import one_batch


@pytest.fixture(scope="module")
def digits():
    return tutelage.load_data("digits")


def test_a_seed_chooses_training_samples(digits):
    one, other, again = (one_batch(digits, 16, seed=seed) for seed in (0, 1, 0))
    assert one.inputs.shape == (16, 1, 8, 8)
    assert torch.equal(one.inputs, again.inputs)
    assert torch.equal(one.labels, again.labels)
    assert not torch.equal(one.labels, other.labels)


def test_all_samples_where_there_are_fewer(digits):
    assert len(one_batch(tutelage.load_data("digits", subset=100), 10_000, seed=0)) == 90


def test_the_first_batch_of_a_loader():
    loader = DataLoader(TensorDataset(torch.rand(9, 1, 4, 4), torch.arange(9) % 3), batch_size=5)
    assert len(one_batch(resolve_data(loader, validation=loader), 64, seed=0)) == 5


def test_one_sample_relates_to_nothing(digits):
    with pytest.raises(UserError, match="give 2 or more"):
        one_batch(digits, 1, seed=0)
