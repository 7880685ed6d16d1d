"""What is true of every teacher."""

import copy

import pytest
import torch
from torch import nn

from tutelage.core.teachers import (
    BlackBoxTeacher,
    EnsembleTeacher,
    FrozenTeacher,
    NoisyTeacher,
    ShuffledTeacher,
    Teacher,
)
from tutelage.data.batch import Batch, Output
from tutelage.losses import kd_loss


class Own(Teacher):
    """What a user might write, thinking of nothing."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, batch):
        return Output(logits=self.network(batch.inputs))


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


def batch_of(rows=16):
    return Batch(inputs=torch.randn(rows, 4) + 1, targets=torch.randint(0, 3, (rows,)))


TEACHERS = {
    "frozen": lambda: FrozenTeacher(network(), ["0", "1:in"]),
    "ensemble": lambda: EnsembleTeacher([FrozenTeacher(network()), FrozenTeacher(network())]),
    "noisy": lambda: NoisyTeacher(FrozenTeacher(network()), std=0.1),
    "shuffled": lambda: ShuffledTeacher(FrozenTeacher(network())),
    "black box": lambda: BlackBoxTeacher(network()),
    "own": lambda: Own(network()),
}


@pytest.fixture(params=list(TEACHERS))
def teacher(request):
    return TEACHERS[request.param]()


# Always in eval mode, always without gradient.


def test_a_teacher_is_born_in_eval_mode(teacher):
    assert not any(module.training for module in teacher.modules())


@pytest.mark.parametrize("how", ["parent", "itself", "each child", "nested"])
def test_a_teacher_stays_in_eval_mode(teacher, how):
    parent = nn.ModuleDict({"student": network(), "wrapper": nn.ModuleList([teacher])})
    if how == "parent":
        parent.train()
    elif how == "itself":
        teacher.train()
    elif how == "each child":
        for child in parent.children():
            child.train()
    else:
        parent["wrapper"].train(True)
    assert not any(module.training for module in teacher.modules())
    assert parent["student"].training


def test_training_a_student_leaves_the_teacher_as_it_was(teacher):
    parent = nn.ModuleDict({"student": network(), "teacher": teacher})
    before = copy.deepcopy(teacher.state_dict())
    for epoch in range(2):
        parent.train()
        for _ in range(3):
            batch = batch_of()
            kd_loss(parent["student"](batch.inputs), teacher(batch).logits).backward()
        parent.eval()
        teacher(batch_of())
        assert parent["student"][1].num_batches_tracked == 3 * (epoch + 1)
    assert before.keys() == teacher.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_answers_carry_no_gradient(teacher):
    batch = batch_of()
    output = teacher(Batch(inputs=batch.inputs.requires_grad_(True), targets=batch.targets))
    assert not output.logits.requires_grad
    assert not any(feature.requires_grad for feature in output.features.values())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_a_teacher_must_answer():
    with pytest.raises(TypeError, match=r"Teacher must define forward\(batch\)"):
        Teacher()(batch_of())


def test_a_teacher_may_be_asked_about_other_inputs_than_the_student():
    torch.manual_seed(0)
    teacher = FrozenTeacher(nn.Linear(4, 3))
    clean, noisy = torch.randn(5, 4), torch.randn(5, 4)
    asked = Batch(inputs=noisy, targets=torch.zeros(5, dtype=torch.long), teacher_inputs=clean)
    expected = teacher(Batch(inputs=clean)).logits
    assert torch.equal(teacher(asked).logits, expected)
    assert torch.equal(EnsembleTeacher([teacher, teacher])(asked).members[1], expected)
    assert len(asked.to("cpu").teacher_inputs) == 5
