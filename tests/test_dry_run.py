"""A run that trains nothing, and writes nothing."""

import pytest
import torch

from tutelage import registry
from tutelage.dry_run import DryRun
from tutelage.errors import UserError
from tutelage.options import parse_choice
from tutelage.toys import STUDENT_WIDTH, TRAINING, toy_data, toy_experiment


class Noting(DryRun):
    def __init__(self):
        super().__init__(TRAINING)
        self.stages = []

    def meet(self, name, method, data, *, epochs, stop):
        self.stages.append(name)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("method", registry.names())
def test_every_method_is_built_and_nothing_is_written(method, tmp_path):
    try:
        network = toy_experiment().execute(parse_choice(method), DryRun(TRAINING))
    except UserError:
        # It takes a teacher as wide as the student.
        network = toy_experiment(teacher_width=STUDENT_WIDTH).execute(parse_choice(method), DryRun(TRAINING))
    assert network(toy_data().example(2)).shape == (2, 6)
    assert not network.training
    assert not list(tmp_path.iterdir())


def test_an_artefact_may_have_a_stand_in():
    run = DryRun(TRAINING)
    assert run.stage("words", lambda: "learned") == "learned"
    assert run.stage("words", lambda: "learned", rehearse=lambda: "first") == "first"


def test_every_stage_of_a_recipe_is_met_in_its_turn():
    run = Noting()
    toy_experiment().execute(parse_choice("born-again:generations=2"), run)
    assert run.stages == ["generation-0", "generation-1"]


def test_a_network_that_is_handed_back_shares_nothing_with_the_method():
    kept = {}

    class Keeping(DryRun):
        def meet(self, name, method, data, *, epochs, stop):
            kept[name] = method

    network = toy_experiment().execute(parse_choice("supervised"), Keeping(TRAINING))
    for parameter in network.requires_grad_(False).parameters():
        torch.nn.init.zeros_(parameter)
    assert all(parameter.requires_grad for parameter in kept["distill"].parameters())
    assert any(bool(parameter.any()) for parameter in kept["distill"].parameters())
