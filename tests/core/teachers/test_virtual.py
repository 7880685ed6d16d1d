"""Teachers made by hand."""

import math

import pytest
import torch

from tutelage.core.teachers import UniformTeacher, VirtualTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.losses import kd_loss


def batch_of(rows=16):
    return Batch(inputs=torch.randn(rows, 4) + 1, targets=torch.randint(0, 3, (rows,)))


def test_uniform_teacher_knows_nothing():
    assert torch.equal(UniformTeacher(7)(batch_of(5)).logits, torch.zeros(5, 7))


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("confidence", [0.6, 0.99, 1.0])
def test_virtual_teacher_is_right_with_its_confidence(classes, confidence):
    batch = Batch(inputs=torch.zeros(6, 1), targets=torch.randint(0, classes, (6,)))
    probability = VirtualTeacher(classes, confidence=confidence)(batch).logits.softmax(1)
    expected = torch.full((6, classes), (1 - confidence) / (classes - 1))
    expected[torch.arange(6), batch.labels] = confidence
    assert torch.allclose(probability, expected, atol=1e-6)
    raw = VirtualTeacher(classes, confidence=confidence, softening="probability")(batch).logits
    assert torch.allclose(raw, expected, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0, 1000.0])
def test_a_one_hot_virtual_teacher_stays_one_hot_and_finite(temperature):
    batch = Batch(inputs=torch.zeros(1, 1), targets=torch.tensor([2]))
    logits = VirtualTeacher(5, confidence=1.0)(batch).logits
    assert (logits / temperature).softmax(1).tolist() == [[0.0, 0.0, 1.0, 0.0, 0.0]]
    student = torch.randn(1, 5)
    expected = -(student / temperature).log_softmax(1)[0, 2] * temperature**2
    assert kd_loss(student, logits, temperature).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("classes", "confidence", "message"),
    [
        (10, 0.05, "confidence=0.05 .* chance, 1/10"),
        (10, 1.01, "confidence=1.01"),
        (10, math.nan, "confidence=nan"),
        (1, 0.99, "two classes or more, not 1"),
    ],
)
def test_virtual_teacher_refuses(classes, confidence, message):
    with pytest.raises(UserError, match=message):
        VirtualTeacher(classes, confidence=confidence)


def test_virtual_teacher_needs_labels():
    with pytest.raises(UserError, match="needs labels"):
        VirtualTeacher(3)(Batch(inputs=torch.zeros(2, 1)))


def test_equal_hand_made_teachers_are_the_same_teacher():
    # Otherwise a run that was stopped could not go on.
    for make in (lambda: VirtualTeacher(5), lambda: VirtualTeacher(5, dtype=torch.float64), lambda: UniformTeacher(5)):
        assert make().identity() == make().identity()
        assert make().known_by() is None
