"""One way from what a user names to a teacher; a new kind is one class and one entry."""

import pytest
import torch
from torch import nn

import tutelage
from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, Teacher, UniformTeacher, naming
from tutelage.core.teachers.naming import TeacherKind, named_teacher, teacher_of
from tutelage.data.batch import Batch, Output
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.models.ensemble import Ensemble
from tutelage.models.spec import NetworkSpec
from tutelage.system import digests
from tutelage.testing.toys import SIZE, ToyNetwork, toy_data

EXAMPLE = torch.rand(2, 3, *SIZE)


def test_networks_are_named_and_built_later():
    data = toy_data()
    found = named_teacher(["tiny_cnn", ToyNetwork(4), lambda: ToyNetwork(8)], data)
    assert found.answers is None
    assert [plan.trained for plan in found.networks] == [False, True, True]
    assert named_teacher("tiny_cnn", data).networks[0].name == "tiny_cnn"
    assert named_teacher(None, data) == named_teacher([], data) == naming.NamedTeacher()


def test_what_answers_already_is_taken_as_it_is_and_several_are_an_ensemble():
    data = toy_data()
    one, other = UniformTeacher(6), FrozenTeacher(ToyNetwork(4))
    assert named_teacher(one, data).answers is one
    assert named_teacher([one], data).answers is one
    found = named_teacher((one, other), data).answers
    assert isinstance(found, EnsembleTeacher)
    assert list(found.teachers) == [one, other]
    with pytest.raises(UserError, match="all of them as networks, or all as"):
        named_teacher([one, "tiny_cnn"], data)


def test_trained_networks_are_known_by_their_own_weights_however_wrapped():
    networks = [ToyNetwork(4), ToyNetwork(4)]
    assert teacher_of(networks[:1]).identity() == digests.of_tensors(networks[0].state_dict())
    assert teacher_of(networks).identity() == digests.of_tensors(Ensemble(networks).state_dict())
    assert teacher_of(networks).identity() != teacher_of(networks[::-1]).identity()


class Echo(Teacher):
    """Says what it was told to say."""

    def __init__(self, favourite):
        super().__init__()
        self.favourite = favourite

    def forward(self, batch):
        logits = torch.zeros(len(batch), 10)
        logits[:, self.favourite] = 5.0
        return Output(logits=logits)


class Echoes(TeacherKind):
    prefix = "echo"

    def teacher(self, source):
        return Echo(int(source.partition(":")[2])) if isinstance(source, str) and source.startswith("echo:") else None


ECHOES = Echoes()


@pytest.fixture
def echoes(monkeypatch):
    class Point:
        def load(self):
            return ECHOES

    monkeypatch.setattr(naming, "entry_points", lambda group: [Point()] if group == "tutelage.teachers" else [])


def test_a_new_kind_of_teacher_is_one_class_and_one_entry(echoes, tmp_path):
    data = load_data("digits", subset=150)
    quick = {"epochs": 2, "batch_size": 32, "precision": "32-true", "progress": False, "device": "cpu", "lr": 0.5}
    learnt = {}
    for favourite in (3, 7):
        own = {"teacher": f"echo:{favourite}", "out": tmp_path / str(favourite), "alpha": 1.0}
        student = tutelage.distill("kd", student="tiny_cnn,width=3", data=data, **own, **quick)
        learnt[favourite] = set(student(data.example(20)).argmax(1).tolist())
    assert learnt == {3: {3}, 7: {7}}
    with pytest.raises(UserError, match="reads layers of the teacher, and a Echo gives only logits"):
        tutelage.distill("at", student="tiny_cnn,width=3", teacher="echo:3", data=data, **quick)
    recording = tutelage.record("echo:3", data=data, out=tmp_path / "recording", views=1, progress=False, device="cpu")
    assert recording.header.teacher.name == "Echo"


def test_a_name_of_a_teacher_is_no_network():
    with pytest.raises(UserError, match="recording:x is not a network, but only a teacher: name it with --teacher"):
        _ = NetworkSpec.parse("recording:x").kind


def test_a_module_that_teaches_is_frozen_and_copied():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE[0] * SIZE[1], 6))
    plan = named_teacher(module, toy_data()).networks[0]
    teacher = teacher_of([plan.build(0, "teacher")])
    assert torch.equal(teacher(Batch(inputs=EXAMPLE)).logits, module(EXAMPLE))
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
