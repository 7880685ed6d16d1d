"""Answers that were put through a softmax or a sigmoid already are no scores: they would teach next to nothing."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import tutelage
from tutelage.core.teachers import BlackBoxTeacher, EnsembleTeacher, FrozenTeacher
from tutelage.core.teachers.class_map import ClassMap, ClassMapTeacher
from tutelage.data.task import task_named
from tutelage.errors import Notice, UserError

SETTINGS = {"epochs": 1, "progress": False, "batch_size": 16, "precision": "32-true"}
SOFTMAX = r"answers with probabilities, from 0 to 1 with a sum of 1.*torch.nn.Identity\(\).*clamp\(min=1e-12\)\.log\(\)"


class Net(nn.Module):
    def __init__(self, last=None, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, classes), last or nn.Identity()

    def forward(self, inputs):
        return self.last(self.linear(self.conv(inputs).relu().mean((2, 3))))


class NotANumber(Net):
    def forward(self, inputs):
        return super().forward(inputs) * float("nan")


@pytest.fixture(scope="module")
def data():
    images = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return TensorDataset(images, torch.arange(60) % 3)


TEACHERS = {
    "a network": lambda: Net(nn.Softmax(1)),
    "a black box": lambda: BlackBoxTeacher(Net(nn.Softmax(1)).eval()),
    "a member": lambda: EnsembleTeacher([FrozenTeacher(Net()), FrozenTeacher(Net(nn.Softmax(1)))]),
    "mapped": lambda: ClassMapTeacher(FrozenTeacher(Net(nn.Softmax(1), classes=4)), ClassMap(((0,), (1, 3), (2,)))),
    "a mapped box": lambda: ClassMapTeacher(
        BlackBoxTeacher(Net(nn.Softmax(1), classes=5).eval()), ClassMap(((0,), (1,), (2,)))
    ),
}


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("method", ["kd", "dkd"])
def test_a_teacher_that_ends_in_softmax_is_refused_with_the_way_out(method, teacher, data):
    with pytest.raises(UserError, match=f"The teacher {SOFTMAX}"):
        tutelage.distill(method, student=Net(), teacher=TEACHERS[teacher](), data=data, **SETTINGS)


def test_it_is_not_recorded(data, tmp_path):
    with pytest.raises(UserError, match=f"The teacher {SOFTMAX}"):
        tutelage.record(Net(nn.Softmax(1)), data=data, out=tmp_path, views=1)


def test_its_layers_teach_all_the_same(data):
    assert tutelage.distill("at", student=Net(), teacher=Net(nn.Softmax(1)), data=data, layers="conv:conv", **SETTINGS)


@pytest.mark.parametrize("method", ["supervised", "tf-kd-reg", "cs-kd"])
def test_a_student_that_ends_in_softmax_is_refused(method, data):
    with pytest.raises(UserError, match=f"The student {SOFTMAX}"):
        tutelage.distill(method, student=Net(nn.Softmax(1)), data=data, **SETTINGS)


def test_a_last_logarithm_of_the_softmax_is_another_form_of_scores(data):
    """Softened at any temperature, both are the same."""
    found = [
        tutelage.distill("kd", student=Net(), teacher=Net(last), data=data, **SETTINGS).linear.weight
        for last in (nn.Identity(), nn.LogSoftmax(1))
    ]
    torch.testing.assert_close(*found)


def test_a_network_that_is_only_measured_is_measured_and_told(data):
    with pytest.warns(Notice, match=f"The network {SOFTMAX}.*Metrics that read probabilities are not right"):
        found = tutelage.evaluate(Net(nn.Softmax(1)), data=data).scores
    assert found["accuracy"] == tutelage.evaluate(Net(), data=data).scores["accuracy"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_classes_are_told_at_every_size_and_precision(classes, dtype):
    task, scores = task_named("classification"), 3 * torch.randn(2, classes)
    assert task.mistaken(scores.softmax(1).to(dtype)) is not None
    for answer in (scores, scores.abs(), scores.log_softmax(1), scores.sigmoid(), torch.zeros(2, classes)):
        assert task.mistaken(answer.to(dtype)) is None


def test_places_are_told_too():
    answer = torch.randn(2, 3, 4, 4)
    assert task_named("classification").mistaken(answer.softmax(1)) is not None
    assert task_named("classification").mistaken(answer.softmax(2)) is None


def test_a_sigmoid_is_told_where_each_class_is_a_question():
    task, scores = task_named("multi-label"), 3 * torch.randn(2, 12)
    assert "logit(eps=1e-6)" in task.mistaken(scores.sigmoid())
    # Scores, an untrained classifier's zeros, and too few to tell.
    for answer in (scores, torch.zeros(2, 12), scores[:, :3].sigmoid()):
        assert task.mistaken(answer) is None


def test_a_teacher_that_ends_in_sigmoid_is_refused(data):
    targets = (torch.rand(60, 12, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    labelled = TensorDataset(data.tensors[0], targets)
    with pytest.raises(UserError, match="The teacher answers with probabilities, all of them from 0 to 1.*sigmoid"):
        tutelage.distill(
            "kd",
            student=Net(classes=12),
            teacher=Net(nn.Sigmoid(), classes=12),
            data=labelled,
            task="multi-label",
            **SETTINGS,
        )


def test_numbers_may_be_anything():
    assert task_named("regression").mistaken(torch.rand(2, 12).softmax(1)) is None


def test_answers_that_are_no_numbers_are_refused_before_training(data):
    with pytest.raises(UserError, match="The teacher answers with NaN before anything is trained"):
        tutelage.distill("kd", student=Net(), teacher=NotANumber(), data=data, **SETTINGS)
    with pytest.raises(UserError, match="The student answers with NaN before anything is trained"):
        tutelage.distill("supervised", student=NotANumber(), data=data, **SETTINGS)
