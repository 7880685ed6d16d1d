"""Scores of networks on data."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.data.ood import foreign_data
from tutelage.data.sources import load_data
from tutelage.evaluation.scores import Scores, collect, judge, judge_on, members_on, predictions_of, score
from tutelage.evaluation.uncertainty import auroc, of_dirichlet, of_members, rejection_ratio, uncertainty_of
from tutelage.models.ensemble import Ensemble


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


def test_a_network_is_judged_by_its_softmax_or_its_dirichlet():
    torch.manual_seed(0)
    logits, targets, foreign = 3 * torch.randn(50, 4), torch.randint(0, 4, (50,)), torch.randn(20, 4)
    plain = judge(logits, targets, foreign)
    assert (plain.accuracy, plain.nll) == (score(logits, targets).accuracy, score(logits, targets).nll)
    assert set(plain.uncertainty) == set(plain.foreign_auroc) == {"total"}
    assert plain.rejection == pytest.approx(rejection_ratio(uncertainty_of(logits).total, logits.argmax(1) != targets))
    dirichlet = judge(logits, targets, foreign, density="dirichlet")
    known, others = of_dirichlet(logits), of_dirichlet(foreign)
    assert dirichlet.uncertainty["knowledge"] == pytest.approx(known.knowledge.mean().item())
    assert dirichlet.foreign_auroc["knowledge"] == auroc(others.knowledge, known.knowledge)
    assert dirichlet.uncertainties().keys() == {
        *(f"test_{kind}_uncertainty" for kind in ("total", "data", "knowledge")),
        *(f"foreign_auroc_{kind}" for kind in ("total", "data", "knowledge")),
        "test_prr",
    }


def test_an_ensemble_is_judged_by_its_mean_and_its_disagreement():
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 50, 4), torch.randint(0, 4, (50,))
    found = judge(logits, targets)
    mean = logits.softmax(2).mean(0)
    assert found.accuracy == (mean.argmax(1) == targets).double().mean().item()
    assert found.nll == pytest.approx(-mean.gather(1, targets[:, None]).log().mean().item(), rel=1e-5)
    assert found.uncertainty["knowledge"] == pytest.approx(of_members(logits).knowledge.mean().item())
    assert found.foreign_auroc == {}


def test_answers_without_an_error_have_no_rejection_ratio():
    found = judge(torch.eye(3), torch.arange(3))
    assert found.rejection is None
    assert "test_prr" not in found.uncertainties()


def test_the_members_of_an_ensemble_are_asked_one_by_one():
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(3)]
    data = load_data("digits", subset=100)
    logits, targets = members_on(Ensemble(networks), data, "test", device="cpu")
    alone, _ = members_on(networks[1], data, "test", device="cpu")
    assert logits.shape == (3, len(targets), 10)
    assert torch.equal(logits[1], alone[0])
    with_foreign = replace(data, foreign=foreign_data("digits", data))
    found = judge_on(Ensemble(networks), with_foreign, "test", device="cpu")
    assert found.foreign_auroc["knowledge"] == pytest.approx(0.5), "the same images are not told apart"
