"""One method, one seed; and comparisons that are killed and go on."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.core import registry
from tutelage.core.registry import Entry
from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, Together, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.experiments.choice import Choice, parse_choice
from tutelage.experiments.comparison import Comparison
from tutelage.experiments.experiment import Experiment
from tutelage.methods.supervised import Supervised
from tutelage.models.blueprint import blueprint
from tutelage.system.console import Silent
from tutelage.testing.toys import Recorder
from tutelage.training.run import Run
from tutelage.training.settings import Training

TRAINING = Training(epochs=2, batch_size=32, precision="32-true", log_every=1)
ROWS = ["supervised", "fitnet", "fitnet:variant=paper", "kd", "kd-shuffled-teacher", "tf-kd-self"]


@pytest.fixture(scope="module")
def data():
    return load_data("digits", subset=150, augment="crop:1")


@pytest.fixture(scope="module")
def experiment(data):
    students = (blueprint("tiny_cnn,width=4", data),)
    return Experiment(data=data, students=students, teachers=(blueprint("tiny_cnn,width=6", data),))


def comparison(experiment, folder, **changes):
    plain = Comparison(
        choices=[parse_choice(row) for row in ROWS],
        experiment=experiment,
        training=TRAINING,
        teacher_training=TRAINING,
        seeds=[0, 1],
        folder=folder,
        baseline="supervised",
    )
    return replace(plain, **changes)


class PowerCut(BaseException):
    """Ends everything as kill -9 does."""


class Cutting(Silent):
    def __init__(self, after):
        self.left, self.begun = after, []

    def begin(self, title, *, total, done):
        self.begun.append((title, done))

    def advance(self, steps):
        self.left -= steps
        if self.left == 0:
            raise PowerCut


TIMES = {"seconds", "images_per_second", "created", "relative_cost", "stages"}


def numbers(content):
    if isinstance(content, dict):
        return {key: numbers(value) for key, value in content.items() if key not in TIMES}
    return [numbers(item) for item in content] if isinstance(content, list) else content


def test_a_comparison_killed_three_times_gives_the_numbers_of_one_that_was_not(experiment, tmp_path):
    whole = Cutting(-1)
    comparison(experiment, tmp_path / "whole").run(whole)
    often = replace(TRAINING, checkpoint_seconds=0.0)
    titles = []
    for batches in (7, 13, 40):
        reporter = Cutting(batches)
        with pytest.raises(PowerCut):
            comparison(experiment, tmp_path / "cut", training=often, teacher_training=often).run(reporter)
        titles += reporter.begun
    last = Cutting(-1)
    comparison(experiment, tmp_path / "cut", training=often, teacher_training=often).run(last)
    titles += last.begun
    assert any(done for _, done in titles), "a training went on in its middle"
    assert len(titles) == len(whole.begun) + 3, "what was finished was not run again"
    one, other = (json.loads((tmp_path / name / "comparison.json").read_text()) for name in ("whole", "cut"))
    one["settings"], other["settings"] = 0, 0
    for content in (one, other):
        for row in content["rows"]:
            for run in row["runs"]:
                run["folder"] = 0
    assert numbers(one) == numbers(other)


def test_the_teacher_is_trained_once_for_all_rows_and_seeds(experiment, tmp_path):
    reporter = Cutting(-1)
    comparison(experiment, tmp_path, choices=[parse_choice("kd"), parse_choice("kd:alpha=0.5")]).run(reporter)
    assert [title for title, _ in reporter.begun].count("teacher") == 1


@pytest.mark.parametrize("row", ["kd", "de-kd", "re-kd"])
def test_a_method_without_its_teacher_is_told_what_to_pass(row, experiment, tmp_path):
    lonely = replace(experiment, teachers=())
    with pytest.raises(UserError, match="pass --teacher"):
        comparison(lonely, tmp_path, choices=[parse_choice(row)]).run()
    assert not list(tmp_path.iterdir())


def test_a_trained_teacher_comes_as_it_is(data, experiment, tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    given = replace(experiment, teachers=(blueprint(module, data, trained=True),))
    found = given.train_teacher(Run(tmp_path, TRAINING))
    assert torch.equal(found.network[1].weight, module[1].weight)
    assert not found.training
    assert not list(tmp_path.iterdir())


def test_a_teacher_object_answers_for_itself(experiment, tmp_path):
    own = replace(experiment, teachers=(), answers=UniformTeacher(10))
    network = own.execute(parse_choice("kd"), Run(tmp_path, replace(TRAINING, epochs=1)))
    assert network(experiment.data.example(2)).shape == (2, 10)


def test_one_teacher_object_serves_all_methods(data, experiment):
    network = blueprint("tiny_cnn,width=6", data).build(0, "teacher")
    for answers in (FrozenTeacher(network), EnsembleTeacher([FrozenTeacher(network), FrozenTeacher(network)])):
        one = replace(experiment, answers=answers)
        first = one._teacher()
        # Whatever a method did with it.
        network.train().requires_grad_(True)
        assert one._teacher() is first
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not any(module.training for module in network.modules())
        assert replace(one, answers=FrozenTeacher(network))._teacher() is not first


def test_the_same_seed_starts_from_the_same_student_in_every_method(experiment, tmp_path):
    starts = []

    class Looking(Run):
        def fit(self, name, method, data, **options):
            starts.append(next(method.student.parameters()).detach().clone())
            return method.export()

    for row in ("supervised", "tf-kd-reg", "label-smoothing"):
        experiment.execute(parse_choice(row), Looking(tmp_path, TRAINING))
    assert all(torch.equal(start, starts[0]) for start in starts)


def test_conveniences_may_change_without_running_anything_again(experiment, tmp_path):
    small = comparison(experiment, tmp_path, choices=[parse_choice("kd")], seeds=[0])
    small.run()
    other, reporter = replace(TRAINING, checkpoint_seconds=1.0, log_every=7, workers=0), Cutting(-1)
    replace(small, training=other, teacher_training=other).run(reporter)
    assert not reporter.begun


def test_a_teacher_that_its_user_has_elsewhere_comes_to_the_cpu(experiment, tmp_path):
    class Elsewhere(UniformTeacher):
        home = "cuda"

        def cpu(self):
            self.home = "cpu"
            return super().cpu()

    teacher = Elsewhere(10)
    run = Run(tmp_path, replace(TRAINING, epochs=1))
    replace(experiment, teachers=(), answers=teacher).execute(parse_choice("kd"), run)
    assert teacher.home == "cpu"


def test_a_student_for_other_images_is_refused_before_anything_is_trained(data, tmp_path):
    students = (blueprint(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10)), data),)
    with pytest.raises(UserError, match="The student cannot take inputs of shape"):
        Experiment(data=data, students=students).execute(parse_choice("supervised"), Run(tmp_path, TRAINING))
    assert not list(tmp_path.iterdir())


def test_several_teachers_are_each_trained_and_answer_as_an_ensemble(data, experiment, tmp_path):
    plan = blueprint("tiny_cnn,width=6", data)
    teacher = replace(experiment, teachers=(plan, plan)).train_teacher(Run(tmp_path, TRAINING))
    assert isinstance(teacher, EnsembleTeacher)
    assert {path.name for path in tmp_path.iterdir()} == {"teacher", "teacher-2"}
    one, other = (next(member.parameters()) for member in teacher.teachers)
    assert not torch.equal(one, other), "each has a seed of its own"
    built = Experiment(data=data, students=experiment.students, answers=teacher)
    run = Recorder()
    built.execute(parse_choice("kd"), run)
    assert run.methods["distill"].teacher is teacher
    assert teacher(Batch(inputs=data.example(3))).members.shape == (2, 3, 10)


def test_a_teacher_that_answers_otherwise_has_scores_and_folders_of_its_own(data, experiment, tmp_path):
    plan = blueprint("tiny_cnn,width=6", data)
    facts, cells = [], set()
    for way in (Together(), Together("weighted"), Together("surest")):
        two = replace(experiment, teachers=(plan, plan), together=way)
        rows = {"choices": [parse_choice("kd")], "baseline": "kd", "seeds": [0]}
        found = comparison(two, tmp_path, **rows, training=replace(TRAINING, epochs=1)).run()
        facts.append(found["teacher"])
        cells |= {path.name for path in (tmp_path / "runs").iterdir()}
    assert [one["spec"].partition("6")[2] for one in facts] == ["", " (weighted)", " (surest)"]
    assert len({one["test_nll"] for one in facts}) == 3
    assert len(cells) == 3


def test_the_first_student_starts_alike_whether_alone_or_among_peers(data):
    plan = blueprint("tiny_cnn,width=4", data)
    several = Experiment(data=data, students=(plan, plan))
    asked = {}

    def build(student, students):
        asked.update(student=student, students=students)
        return Supervised(student)

    several.execute(Choice(Entry(name="both", build=build, papers=()), {}), Recorder())
    one, (first, second) = asked["student"], asked["students"]
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), first.state_dict().values()))
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


def test_a_wrapper_runs_another_method_with_fixtures_replaced(experiment):
    def wrapper(distill, num_classes, *, method="kd:temperature=7"):
        return distill(method, teacher=UniformTeacher(num_classes))

    choice, run = Choice(Entry(name="wrapper", build=wrapper, papers=()), {}), Recorder()
    assert choice.fixtures == {"distill", "num_classes", "student", "teacher"}
    replace(experiment, teachers=()).execute(choice, run)
    inner = run.methods["distill"]
    assert inner.temperature == 7
    assert isinstance(inner.teacher, UniformTeacher)


def test_a_wrapper_around_a_wrapper_hands_on_what_it_replaces(experiment):
    def outer(distill, num_classes, *, method="inner"):
        return distill(method, teacher=UniformTeacher(num_classes))

    def inner(distill, *, method="kd"):
        return distill(method)

    found = Entry(name="inner", build=inner, papers=())
    run = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.REGISTERED, "inner", found)
        experiment.execute(Choice(Entry(name="outer", build=outer, papers=()), {}), run)
    assert isinstance(run.methods["distill"].teacher, UniformTeacher)


def test_replaced_data_are_what_is_trained_on(experiment):
    other = replace(experiment.data, fingerprint="other")
    met = {}

    class Looking(Recorder):
        def meet(self, name, method, data, **how):
            met[name] = data

    for row in ("supervised", "tf-kd-self"):
        experiment.execute(parse_choice(row), Looking(), data=other)
    assert set(met) == {"distill", "self-teacher"}
    assert all(data is other for data in met.values())
