"""Scores of networks on data."""

import math

import pytest
import torch
from torch import nn

from tutelage.data.sources import load_data
from tutelage.evaluation import Scores, collect, predictions_of, score


@pytest.fixture(scope="module")
def loader():
    return load_data("digits", subset=100, validation=0.2).loader("validation", train=False, batch_size=7)


def test_predictions_cover_every_sample_in_order(loader):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    logits, targets = predictions_of(network, loader)
    expected = torch.cat([batch.labels for batch in loader.epoch(0)])
    assert torch.equal(targets, expected)
    assert logits.shape == (len(expected), 10)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad


def test_a_network_is_asked_in_eval_mode_and_left_in_its_own(loader):
    modes = []

    class Watching(nn.Linear):
        def forward(self, inputs):
            modes.append(self.training)
            return super().forward(inputs.flatten(1))

    network = Watching(64, 10).train()
    predictions_of(network, loader)
    assert set(modes) == {False}
    assert network.training


def test_every_named_prediction_is_collected(loader):
    logits, _ = collect(lambda x: {"a": x.flatten(1)[:, :3], "b": x.flatten(1)[:, :3].bfloat16()}, loader)
    assert list(logits) == ["a", "b"]
    assert logits["b"].dtype == torch.float32
    assert torch.allclose(logits["a"], logits["b"], atol=0.01)


def test_scores_by_hand():
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
    found = score(logits, torch.tensor([0, 1, 0]))
    right = [math.exp(2) / (math.exp(2) + 1), 0.5, 1 / (1 + math.exp(3))]
    assert found.accuracy == pytest.approx(1 / 3)
    assert found.nll == pytest.approx(-sum(map(math.log, right)) / 3, rel=1e-5)
    assert Scores(accuracy=1.0, nll=0.0, ece=0.5).named("test") == {
        "test_accuracy": 1.0,
        "test_nll": 0.0,
        "test_ece": 0.5,
    }
