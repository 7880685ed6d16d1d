import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from tutelage.data.own_targets import find_targets
from tutelage.data.task import task_named
from tutelage.data.wrap import as_data
from tutelage.errors import UserError

CLASSIFICATION = task_named("classification")
LABELS = [0, 1, 2] * 40


class Transformed(Dataset):
    """Knows its labels in an attribute, and puts them through a function where a sample is asked for."""

    def __init__(self, transform=lambda label: label, labels=LABELS):
        self.targets, self.read, self._transform = labels, 0, transform

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        self.read += 1
        return torch.full((1, 4, 4), index / len(self)), self._transform(self.targets[index])


def test_an_attribute_saves_reading_every_sample():
    dataset = Transformed()
    assert find_targets(dataset, CLASSIFICATION).tolist() == LABELS
    assert 0 < dataset.read < 40


@pytest.mark.parametrize("transform", [lambda label: label % 2, lambda label: 2 - label, lambda label: int(label > 1)])
def test_targets_that_samples_put_through_a_function_are_read_from_the_samples(transform):
    expected = [transform(label) for label in LABELS]
    assert find_targets(Transformed(transform), CLASSIFICATION).tolist() == expected
    assert find_targets(Subset(Transformed(transform), [2, 0]), CLASSIFICATION).tolist() == [expected[2], expected[0]]
    for data in (as_data(Transformed(transform)), as_data(DataLoader(Transformed(transform), batch_size=40))):
        assert data.num_classes == max(expected) + 1


def test_a_function_that_changes_one_rare_class():
    labels = [0] * 500 + [1] + [2] * 499
    found = find_targets(Transformed(lambda label: 0 if label == 1 else label, labels), CLASSIFICATION)
    assert found.tolist() == [0] * 501 + [2] * 499


def test_too_many_samples_to_read_name_the_cause():
    with pytest.raises(UserError, match="Its attribute `targets` holds other values: perhaps target_transform"):
        find_targets(Transformed(lambda label: 1 - label, [0, 1] * 10_001), CLASSIFICATION)


def test_tensors_are_taken_as_they_are():
    assert find_targets(TensorDataset(torch.rand(3, 1), torch.tensor([1, 0, 1])), CLASSIFICATION).tolist() == [1, 0, 1]
