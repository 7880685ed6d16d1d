"""Parts of a student that no loss reaches are named once."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from tutelage.core.method import Method
from tutelage.data.wrap import as_data
from tutelage.features.extractor import FeatureExtractor
from tutelage.methods.supervised import Supervised
from tutelage.system.console import Silent
from tutelage.training.driver import Driver
from tutelage.training.reach import Reach
from tutelage.training.settings import Training


class WithAuxiliary(nn.Module):
    """A second classifier answers in training alone, beside the logits, as GoogLeNet's do."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.classifier, self.auxiliary = nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, inputs):
        found = self.body(inputs).mean((2, 3))
        if not self.training:
            return self.classifier(found)
        return {"logits": self.classifier(found), "auxiliary": self.auxiliary(found)}


class Told(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text, *, once=False):
        self.notes.append(str(text))


def trained(network):
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.rand(16, 3, 8, 8, generator=generator), torch.arange(16) % 2)
    reporter = Told()
    training = Training(epochs=2, batch_size=8, precision="32-true", device="cpu")
    Driver(training, reporter=reporter).fit(Supervised(network), as_data(data, validation=data))
    return [note for note in reporter.notes if note.startswith("No loss reaches")]


def test_parts_without_a_gradient_are_told_once():
    [told] = trained(WithAuxiliary())
    assert told.startswith("No loss reaches auxiliary, unused:")


def test_nothing_is_told_where_all_is_reached_or_frozen():
    assert trained(nn.Sequential(nn.Conv2d(3, 4, 6), nn.Flatten(), nn.Linear(36, 2))) == []
    network = WithAuxiliary()
    for part in (network.auxiliary.parameters(), [network.unused]):
        for parameter in part:
            parameter.requires_grad_(False)
    assert trained(network) == []


@pytest.mark.parametrize("second", [True, False])
def test_all_updates_of_the_first_step_count(second):
    class Two(Method):
        def __init__(self):
            super().__init__()
            self.student = FeatureExtractor(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))

    method, reach = Two(), Reach()
    first, last = (list(layer.parameters()) for layer in method.student.model)
    for parameter in first:
        parameter.grad = torch.zeros_like(parameter)
    reach.note(first + last)
    if second:
        for parameter in last:
            parameter.grad = torch.zeros_like(parameter)
        reach.note(last)
    assert (reach.told(method) is None) is second
    # Later steps are not looked at.
    assert reach.told(method) is None
