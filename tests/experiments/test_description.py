"""What a comparison was made on."""

from dataclasses import replace

import torch

from tutelage.data.ood import foreign_data
from tutelage.experiments.description import describe_data, environment, teacher_facts
from tutelage.models.ensemble import Ensemble
from tutelage.models.size import size_for
from tutelage.testing.toys import CLASSES, ToyNetwork, toy_data


def test_data_are_described_with_their_splits_and_an_absent_one_counts_nothing():
    found = describe_data(toy_data().with_splits(test=None))
    assert (found["train"], found["validation"], found["test"]) == (48, 48, 0)
    assert found["image_size"] == [12, 16]
    assert found["class_names"][1] == "class 1"
    assert "crop:1" in found["augmentation"]


def test_a_teacher_is_scored_on_every_split_there_is():
    torch.manual_seed(0)
    network = ToyNetwork()
    found = teacher_facts(network, toy_data().with_splits(validation=None), device="cpu")
    assert set(found) == {"test_accuracy", "test_nll", "test_ece", "pictures"}
    assert len(found["pictures"]["class_similarity"]) == CLASSES
    assert teacher_facts(network, toy_data().with_splits(validation=None, test=None), device="cpu") == {}


def test_an_ensembles_uncertainty_is_measured_and_a_single_networks_on_foreign_data():
    torch.manual_seed(0)
    networks, data = [ToyNetwork(), ToyNetwork()], toy_data()
    found = teacher_facts(Ensemble(networks), data, device="cpu")
    assert {"test_total_uncertainty", "test_knowledge_uncertainty"} <= found.keys()
    assert found["pictures"]["uncertainty"]["knowledge"].keys() == {"edges", "test"}
    assert "test_total_uncertainty" not in teacher_facts(networks[0], data, device="cpu")
    foreign = replace(data, foreign=foreign_data("digits", data))
    assert "foreign_auroc_total" in teacher_facts(networks[0], foreign, device="cpu")
    assert "foreign_auroc_knowledge" in teacher_facts(Ensemble(networks), foreign, device="cpu")
    untested = teacher_facts(Ensemble(networks), foreign.with_splits(test=None), device="cpu")
    assert not any(name.startswith("foreign") for name in untested)
    assert describe_data(foreign)["foreign"]["name"] == "digits"
    assert describe_data(data)["foreign"] is None


def test_size_is_that_on_images_of_these_data():
    found = size_for(ToyNetwork(), toy_data())
    first, second, head = 6 * 3 * 9 * 6 * 8, 12 * 6 * 9 * 3 * 4, 12 * CLASSES
    assert found.multiply_adds == first + second + head


def test_the_environment_names_what_a_time_depends_on():
    assert {"torch", "device", "threads"} <= environment().keys()
