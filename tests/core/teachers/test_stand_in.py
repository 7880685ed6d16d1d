"""What stands for a teacher whose answers have a price, where nothing is trained."""

import threading

import pytest
import torch
from torch import nn

from tutelage.core.teachers import BlackBoxTeacher, EnsembleTeacher, FrozenTeacher, NoisyTeacher
from tutelage.core.teachers.stand_in import StandIn, rehearsed
from tutelage.data.batch import Batch
from tutelage.errors import NoLayersError


class Query:
    """What it holds cannot be copied, as a client's lock."""

    def __init__(self):
        self.asked, self._lock = 0, threading.Lock()

    def __call__(self, inputs):
        self.asked += len(inputs)
        return inputs * 2


def test_a_teacher_without_a_price_answers_itself():
    teacher = NoisyTeacher(FrozenTeacher(nn.Linear(3, 2)), std=0.1)
    assert teacher.priced() == []
    assert rehearsed(teacher, None, 2) is teacher


def test_what_it_said_stands_for_all_its_answers():
    query = Query()
    batch = Batch(inputs=torch.randn(2, 3))
    found = rehearsed(BlackBoxTeacher(query), batch, 3)
    assert query.asked == 2
    asked = Batch(inputs=torch.randn(5, 3))
    expected = 2 * batch.inputs[[0, 1, 0, 1, 0]]
    assert torch.equal(found(asked).logits, expected)
    assert query.asked == 2


def test_asked_nothing_it_answers_zeros():
    query = Query()
    found = rehearsed(BlackBoxTeacher(query), None, 4)
    assert torch.equal(found(Batch(inputs={"tokens": torch.zeros(3, 7)})).logits, torch.zeros(3, 4))
    assert query.asked == 0


def test_each_within_another_is_replaced_and_all_else_is_kept():
    query = Query()
    network = FrozenTeacher(nn.Linear(3, 3))
    teacher = EnsembleTeacher([NoisyTeacher(BlackBoxTeacher(query), std=0.0), network])
    found = rehearsed(teacher, None, 3)
    inputs = torch.randn(2, 3)
    members = found(Batch(inputs=inputs)).members
    assert torch.equal(members[0], torch.zeros(2, 3))
    assert torch.equal(members[1], network(Batch(inputs=inputs)).logits)
    assert query.asked == 0
    assert isinstance(found.teachers[0].teacher, StandIn)
    assert isinstance(teacher.teachers[0].teacher, BlackBoxTeacher), "the teacher itself stays as it is"


def test_it_refuses_as_the_teacher_does():
    with pytest.raises(NoLayersError, match="a BlackBoxTeacher gives only logits"):
        rehearsed(BlackBoxTeacher(Query()), None, 3).inner_network()
