"""Comparisons: what is shared, what is compared with what, and what happens to a row that fails."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tutelage.cli.commands import distill
from tutelage.cli.flags import DistillOptions, LearningDataOptions, NetworkOptions
from tutelage.cli.parser import parse
from tutelage.core.teachers import UniformTeacher
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice, check_options, parse_choice
from tutelage.experiments.comparison import Comparison
from tutelage.experiments.experiment import Experiment
from tutelage.models.blueprint import blueprint
from tutelage.models.normalization import bare
from tutelage.system.console import Silent
from tutelage.training.settings import Training

TRAINING = Training(epochs=1, batch_size=32, precision="32-true", log_every=1)


@pytest.fixture(scope="module")
def experiment():
    data = load_data("digits", subset=150, augment="crop:1")
    students = (blueprint("tiny_cnn,width=4", data),)
    return Experiment(data=data, students=students, teachers=(blueprint("tiny_cnn,width=6", data),))


@pytest.fixture
def comparison(experiment, tmp_path):
    def make(*rows, **changes):
        plain = Comparison(
            choices=[parse_choice(row) for row in rows],
            experiment=experiment,
            training=TRAINING,
            teacher_training=TRAINING,
            seeds=[0],
            folder=tmp_path,
            baseline=rows[0],
        )
        return replace(plain, **changes)

    return make


class Watching(Silent):
    def __init__(self):
        self.begun = []

    def begin(self, title, *, total, done):
        self.begun.append(title)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("kd:alpha=3", "alpha=3.0 must be between 0 and 1"),
        ("kd:temperature=0", "temperature=0.0 must be above zero"),
        ("tolerant-teacher:eta=2", "eta=2.0 must be between 0 and 1"),
        ("born-again:generations=1", "generations=1"),
        ("re-kd:alpha=2", "alpha=2.0"),
        ("de-kd:teacher_epochs=-1", "teacher_epochs=-1"),
    ],
)
def test_a_row_that_cannot_be_built_is_told_before_anything_is_trained(row, expected, comparison, tmp_path):
    reporter = Watching()
    with pytest.raises(UserError, match=expected) as error:
        comparison("supervised", "kd", row).run(reporter)
    assert str(error.value).startswith(row.partition(":")[0])
    assert not reporter.begun
    assert not list(tmp_path.iterdir())


def test_a_student_of_other_classes_and_a_teacher_of_other_classes_are_told_at_once(comparison, experiment, tmp_path):
    data = experiment.data
    seven = blueprint(lambda: blueprint("tiny_cnn", replace(data, num_classes=7)).build(0, "teacher"), data)
    with pytest.raises(UserError, match="For 2 samples the teacher returns shape"):
        comparison("kd", experiment=replace(experiment, teachers=(seven,))).run()
    assert not list(tmp_path.iterdir())


def test_checking_leaves_chance_where_it_was(comparison):
    import torch

    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    comparison("kd", "born-again").check()
    assert torch.equal(torch.rand(3), expected)


def test_the_teacher_is_trained_once_for_all_rows_and_seeds(comparison):
    reporter = Watching()
    content = comparison("kd", "kd:alpha=0.5", seeds=[0, 1]).run(reporter)
    assert reporter.begun.count("teacher") == 1
    assert content["teacher"]["trained_here"]
    assert 0 <= content["teacher"]["test_accuracy"] <= 1


def test_a_row_is_compared_with_one_that_trains_the_same_network(comparison):
    rows = ["supervised", "kd-uniform-teacher", "supervised-teacher", "re-kd"]
    found = {row["label"]: row for row in comparison(*rows).run()["rows"]}
    assert [row["plain"] for row in found.values()] == [True, False, True, False]
    baselines = {label: row["baseline"] for label, row in found.items()}
    assert baselines["kd-uniform-teacher"] == baselines["supervised"] == "supervised"
    assert baselines["re-kd"] == baselines["supervised-teacher"] == "supervised-teacher"
    assert found["re-kd"]["parameters"] == found["supervised-teacher"]["parameters"] > found["supervised"]["parameters"]
    assert found["re-kd"]["summary"]["relative_cost"] > 1
    assert found["supervised"]["summary"]["paired"] is None


def test_a_row_that_trains_teachers_has_no_baseline_without_the_plain_teacher(comparison):
    rows = comparison("supervised", "re-kd").run()["rows"]
    assert rows[1]["baseline"] is None
    assert rows[1]["summary"]["paired"] is None


def test_generations_are_members_of_their_row(comparison):
    (row,) = comparison("born-again:generations=2").run()["rows"]
    names = [member["name"] for member in row["runs"][0]["members"]]
    assert names == ["generation-0", "generation-1", "ensemble of 2"]
    last = row["runs"][0]["members"][1]["best"]
    assert last["test_accuracy"] == pytest.approx(row["runs"][0]["best"]["test_accuracy"])


def test_a_row_that_fails_is_reported_and_the_others_are_finished(comparison):
    breaking = comparison("kd-uniform-teacher", "tf-kd-reg:variant=code,multiplier=1e39", "supervised", seeds=[0, 1])
    rows = breaking.run()["rows"]
    assert "became infinite or NaN" in rows[1]["error"]
    assert not rows[1]["runs"]
    assert [len(row["runs"]) for row in (rows[0], rows[2])] == [2, 2]


def test_strictly_a_row_that_fails_ends_everything(comparison, tmp_path):
    with pytest.raises(UserError, match="became infinite or NaN"):
        comparison("tf-kd-reg:variant=code,multiplier=1e39", "supervised", strict=True).run()


def test_a_changed_setting_gets_a_folder_of_its_own(comparison, experiment, tmp_path):
    small = comparison("supervised")
    small.run()
    augmented = replace(experiment, data=load_data("digits", subset=150, augment="none"))
    changed = [
        {"training": replace(TRAINING, lr=0.05)},
        {"experiment": augmented},
        {"choices": [parse_choice("supervised:loss_scale=0.5")]},
    ]
    for count, change in enumerate(changed, start=2):
        reporter = Watching()
        replace(small, **change).run(reporter)
        assert len(reporter.begun) == 1
        assert len(list((tmp_path / "runs").iterdir())) == count
    again = Watching()
    small.run(again)
    assert not again.begun


def test_a_teacher_object_needs_no_network(comparison, experiment):
    own = replace(experiment, teachers=(), answers=UniformTeacher(10))
    content = comparison("kd", experiment=own).run()
    assert content["teacher"] is None
    assert len(content["rows"][0]["runs"]) == 1


def test_the_network_of_a_finished_cell_is_handed_over_and_its_recipe_runs_once(comparison, tmp_path, monkeypatch):
    executed, taken = [], []
    execute = Experiment.execute

    def counting(self, choice, run, **replaced):
        executed.append(type(run).__name__)
        return execute(self, choice, run, **replaced)

    monkeypatch.setattr(Experiment, "execute", counting)
    content = comparison("label-smoothing").run(take=lambda network, run: taken.append((network, run)))
    assert executed == ["Run"]
    [(network, run)] = taken
    folder = tmp_path / Path(content["rows"][0]["runs"][0]["folder"]) / "distill"
    saved = load_file(folder / "student.safetensors")
    assert network.training is False
    assert all(torch.equal(value, saved[name]) for name, value in bare(network).state_dict().items())
    assert run.fitted[-1].name == "distill"


def test_what_would_be_lost_is_tried_before_anything_is_trained(comparison, monkeypatch):
    tried = []
    monkeypatch.setattr(Comparison, "check", lambda self: tried.append(len(self.choices)))
    comparison("label-smoothing").run()
    assert tried == []
    comparison("label-smoothing", "supervised").run()
    comparison("tf-kd-self").run()
    comparison("kd").run()
    assert tried == [2, 1, 1]


def test_a_row_names_the_commands_that_repeat_it(comparison):
    flags = ["--student", "tiny_cnn", "--teacher_epochs", "9", "--epochs=2"]
    (row,) = replace(comparison("kd:temperature=2"), flags=flags, seeds=[0, 3]).run()["rows"]
    shared = "tutelage distill kd --temperature=2.0 --student tiny_cnn --teacher_epochs 9 --epochs=2"
    assert row["command"].splitlines() == [f"{shared} --seed 0", f"{shared} --seed 3"]


def test_the_command_of_a_row_gives_the_row_again(comparison):
    label = "soft-randomization:method=(fickle-teacher:rate=None,method=(kd:temperature=2.0,alpha=0.5)),clip=True"
    flags = ["--student", "tiny_cnn", "tiny_cnn,width=8", "--teacher=tiny_cnn", "tiny_cnn,width=4", "--data", "digits"]
    for row in (label, "fickle-teacher:rate=None"):
        words = shlex.split(replace(comparison(row), flags=flags, seeds=[0])._row_command(parse_choice(row)))
        assert words[:2] == ["tutelage", "distill"]
        entry = catalogue.get(words[2])
        found = parse(distill, words[3:], NetworkOptions, LearningDataOptions, DistillOptions, Training, entry=entry)
        options = check_options(entry, {name: getattr(found, name) for name in parse_choice(row).options})
        assert Choice(entry, options).label == parse_choice(row).label
        assert found.student == ["tiny_cnn", "tiny_cnn,width=8"]
        assert found.teacher == ["tiny_cnn", "tiny_cnn,width=4"]


def test_without_flags_a_row_names_the_whole_command(comparison):
    (row,) = replace(comparison("kd"), command="tutelage.compare(...)").run()["rows"]
    assert row["command"] == "tutelage.compare(...)"


def test_a_common_flag_gives_way_to_the_methods_own(comparison):
    flags = ["--teacher-epochs", "9", "--epochs=2", "--teacher-epochs=9"]
    (row,) = replace(comparison("de-kd:teacher_epochs=1"), flags=flags, seeds=[0]).run()["rows"]
    assert row["command"] == "tutelage distill de-kd --teacher-epochs=1 --epochs=2 --seed 0"
