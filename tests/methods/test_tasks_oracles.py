"""Distillation of several classes a sample, and of numbers, against loops in float64: value and gradient."""

import math

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.teachers import EnsembleTeacher, Teacher
from tutelage.data.batch import Batch, Output
from tutelage.methods.born_again import BornAgain
from tutelage.methods.dml import DML
from tutelage.methods.fitnet import FitNetDistillation
from tutelage.methods.kd import KD
from tutelage.tasks.multi_label import MULTI_LABEL
from tutelage.tasks.regression import REGRESSION
from tutelage.testing.kinds import KINDS

SHAPE = (4, 3)
PROGRESS = Progress(step=0, total_steps=1, epoch=0)
SETS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, -1.0], [-1.0, -1.0, -1.0]])


class Answers(nn.Module):
    """A network whose answer is what it learns."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, inputs):
        return self.logits


class Says(Teacher):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, batch):
        return Output(logits=self.logits)


def drawn(seed):
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2


TEACHER, SECOND, NUMBERS = drawn(1), drawn(2), drawn(3)


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def bernoulli(p, q):
    """The divergence of a coin from another."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def cells(*tables):
    """Row by row, what stands at each place of some tables."""
    for rows in zip(*(table.tolist() if isinstance(table, torch.Tensor) else table for table in tables), strict=True):
        yield list(zip(*rows, strict=True))


def questions(student, targets):
    """The cross-entropy of each question that has an answer: the sum over them, the mean over samples with any."""
    found = [
        -math.fsum(math.log(sigmoid(z) if y else 1 - sigmoid(z)) for z, y in row if y != -1)
        for row in cells(student, targets)
        if any(y != -1 for _, y in row)
    ]
    return math.fsum(found) / len(found)


def coins(student, teacher, temperature):
    """The divergences of all questions, summed; the mean over the samples."""
    found = [
        math.fsum(bernoulli(sigmoid(t / temperature), sigmoid(s / temperature)) for s, t in row)
        for row in cells(student, teacher)
    ]
    return math.fsum(found) / len(found)


def squares(student, other):
    """The mean over samples and numbers of the squared differences."""
    found = [(a - b) ** 2 for row in cells(student, other) for a, b in row]
    return math.fsum(found) / len(found)


def log_odds_of_mean(*tables):
    """The log-odds of the mean probability."""
    found = []
    for row in cells(*tables):
        means = [math.fsum(map(sigmoid, cell)) / len(cell) for cell in row]
        found.append([math.log(p / (1 - p)) for p in means])
    return found


def mean_of(*tables):
    return [[math.fsum(cell) / len(cell) for cell in row] for row in cells(*tables)]


def numerical_gradient(value, logits):
    found, step = torch.zeros_like(logits), 1e-6
    for row in range(logits.shape[0]):
        for column in range(logits.shape[1]):
            sides = []
            for sign in (1, -1):
                moved = logits.clone()
                moved[row, column] += sign * step
                sides.append(value(moved.tolist()))
            found[row, column] = (sides[0] - sides[1]) / (2 * step)
    return found


BOTH = [Says(TEACHER), Says(SECOND)]
CASES = {
    "several classes: kd": (
        MULTI_LABEL,
        lambda net: KD(net, Says(TEACHER), temperature=3.0, alpha=0.7),
        lambda z: 0.3 * questions(z, SETS) + 0.7 * 9 * coins(z, TEACHER, 3.0),
    ),
    "several classes: kd without the square": (
        MULTI_LABEL,
        lambda net: KD(net, Says(TEACHER), temperature=3.0, alpha=0.7, t_squared=False, multiplier=2.0),
        lambda z: 0.3 * questions(z, SETS) + 1.4 * coins(z, TEACHER, 3.0),
    ),
    "several classes: kd from an ensemble": (
        MULTI_LABEL,
        lambda net: KD(net, EnsembleTeacher(BOTH), temperature=1.0),
        lambda z: 0.1 * questions(z, SETS) + 0.9 * coins(z, log_odds_of_mean(TEACHER, SECOND), 1.0),
    ),
    "several classes: born-again": (
        MULTI_LABEL,
        lambda net: BornAgain(net, Says(TEACHER), variant="ban+l"),
        lambda z: questions(z, SETS) + coins(z, TEACHER, 1.0),
    ),
    "several classes: the second stage of fitnet": (
        MULTI_LABEL,
        lambda net: FitNetDistillation(net, Says(TEACHER)),
        lambda z: questions(z, SETS) + 4 * coins(z, TEACHER, 3.0),
    ),
    "numbers: kd": (
        REGRESSION,
        lambda net: KD(net, Says(TEACHER), alpha=0.7),
        lambda z: 0.3 * squares(z, NUMBERS) + 0.7 * squares(z, TEACHER),
    ),
    "numbers: kd from an ensemble": (
        REGRESSION,
        lambda net: KD(net, EnsembleTeacher(BOTH)),
        lambda z: 0.1 * squares(z, NUMBERS) + 0.9 * squares(z, mean_of(TEACHER, SECOND)),
    ),
    "numbers: born-again": (
        REGRESSION,
        lambda net: BornAgain(net, Says(TEACHER), variant="ban+l"),
        lambda z: squares(z, NUMBERS) + squares(z, TEACHER),
    ),
}


def batch_of(task):
    return Batch(inputs=torch.zeros(4, 1), targets=SETS if task is MULTI_LABEL else NUMBERS, criterion=task.criterion)


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_loops(name):
    task, build, slow = CASES[name]
    student = Answers(drawn(4))
    method = build(student)
    (update,) = method.step(batch_of(task), PROGRESS)
    loss = method.total(update, PROGRESS)
    assert loss.item() == pytest.approx(slow(student.logits.tolist()), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, student.logits)
    assert torch.allclose(gradient, numerical_gradient(slow, student.logits.detach()), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["multi-label", "regression"])
def test_networks_that_learn_together_answer_together_as_the_task_has_it(kind):
    data = KINDS[kind].data()
    networks = [Answers(drawn(seed)) for seed in (4, 5, 6)]
    method = DML(networks, data=data, temperature=2.0)
    first = next(iter(method.step(batch_of(data.task), PROGRESS)))
    others = [network.logits.detach() for network in networks[1:]]

    def slow(z):
        if kind == "regression":
            return squares(z, NUMBERS) + sum(squares(z, other) for other in others) / 2
        return questions(z, SETS) + 4 * sum(coins(z, other, 2.0) for other in others) / 2

    loss = method.total(first, PROGRESS)
    assert loss.item() == pytest.approx(slow(networks[0].logits.tolist()), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, networks[0].logits)
    assert torch.allclose(gradient, numerical_gradient(slow, networks[0].logits.detach()), rtol=1e-6, atol=1e-8)
    together = log_odds_of_mean if kind == "multi-label" else mean_of
    expected = torch.tensor(together(*(network.logits.detach() for network in networks)), dtype=torch.float64)
    assert torch.allclose(method(None)["ensemble"], expected, rtol=1e-9)


@pytest.mark.parametrize("task", [MULTI_LABEL, REGRESSION], ids=lambda task: task.name)
def test_a_student_that_answers_as_its_teacher_has_only_the_targets_to_learn(task):
    student = Answers(TEACHER.clone())
    method = KD(student, Says(TEACHER), alpha=1.0)
    (update,) = method.step(batch_of(task), PROGRESS)
    loss = method.total(update, PROGRESS)
    assert loss.item() == pytest.approx(0.0, abs=1e-15)
    assert torch.autograd.grad(loss, student.logits)[0].abs().max() < 1e-15


def test_without_targets_the_soft_term_is_all_there_is():
    student = Answers(drawn(4))
    method = KD(student, Says(TEACHER))
    (update,) = method.step(Batch(inputs=torch.zeros(4, 1)), PROGRESS)
    assert list(update.losses) == ["kd"]
    (labelled,) = method.step(Batch(inputs=torch.zeros(4, 1), targets=torch.tensor([0, 1, 2, 0])), PROGRESS)
    assert torch.equal(update.losses["kd"], labelled.losses["kd"])
    assert method.total(update, PROGRESS).item() == pytest.approx(0.9 * update.losses["kd"].item(), rel=1e-12)
