"""Every prediction of a method is scored on every split."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.core.method import Method
from tutelage.data.dataset import ForeignData
from tutelage.data.images import ResidentImages
from tutelage.data.task import task_named
from tutelage.evaluation.predictions import score_method
from tutelage.evaluation.uncertainty import of_dirichlet
from tutelage.testing.toys import CLASSES, ToyNetwork, toy_data


class Pair(Method):
    """Two predictions of one network."""

    def __init__(self, density="categorical"):
        super().__init__()
        torch.manual_seed(0)
        self.network, self.density = ToyNetwork(), density

    def forward(self, inputs):
        logits = self.network(inputs)
        return {"student": 20 * logits, "peer": -20 * logits}


@pytest.fixture
def data():
    images = torch.randint(256, (30, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)) // 9
    foreign = ForeignData(name="dark", images=ResidentImages(images, torch.zeros(30)), fingerprint="dark")
    return replace(toy_data(), foreign=foreign)


def logits_on(method, data, split):
    method.eval()
    batches = data.loader(split, train=False, batch_size=100).epoch(0)
    with torch.no_grad():
        (batch,) = batches
        return method(batch.inputs), batch.labels


def judged(logits, targets, foreign):
    meter = task_named("classification").meter()
    meter.update(logits, targets)
    meter.update_foreign(foreign)
    return meter.compute() | meter.compute_foreign()


def test_without_foreign_data_a_softmax_is_scored_as_ever():
    found = score_method(Pair(), toy_data())
    assert set(found.scores) == {
        f"{split}_{metric}{suffix}"
        for split in ("validation", "test")
        for metric in ("accuracy", "nll", "ece")
        for suffix in ("", "/peer")
    }
    assert set(found.pictures) == {"reliability"}
    assert sum(found.pictures["reliability"]["count"]) == 48


def test_foreign_data_give_every_prediction_its_uncertainty(data):
    method = Pair()
    found = score_method(method, data)
    logits, targets = logits_on(method, data, "test")
    others, _ = logits_on(method, data, "foreign")
    for name, suffix in (("student", ""), ("peer", "/peer")):
        scores = judged(logits[name], targets, others[name])
        assert found.scores[f"foreign_auroc_total{suffix}"] == pytest.approx(scores["auroc_total"], rel=1e-5)
        assert found.scores[f"test_total_uncertainty{suffix}"] == pytest.approx(scores["total_uncertainty"], rel=1e-5)
        assert found.scores[f"test_prr{suffix}"] == pytest.approx(scores["prr"], abs=1e-3)
    assert "foreign_auroc_knowledge" not in found.scores
    assert set(found.pictures["uncertainty"]) == {"total"}
    counts = found.pictures["uncertainty"]["total"]
    assert (sum(counts["test"]), sum(counts["foreign"])) == (48, 30)


def test_a_dirichlet_has_knowledge_even_without_foreign_data(data):
    method = Pair("dirichlet")
    logits, _ = logits_on(method, data, "test")
    found = score_method(method, toy_data())
    assert found.scores["test_knowledge_uncertainty"] == pytest.approx(
        of_dirichlet(logits["student"]).knowledge.mean().item(), rel=1e-4
    )
    assert not any(name.startswith("foreign") for name in found.scores)
    assert set(found.pictures["uncertainty"]) == {"total", "data", "knowledge"}
    assert set(found.pictures["uncertainty"]["knowledge"]) == {"edges", "test"}
    assert "foreign_auroc_knowledge/peer" in score_method(method, data).scores


def test_what_is_absent_is_not_scored(data):
    found = score_method(Pair(), data.with_splits(test=None))
    assert not any(name.startswith(("test", "foreign")) for name in found.scores)
    assert set(found.pictures) == {"reliability"}
    assert score_method(Pair(), data.with_splits(test=None, validation=None)).pictures == {}


def test_a_network_in_training_mode_is_scored_in_eval_mode():
    method = Pair().train()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    score_method(method, toy_data())
    assert method.training
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert isinstance(method.network.classifier, nn.Linear)
    assert method.network.classifier.out_features == CLASSES
