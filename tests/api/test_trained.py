"""What one call asks trained networks."""

import json

import pytest
from torch import nn

import tutelage
from tutelage.errors import UserError
from tutelage.testing.toys import CLASSES, ToyNetwork, toy_data

UNCERTAINTY = {"total_uncertainty", "data_uncertainty", "knowledge_uncertainty"}


def test_evaluate_scores_a_split(pairs):
    perfect = toy_data().with_splits(test=None)
    scores = tutelage.evaluate(ToyNetwork(4), data=perfect, split="validation")
    assert 0 <= scores.accuracy <= 1
    with pytest.raises(UserError, match="has no test split"):
        tutelage.evaluate(ToyNetwork(4), data=perfect)
    with pytest.raises(UserError, match="Did you mean 'validation'"):
        tutelage.evaluate(ToyNetwork(4), data=perfect, split="validate")
    with pytest.raises(UserError, match="comes without weights"):
        tutelage.evaluate("tiny_cnn", data=perfect, split="validation")


def test_evaluate_takes_several_networks_as_an_ensemble_and_foreign_data():
    networks = [ToyNetwork(4) for _ in range(2)]
    alone = tutelage.evaluate(networks[0], data=toy_data())
    assert UNCERTAINTY & alone.scores.keys() == {"total_uncertainty"}
    both = tutelage.evaluate(networks, data=toy_data(), foreign="digits")
    assert both.scores.keys() >= UNCERTAINTY
    assert {"foreign_auroc_total", "foreign_auroc_data", "foreign_auroc_knowledge"} <= both.scores.keys()
    read = tutelage.evaluate(networks[0], data=toy_data(), density="dirichlet")
    assert read.scores.keys() >= UNCERTAINTY
    assert read.accuracy == alone.accuracy
    with pytest.raises(UserError, match="No network was given"):
        tutelage.evaluate([], data=toy_data())


def test_a_density_is_kept_with_its_network_and_its_uncertainty_is_reported(pairs, tmp_path):
    settings = {
        "data": "digits",
        "test": None,
        "foreign": pairs,
        "epochs": 1,
        "progress": False,
        "out": tmp_path / "endd",
    }
    tutelage.distill("endd", student="tiny_cnn,width=2", teacher=["tiny_cnn,width=2", "tiny_cnn,width=3"], **settings)
    assert json.loads((tmp_path / "endd" / "network.json").read_text())["density"] == "dirichlet"
    content = json.loads((tmp_path / "endd" / "comparison.json").read_text())
    (row,) = content["rows"]
    assert {"test_knowledge_uncertainty", "foreign_auroc_knowledge"} <= row["summary"]["best"].keys()
    assert row["runs"][0]["pictures"]["uncertainty"]["knowledge"].keys() == {"edges", "test", "foreign"}
    assert content["data"]["foreign"] == {"name": "foreign", "samples": 96}
    assert "foreign_auroc_knowledge" in content["teacher"]
    assert "uncertainty" in content["teacher"]["pictures"]
    found = tutelage.evaluate(str(tmp_path / "endd"), data="digits", foreign=pairs)
    assert found.scores.keys() >= UNCERTAINTY
    assert found.foreign_auroc_total == pytest.approx(row["runs"][0]["best"]["foreign_auroc_total"], abs=1e-6)


def test_an_ensemble_of_other_classes_is_refused(pairs):
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 16, CLASSES + 1))
    with pytest.raises(UserError, match="For 2 samples the .* returns shape .*, but data has 6 classes"):
        tutelage.evaluate([ToyNetwork(4), other], data=pairs)
