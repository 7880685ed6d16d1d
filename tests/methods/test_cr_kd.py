"""CR-KD as registered. Its losses: parts/test_open_losses.py; its stages: parts/test_discovering.py."""

import pytest

from tutelage.experiments import catalogue
from tutelage.methods import cr_kd
from tutelage.methods.parts import open_losses


@pytest.mark.parametrize("name", ["cr-kd", "uno"])
def test_its_losses_can_be_imported_from_its_file(name):
    for place, function in catalogue.get(name).functions.items():
        assert function is getattr(open_losses, place.rpartition(".")[2])


def test_the_published_weights_are_the_defaults():
    options = catalogue.get("cr-kd").hyper_parameters
    published = {"alpha": 0.1, "relation_temperature": 4.0, "temperature": 0.1, "epsilon": 0.05, "iterations": 3}
    assert published.items() <= options.items()
    assert cr_kd.CR_KD in catalogue.get("cr-kd").papers
