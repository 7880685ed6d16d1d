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
    assert rehearsed(teacher, 2) is teacher


def test_its_answers_are_made_up_and_nothing_is_asked():
    query = Query()
    found = rehearsed(BlackBoxTeacher(query), 4)
    logits = found(Batch(inputs={"tokens": torch.zeros(6, 7)})).logits
    assert logits.argmax(1).tolist() == [0, 1, 2, 3, 0, 1]
    assert query.asked == 0
    assert rehearsed(BlackBoxTeacher(query), 100)(Batch(inputs=torch.zeros(9, 3))).logits.shape == (9, 100)


def test_each_within_another_is_replaced_and_all_else_is_kept():
    query = Query()
    network = FrozenTeacher(nn.Linear(3, 3))
    teacher = EnsembleTeacher([NoisyTeacher(BlackBoxTeacher(query), std=0.0), network])
    found = rehearsed(teacher, 3)
    inputs = torch.randn(2, 3)
    members = found(Batch(inputs=inputs)).members
    assert members[0].argmax(1).tolist() == [0, 1]
    assert torch.equal(members[1], network(Batch(inputs=inputs)).logits)
    assert query.asked == 0
    assert isinstance(found.teachers[0].teacher, StandIn)
    assert isinstance(teacher.teachers[0].teacher, BlackBoxTeacher), "the teacher itself stays as it is"


def test_it_refuses_as_the_teacher_does():
    with pytest.raises(NoLayersError, match="a BlackBoxTeacher gives only logits"):
        rehearsed(BlackBoxTeacher(Query()), 3).inner_network()
