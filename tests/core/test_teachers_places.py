"""Teachers of maps: logits `[batch, class, height, width]`, labels `[batch, height, width]`."""

import pytest
import torch

from tutelage.core.teachers import EnsembleTeacher, Teacher, UniformTeacher, VirtualTeacher
from tutelage.data.batch import Batch, Output

LABELS = torch.tensor([[[0, 2, -1], [1, 1, 0]], [[2, -1, 2], [0, 1, 2]]])


class Says(Teacher):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, batch):
        return Output(logits=self.logits)


def asked(**changes):
    return Batch(inputs=torch.zeros(2, 1), **{"targets": LABELS, **changes})


def test_an_ensemble_averages_over_classes_at_each_place():
    members = [torch.randn(2, 3, 2, 3, dtype=torch.float64) * 3 for _ in range(2)]
    found = EnsembleTeacher([Says(member) for member in members])(asked()).logits.exp()
    for b in range(2):
        for y in range(2):
            for x in range(3):
                at_place = [member[b, :, y, x].softmax(0) for member in members]
                assert torch.allclose(found[b, :, y, x], (at_place[0] + at_place[1]) / 2, rtol=1e-12)


def test_members_are_averaged_as_the_task_of_the_batch_says():
    class Numbers:
        def mean(self, answers):
            return answers.mean(0)

    members = torch.tensor([[[1.0], [4.0]], [[3.0], [8.0]]])
    found = EnsembleTeacher([Says(member) for member in members])(asked(criterion=Numbers()))
    assert found.logits.tolist() == [[2.0], [6.0]]
    assert torch.equal(found.members, members)


def test_the_uniform_teacher_says_nothing_at_every_place():
    assert torch.equal(UniformTeacher(3)(asked()).logits, torch.zeros(2, 3, 2, 3))
    soft = asked(targets=torch.full((2, 3, 2, 4), 1 / 3))
    assert torch.equal(UniformTeacher(3)(soft).logits, torch.zeros(2, 3, 2, 4))


@pytest.mark.parametrize("softening", ["log-probability", "probability"])
def test_the_virtual_teacher_is_right_at_every_place_that_has_a_label(softening):
    logits = VirtualTeacher(3, confidence=0.9, softening=softening)(asked()).logits
    said = logits.softmax(1) if softening == "log-probability" else logits
    for b in range(2):
        for y in range(2):
            for x in range(3):
                label = int(LABELS[b, y, x])
                expected = [0.9 if k == label else 0.05 for k in range(3)]
                if label == -1:
                    expected = [1 / 3] * 3 if softening == "log-probability" else [0.05] * 3
                assert said[b, :, y, x].tolist() == pytest.approx(expected, rel=1e-5)
