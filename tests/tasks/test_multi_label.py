"""Multi-label classification against slow loops and known answers."""

import math

import pytest
import torch

from tutelage.data.task import task_named
from tutelage.errors import UserError

TASK = task_named("multi-label")


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def test_the_loss_is_a_question_for_each_class_summed_over_them():
    torch.manual_seed(0)
    logits = (2 * torch.randn(5, 3, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, 2, (5, 3)).double()
    found = TASK.criterion.loss(logits, targets)
    slow = 0.0
    for row, wanted in zip(logits.tolist(), targets.tolist(), strict=True):
        slow -= sum(math.log(sigmoid(z)) if y else math.log(1 - sigmoid(z)) for z, y in zip(row, wanted, strict=True))
    assert found.item() == pytest.approx(slow / 5)
    (gradient,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(gradient, (logits.detach().sigmoid() - targets) / 5)


def test_the_divergence_is_between_bernoulli_distributions():
    torch.manual_seed(0)
    student, teacher = (torch.randn(4, 3, dtype=torch.float64) for _ in range(2))
    student.requires_grad_()
    found = TASK.criterion.divergence(student, teacher, 2.0)
    slow = 0.0
    for row, other in zip(student.tolist(), teacher.tolist(), strict=True):
        for z, t in zip(row, other, strict=True):
            p, q = sigmoid(t / 2), sigmoid(z / 2)
            slow += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert found.item() == pytest.approx(4 * slow / 4)
    (gradient,) = torch.autograd.grad(found, student)
    torch.testing.assert_close(gradient, 2 * ((student / 2).sigmoid() - (teacher / 2).sigmoid()).detach() / 4)
    with pytest.raises(UserError, match="use 'batchmean'"):
        TASK.criterion.divergence(student, teacher, reduction="mean")


def test_several_networks_answer_with_their_mean_probability():
    members = torch.randn(3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(TASK.criterion.mean(members).sigmoid(), members.sigmoid().mean(0))
    assert TASK.criterion.mean(torch.full((2, 1, 1), 500.0)).isfinite().all()


def test_metrics_by_hand_and_batch_by_batch():
    scores = torch.tensor([[3.0, -1.0], [2.0, 1.0], [1.0, 2.0], [-1.0, 3.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    meter = TASK.meter()
    for rows in (slice(0, 3), slice(3, 4)):
        meter.update(scores[rows], targets[rows])
    found = meter.compute()
    assert {type(value) for value in found.values()} == {float}, "a checkpoint does not hold numpy's numbers"
    # Ranks of the positives: 1 and 3 of the first class, 3 of the second.
    assert found["map"] == pytest.approx(((1 / 1 + 2 / 3) / 2 + 1 / 3) / 2)
    first, second = 2 * 2 / (2 * 2 + 1), 2 * 1 / (2 * 1 + 2)
    assert found["f1"] == pytest.approx((first + second) / 2)
    assert found["bce"] == pytest.approx(TASK.criterion.loss(scores.double(), targets.double()).item())


def test_classes_that_do_not_occur_and_entries_that_are_unknown_do_not_count():
    scores, targets = torch.randn(6, 3), torch.randint(0, 2, (6, 3)).float()
    targets[0, 0] = 1
    targets[:, 2] = 0
    meter, other = TASK.meter(), TASK.meter()
    meter.update(scores, targets)
    some = targets.clone()
    some[:, 1] = -1
    other.update(scores, some)
    alone = TASK.meter()
    alone.update(scores[:, :1], targets[:, :1])
    assert other.compute()["map"] == pytest.approx(alone.compute()["map"])
    nothing = TASK.meter()
    nothing.update(scores, torch.full_like(targets, -1))
    assert nothing.compute() == {}


def test_targets_of_other_tasks_are_refused():
    assert TASK.read_targets([[0, 1], [1, -1]], where="x").tolist() == [[0, 1], [1, -1]]
    assert TASK.count_outputs(torch.zeros(4, 7)) == 7
    with pytest.raises(UserError, match="one row of 0 and 1 per sample"):
        TASK.read_targets([0, 1, 2], where="x")
    with pytest.raises(UserError, match="contain 0.5"):
        TASK.read_targets([[0.5, 1]], where="x")
    with pytest.raises(UserError, match="has 3 labels"):
        TASK.check_answer((2, 4), 2, 3, who="student", data="toys")


def test_merged_meters_of_the_parts_are_the_meter_of_all():
    torch.manual_seed(0)
    scores, targets = torch.randn(30, 3), torch.randint(0, 2, (30, 3)).float()
    whole, first, later = TASK.meter(), TASK.meter(), TASK.meter()
    whole.update(scores, targets)
    first.update(scores[:11], targets[:11])
    later.update(scores[11:], targets[11:])
    first.merge(later)
    first.merge(TASK.meter())
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)
