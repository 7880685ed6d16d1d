"""A run that trains nothing, and writes nothing."""

from dataclasses import replace

import pytest
import torch

from tutelage.core.method import TransferSet
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import parse_choice
from tutelage.methods.kd import KD
from tutelage.models.answers import answer
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.kinds import home
from tutelage.testing.toys import (
    LAYERS,
    STUDENT_WIDTH,
    TRAINING,
    Recorder,
    ToyNetwork,
    toy_data,
    toy_experiment,
    toy_recording,
)
from tutelage.training.dry_run import DryRun


class Noting(DryRun):
    def __init__(self):
        super().__init__(TRAINING)
        self.stages = []

    def meet(self, name, method, data, *, epochs, stop):
        self.stages.append(name)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("method", catalogue.names())
def test_every_method_is_built_and_nothing_is_written(method, tmp_path):
    kind = home(catalogue.get(method))
    try:
        network = kind.experiment().execute(parse_choice(method), DryRun(TRAINING))
    except UserError:
        # It takes a teacher as wide as the student.
        network = kind.experiment(teacher_width=STUDENT_WIDTH).execute(parse_choice(method), DryRun(TRAINING))
    assert answer(network, kind.data().example(2)).shape[0] == 2
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


def test_a_recording_that_will_not_do_is_refused_before_anything_is_trained():
    recording = toy_recording("full")
    experiment = toy_experiment(teacher=RecordedTeacher(recording))
    with pytest.raises(UserError, match="6 views of each image at once, but only 4 of each are recorded"):
        experiment.execute(parse_choice("fkd:crops=6"), DryRun(TRAINING))
    experiment.execute(parse_choice("fkd:crops=4"), DryRun(TRAINING))

    class Elsewhere(KD):
        def transfer_set(self, dataset):
            return TransferSet(dataset.select(torch.arange(12).numpy()))

    method, data = Elsewhere(ToyNetwork(), RecordedTeacher(recording)), toy_data()
    DryRun(TRAINING).fit("distill", method, data)
    with pytest.raises(UserError, match="samples that it puts together itself"):
        DryRun(TRAINING).fit("distill", method, replace(data, recording=recording))


def test_of_a_recording_only_the_layers_are_read_that_a_method_reads():
    run = Recorder()
    toy_experiment(teacher=RecordedTeacher(toy_recording("full", layers=LAYERS))).execute(parse_choice("sp"), run)
    assert run.data["distill"].recording.layers == ("layer2",)
