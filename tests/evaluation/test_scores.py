"""Scores of networks on data: one pass, batch by batch, for every prediction."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.core.method import Method
from tutelage.data.ood import foreign_data
from tutelage.data.sources import load_data
from tutelage.data.task import task_named
from tutelage.errors import UserError
from tutelage.evaluation.scores import Evaluation, evaluate_network, measure, measure_network, validation_metrics
from tutelage.methods import Supervised
from tutelage.models.ensemble import Ensemble
from tutelage.testing.toys import ToyNetwork, toy_data

CLASSIFICATION = task_named("classification")


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", subset=100, validation=0.2)


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


class Noting:
    """A meter that keeps all that it is told."""

    def __init__(self):
        self.seen, self.targets, self.foreign = [], [], []

    def update(self, answer, targets, members=None):
        self.seen.append((answer, members))
        self.targets.append(targets)

    def update_foreign(self, answer, members=None):
        self.foreign.append(answer)


def test_every_prediction_has_a_meter_that_sees_every_sample_in_order(digits):
    loader = digits.loader("validation", train=False, batch_size=7)
    found = measure(lambda x: {"a": x.flatten(1)[:, :3], "b": -x.flatten(1)[:, :3]}, loader, Noting, foreign=loader)
    assert list(found) == ["a", "b"]
    whole = list(loader.epoch(0))
    assert torch.equal(torch.cat(found["a"].targets), torch.cat([batch.labels for batch in whole]))
    images = torch.cat([batch.inputs.flatten(1) for batch in whole])
    assert torch.equal(torch.cat([one for one, _ in found["b"].seen]), -images[:, :3])
    assert len(found["a"].foreign) == len(whole)
    assert not any(one.requires_grad for one, _ in found["a"].seen)


def test_a_network_is_asked_in_eval_mode_and_left_in_its_own(digits):
    modes = []

    class Watching(nn.Linear):
        def forward(self, inputs):
            modes.append(self.training)
            return super().forward(inputs.flatten(1))

    network = Watching(64, 10).train()
    measure_network(network, digits, "validation", device="cpu")
    assert set(modes) == {False}
    assert network.training


def test_the_batch_size_changes_nothing(digits, monkeypatch):
    network = linear()
    found = evaluate_network(network, digits, "test", device="cpu").scores
    monkeypatch.setattr("tutelage.evaluation.scores.EVALUATION_BATCH", 13)
    other = evaluate_network(network, digits, "test", device="cpu").scores
    assert found == pytest.approx(other, rel=1e-6)
    assert found["accuracy"] == other["accuracy"]


def test_scores_are_attributes_with_the_metrics_that_they_are_of(digits):
    found = evaluate_network(linear(), digits, "test", device="cpu")
    assert found.accuracy == found.scores["accuracy"]
    assert found.metrics["accuracy"].title == "accuracy"
    assert found.named("test")["test_nll"] == found.nll
    with pytest.raises(AttributeError, match="no score 'mae'; there are accuracy, nll"):
        _ = found.mae
    for twin in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert twin.accuracy == found.accuracy
    assert Evaluation(scores={}, metrics={}).scores == {}


def test_an_ensemble_is_measured_by_its_mean_and_its_members(digits):
    torch.manual_seed(0)
    ensemble = Ensemble([linear() for _ in range(3)]).eval()
    found = evaluate_network(ensemble, digits, "test", device="cpu")
    images = torch.cat([batch.inputs for batch in digits.loader("test", train=False, batch_size=99).epoch(0)])
    labels = torch.cat([batch.labels for batch in digits.loader("test", train=False, batch_size=99).epoch(0)])
    with torch.no_grad():
        mean = ensemble.member_logits(images).softmax(2).mean(0)
    assert found.accuracy == (mean.argmax(1) == labels).double().mean().item()
    assert found.nll == pytest.approx(-mean.gather(1, labels[:, None]).log().mean().item(), rel=1e-5)
    assert found.knowledge_uncertainty > 0
    with_foreign = replace(digits, foreign=foreign_data("digits", digits))
    told = evaluate_network(ensemble, with_foreign, "test", device="cpu")
    assert told.foreign_auroc_knowledge == pytest.approx(0.5), "the same images are not told apart"
    assert told.metrics["foreign_auroc_knowledge"].unit == "share"


def test_members_that_disagree_on_the_classes_are_refused(digits):
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 9))
    with pytest.raises(UserError, match="must agree on the classes"):
        evaluate_network(Ensemble([linear(), other]), digits, "test", device="cpu")


def test_an_epoch_shows_the_main_metric_of_every_network():
    torch.manual_seed(0)
    data = toy_data()
    loader = data.loader("validation", train=False, batch_size=20)
    assert list(validation_metrics(Supervised(ToyNetwork()), loader, data)) == ["validation_accuracy", "validation_nll"]

    class Two(Method):
        def __init__(self):
            super().__init__()
            self.network = ToyNetwork()

        def forward(self, inputs):
            return {"student": self.network(inputs), "peer": -self.network(inputs)}

    assert list(validation_metrics(Two(), loader, data)) == [
        "validation_accuracy",
        "validation_nll",
        "validation_accuracy/peer",
    ]


def test_of_unlabelled_data_the_embedding_is_measured():
    torch.manual_seed(0)
    data = replace(toy_data(), task=task_named("unlabelled"))
    network = ToyNetwork()
    found = evaluate_network(network, data, "test", device="cpu")
    assert list(found.scores) == ["knn_accuracy"]
    with torch.no_grad():
        network.classifier.weight.zero_()
    assert evaluate_network(network, data, "test", device="cpu").scores == found.scores, "the classifier does not count"
    headless = nn.Sequential(network.layer1, network.layer2, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert evaluate_network(headless, data, "test", device="cpu").scores == found.scores
