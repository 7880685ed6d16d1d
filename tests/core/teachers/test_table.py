"""Answers that were given beforehand, one for each training sample."""

import pytest
import torch

from tutelage.core.teachers import TableTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError

LOGITS = torch.arange(12.0).view(4, 3)


def test_a_sample_gets_its_own_answer_whatever_its_view():
    batch = Batch(inputs=torch.rand(3, 1, 2, 2), indices=torch.tensor([2, 0, 2]))
    assert torch.equal(TableTeacher(LOGITS)(batch).logits, LOGITS[[2, 0, 2]])


def test_two_tables_are_two_teachers():
    assert TableTeacher(LOGITS).identity() == TableTeacher(LOGITS.clone()).identity()
    assert TableTeacher(LOGITS).identity() != TableTeacher(LOGITS + 1).identity()


def test_inputs_that_no_one_was_asked_about_are_refused():
    teacher = TableTeacher(LOGITS)
    with pytest.raises(UserError, match="inputs that were made in training"):
        teacher(Batch(inputs=torch.rand(2, 1, 2, 2)))
    with pytest.raises(UserError, match="It mixes, and these answers were given beforehand: pass the teacher"):
        teacher.must_be_live("It mixes")
