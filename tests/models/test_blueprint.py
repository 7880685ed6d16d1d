"""Blueprints: the same network from the same seed, and fresh ones from others."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.models.blueprint import blueprint, check_classes, check_takes
from tutelage.models.normalization import Normalized
from tutelage.models.saving import save_network
from tutelage.system.digests import seed_of


@pytest.fixture(scope="module")
def data():
    return load_data("digits", subset=100)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def factory():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.mark.parametrize("source", ["tiny_cnn,width=4", factory], ids=["spec", "factory"])
def test_weights_follow_from_seed_and_part(source, data):
    plan = blueprint(source, data)
    torch.rand(3)
    assert same(plan.build(0, "student"), plan.build(0, "student"))
    assert not same(plan.build(0, "student"), plan.build(1, "student"))
    assert not same(plan.build(0, "student"), plan.build(0, "generation-1"))


def test_weights_are_those_of_the_seed_of_the_part_whatever_generator_a_factory_draws_from(data):
    torch.manual_seed(seed_of(3, "network/student"))
    expected = factory()
    assert same(blueprint(factory, data).build(3, "student"), expected)

    def foreign():
        network = factory()
        nn.init.constant_(network[1].bias, random.random() + np.random.rand())
        return network

    plan = blueprint(foreign, data)
    assert same(plan.build(3, "student"), plan.build(3, "student"))


def test_a_network_that_its_user_has_elsewhere_comes_to_the_cpu(data):
    class Elsewhere(nn.Linear):
        home = "cuda"

        def cpu(self):
            self.home = "cpu"
            return super().cpu()

    original = Elsewhere(2, 2)
    assert blueprint(original, data).build(0, "teacher").home == "cpu"
    assert blueprint(lambda: original, data).build(0, "teacher").home == "cpu"


def test_building_leaves_the_random_generator_alone(data):
    before = torch.get_rng_state()
    blueprint("tiny_cnn,width=4", data).build(0, "student")
    assert torch.equal(before, torch.get_rng_state())


def test_a_module_is_copied_with_its_weights(data):
    module = factory()
    copy = blueprint(module, data).build(5, "student")
    assert copy is not module
    assert same(copy, module)


def test_an_untrained_twin_of_a_module_has_other_weights(data):
    module = factory()
    twin = blueprint(module, data, trained=True).build_untrained(5, "teacher")
    assert not same(twin, module)
    assert same(twin, blueprint(module, data).build_untrained(5, "teacher"))


def test_a_network_by_name_carries_the_datas_statistics(data):
    network = blueprint("tiny_cnn,width=4", data).build(0, "student")
    assert isinstance(network, Normalized)
    assert network.normalization.mean == pytest.approx(data.mean)


def test_a_saved_run_is_trained_and_a_name_is_not(data, tmp_path):
    network = blueprint("tiny_cnn,width=4", data).build(0, "student")
    save_network(tmp_path, network, spec=network.spec, num_classes=10, in_channels=1)
    plan = blueprint(str(tmp_path), data)
    assert plan.trained
    assert not blueprint("tiny_cnn,width=4", data).trained
    assert same(plan.build(3, "teacher"), network)
    assert not same(plan.build_untrained(3, "teacher"), network)


def test_a_network_for_other_inputs_is_refused_and_left_as_it_was(data):
    network = nn.Sequential(nn.Dropout(), nn.Conv2d(3, 4, 3))
    with pytest.raises(
        UserError, match=r"The student cannot take inputs of shape \[2, 1, 8, 8\] of .*: Given groups=1"
    ):
        check_takes(network, data, who="student")
    assert network.training
    assert check_takes(factory(), data, who="student").shape == (2, 10)


def test_wrong_classes_are_told_by_number(data):
    with pytest.raises(UserError, match=r"the teacher returns shape .* 10 classes"):
        check_classes(nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), data, who="teacher")
    check_classes(factory(), data, who="teacher")
