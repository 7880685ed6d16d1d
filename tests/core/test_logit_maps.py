"""Maps of logits of two networks."""

import torch
from torch import nn

from tutelage.core.logit_maps import LogitMaps, reading_logit_maps
from tutelage.core.teachers import BlackBoxTeacher, FrozenTeacher, Teacher
from tutelage.data.batch import Batch, Output

INPUTS = torch.rand(2, 3, 16, 24)


def net(width=4, stride=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, stride, 1), nn.ReLU(), nn.Conv2d(width, 5, 1)).eval()


def test_both_are_read_at_their_own_stride_and_meet_at_the_coarser():
    student, other = net(), net(stride=2)
    reader, teacher, maps = reading_logit_maps(student, FrozenTeacher(other), INPUTS)
    assert maps == LogitMaps("2", "2")
    ours, theirs = maps.of(reader(INPUTS), teacher(Batch(inputs=INPUTS)))
    torch.testing.assert_close(ours, student(INPUTS))
    torch.testing.assert_close(theirs, nn.functional.adaptive_avg_pool2d(other(INPUTS), (4, 6)))


class Reordered(Teacher):
    """Answers with the network's classes in another order."""

    def __init__(self, network):
        super().__init__()
        self.inner = FrozenTeacher(network)

    def inner_network(self):
        return self.inner.network

    def reading(self, layers, *, example=None, logits=True):
        return self

    def forward(self, batch):
        return Output(logits=self.inner(batch).logits.flip(1))


def test_a_teacher_whose_classes_stand_in_another_order_is_read_by_its_answers():
    other = net()
    _, teacher, maps = reading_logit_maps(net(), Reordered(other), INPUTS)
    assert maps.teacher is None
    said = teacher(Batch(inputs=INPUTS))
    _, theirs = maps.of(Output(logits=torch.zeros(2, 5, 16, 24)), said) if maps.student is None else (None, said.logits)
    assert theirs.shape[2:] == (16, 24)


def test_a_black_box_is_not_asked_and_its_answers_are_read():
    asked = []

    def ask(inputs):
        asked.append(len(inputs))
        return net()(inputs)

    _, _, maps = reading_logit_maps(net(), BlackBoxTeacher(ask, identity="x"), INPUTS)
    assert maps == LogitMaps("2", None)
    assert not asked
