import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tutelage.data.reclassed import among
from tutelage.data.wrap import as_data
from tutelage.errors import Notice

NAMES = ("ant", "bee", "cat")


def data(names, kind=lambda pairs: pairs):
    pairs = TensorDataset(torch.rand(12, 1, 4, 4), torch.arange(12) % len(names))
    return as_data(kind(pairs), test=kind(pairs), class_names=names, hold_out=0, name="photos")


def test_data_of_some_classes_are_renumbered_as_the_network_answers():
    with pytest.warns(Notice, match="photos does not have the network's classes bee: the network is measured"):
        found = among(data(("ant", "cat")), NAMES)
    assert (found.class_names, found.num_classes) == (NAMES, 3)
    assert found.test.targets.tolist() == [0, 2] * 6
    batch = next(found.loader("test", batch_size=4, train=False).epoch(0))
    assert batch.targets.tolist() == [0, 2, 0, 2]


@pytest.mark.parametrize(
    ("own", "names"), [(NAMES, NAMES), (("ant", "dog"), NAMES), (("0", "1"), ("0", "1", "2")), (("ant", "bee"), ())]
)
def test_other_data_stay_as_they_are(own, names):
    given = data(own)
    assert among(given, names) is given


def test_a_loader_is_used_as_it_is():
    given = data(("ant", "cat"), lambda pairs: DataLoader(pairs, batch_size=4))
    assert among(given, NAMES) is given
