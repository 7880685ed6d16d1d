"""Losses of maps of logits against loops over samples, places and classes, in float64: value and gradient.

Axis 1 is the class axis: logits `[batch, class, height, width]`, labels `[batch, height, width]`, -1 where none is.
"""

import math

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.teachers import EnsembleTeacher, Teacher
from tutelage.data.batch import Batch, Output
from tutelage.methods.born_again import BornAgain, confidence_weighted, permute_dark_knowledge
from tutelage.methods.confidence_penalty import ConfidencePenalty
from tutelage.methods.dkd import DKD
from tutelage.methods.dml import DML
from tutelage.methods.end import EnD
from tutelage.methods.endd import EnDD
from tutelage.methods.kd import KD, kd_uniform_teacher
from tutelage.methods.label_smoothing import LabelSmoothing
from tutelage.methods.msd import mutual_kl
from tutelage.methods.tf_kd_reg import TfKDReg
from tutelage.methods.tolerant_teacher import TolerantTeacher

CLASSES = 4
SHAPE = (2, CLASSES, 2, 3)
PLACES = [(b, y, x) for b in range(2) for y in range(2) for x in range(3)]
LABELS = torch.tensor([[[0, 3, -1], [1, 2, 0]], [[-1, 1, 3], [0, -1, 2]]])
LABELLED = [place for place in PLACES if LABELS[place] != -1]


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


def draw():
    return torch.randn(SHAPE, dtype=torch.float64) * 2


def at(logits, place):
    """The scores at a place, as a list."""
    b, y, x = place
    return [logits[b][k][y][x] for k in range(CLASSES)]


def softmax(scores, temperature=1.0):
    top = max(scores)
    weights = [math.exp((score - top) / temperature) for score in scores]
    return [weight / math.fsum(weights) for weight in weights]


def kl(p, q):
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def hard(student, smoothing=0.0):
    """The cross-entropy with labels of which a share goes to all classes."""
    total = []
    for place in LABELLED:
        p = softmax(at(student, place))
        for k in range(CLASSES):
            q = (1 - smoothing) * (k == int(LABELS[place])) + smoothing / CLASSES
            total.append(-q * math.log(p[k]))
    return math.fsum(total) / len(LABELLED)


def soft(student, teacher, temperature):
    """The divergence from a teacher at all places."""
    return mean(kl(softmax(at(teacher, p), temperature), softmax(at(student, p), temperature)) for p in PLACES)


def decoupled(student, teacher, temperature):
    """TCKD and NCKD at the places that have a label."""
    target, others = [], []
    for place in LABELLED:
        label = int(LABELS[place])
        p, q = (softmax(at(logits, place), temperature) for logits in (teacher, student))
        target.append(kl([p[label], 1 - p[label]], [q[label], 1 - q[label]]))
        rest = [k for k in range(CLASSES) if k != label]
        others.append(kl([p[k] / (1 - p[label]) for k in rest], [q[k] / (1 - q[label]) for k in rest]))
    return mean(target), mean(others)


def virtual(student, temperature, confidence):
    """The divergence from a teacher that gives the label some probability, at the places that have one."""
    found = []
    for place in LABELLED:
        low = (1 - confidence) / (CLASSES - 1)
        said = [confidence if k == int(LABELS[place]) else low for k in range(CLASSES)]
        p = softmax([math.log(value) for value in said], temperature)
        found.append(kl(p, softmax(at(student, place), temperature)))
    return mean(found)


def entropy(p):
    return -math.fsum(a * math.log(a) for a in p)


def lead(student, top):
    """How far the first choice is ahead of the next ones."""
    ranked = (sorted(softmax(at(student, place)), reverse=True) for place in PLACES)
    return mean(p[0] - mean(p[1:top]) for p in ranked)


def from_mean(student, members, temperature):
    """The divergence from the mean of several softened answers."""
    found = []
    for place in PLACES:
        each = [softmax(at(member, place), temperature) for member in members]
        average = [mean(p[k] for p in each) for k in range(CLASSES)]
        found.append(kl(average, softmax(at(student, place), temperature)))
    return mean(found)


def dirichlet(student, members, smoothing):
    """The negative log-likelihood of members' answers under a Dirichlet, less that of the flat one."""
    found = []
    for place in PLACES:
        alpha = [math.exp(z) for z in at(student, place)]
        normaliser = math.fsum(map(math.lgamma, alpha)) - math.lgamma(math.fsum(alpha))
        for member in members:
            p = [(1 - smoothing) * q + smoothing / CLASSES for q in softmax(at(member, place))]
            found.append(normaliser - math.fsum((a - 1) * math.log(q) for a, q in zip(alpha, p, strict=True)))
    return mean(found) + math.lgamma(CLASSES)


def numerical_gradient(value, logits):
    """The derivative of a slow loss by each logit, by central differences."""
    found, step = torch.zeros_like(logits), 1e-5
    for index in torch.cartesian_prod(*map(torch.arange, logits.shape)).tolist():
        sides = []
        for sign in (1, -1):
            moved = logits.clone()
            moved[tuple(index)] += sign * step
            sides.append(value(moved.tolist()))
        found[tuple(index)] = (sides[0] - sides[1]) / (2 * step)
    return found


TEACHER = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2
SECOND = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 2
BOTH = [TEACHER.tolist(), SECOND.tolist()]
PROGRESS = Progress(step=0, total_steps=1, epoch=0)


def slow_dkd(z):
    target, others = decoupled(z, BOTH[0], 3.0)
    return hard(z) + 9 * (1.5 * target + 2 * others)


CASES = {
    "kd": (lambda net: KD(net, Says(TEACHER)), lambda z: 0.1 * hard(z) + 0.9 * 16 * soft(z, BOTH[0], 4.0)),
    "kd by the mean over the classes": (
        lambda net: KD(net, Says(TEACHER), reduction="mean"),
        lambda z: 0.1 * hard(z) + 0.9 * 16 * soft(z, BOTH[0], 4.0) / CLASSES,
    ),
    "kd from an ensemble": (
        lambda net: KD(net, EnsembleTeacher([Says(TEACHER), Says(SECOND)]), temperature=1.0),
        lambda z: 0.1 * hard(z) + 0.9 * from_mean(z, BOTH, 1.0),
    ),
    "kd from a uniform teacher": (
        lambda net: kd_uniform_teacher(net, CLASSES),
        lambda z: 0.1 * hard(z) + 0.9 * 16 * soft(z, torch.zeros(SHAPE).tolist(), 4.0),
    ),
    "label smoothing": (lambda net: LabelSmoothing(net, CLASSES, smoothing=0.3), lambda z: hard(z, 0.3)),
    "confidence penalty": (
        lambda net: ConfidencePenalty(net, beta=0.2),
        lambda z: hard(z) - 0.2 * mean(entropy(softmax(at(z, place))) for place in PLACES),
    ),
    "dkd": (
        lambda net: DKD(net, Says(TEACHER), temperature=3.0, alpha=1.5, beta=2.0, ramp_epochs=1),
        slow_dkd,
    ),
    "tf-kd-reg": (
        lambda net: TfKDReg(net, CLASSES, temperature=5.0, alpha=0.3, confidence=0.8),
        lambda z: 0.7 * hard(z) + 0.3 * 25 * virtual(z, 5.0, 0.8),
    ),
    "end": (
        lambda net: EnD(net, EnsembleTeacher([Says(TEACHER), Says(SECOND)]), temperature=3.0),
        lambda z: 9 * from_mean(z, BOTH, 3.0),
    ),
    "endd": (
        lambda net: EnDD(net, EnsembleTeacher([Says(TEACHER), Says(SECOND)]), temperature=1.0, smoothing=0.01),
        lambda z: dirichlet(z, BOTH, 0.01),
    ),
    "born-again": (
        lambda net: BornAgain(net, Says(TEACHER), variant="ban+l"),
        lambda z: hard(z) + soft(z, BOTH[0], 1.0) + mean(entropy(softmax(at(BOTH[0], place))) for place in PLACES),
    ),
    "tolerant teacher": (
        lambda net: TolerantTeacher(net, CLASSES, top=3, eta=0.6),
        lambda z: 0.6 * hard(z) + 0.4 * lead(z, 3),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_of_maps_are_those_of_loops(name):
    build, slow = CASES[name]
    student = Answers(draw())
    method = build(student)
    (update,) = method.step(Batch(inputs=torch.zeros(2, 1), targets=LABELS), PROGRESS)
    loss = method.total(update, PROGRESS)
    assert loss.item() == pytest.approx(slow(student.logits.tolist()), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, student.logits)
    expected = numerical_gradient(slow, student.logits.detach())
    assert torch.allclose(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("peer", ["mean", "mean-probability"])
def test_mutual_learning_of_maps_is_that_of_loops(peer):
    networks = [Answers(draw()) for _ in range(3)]
    method = DML(networks, temperature=2.0, peer=peer)
    first = next(iter(method.step(Batch(inputs=torch.zeros(2, 1), targets=LABELS), PROGRESS)))
    others = [network.logits.tolist() for network in networks[1:]]

    def slow(z):
        towards = from_mean(z, others, 2.0) if peer == "mean-probability" else mean(soft(z, o, 2.0) for o in others)
        return hard(z) + 4 * towards

    loss = method.total(first, PROGRESS)
    assert loss.item() == pytest.approx(slow(networks[0].logits.tolist()), rel=1e-10)
    (gradient,) = torch.autograd.grad(loss, networks[0].logits)
    assert torch.allclose(gradient, numerical_gradient(slow, networks[0].logits.detach()), rtol=1e-6, atol=1e-8)
    ensemble = method(None)["ensemble"].exp()
    assert torch.allclose(ensemble, torch.stack([n.logits.softmax(1) for n in networks]).mean(0), rtol=1e-10)


def test_exits_of_maps_teach_each_other_place_by_place():
    logits = [draw() for _ in range(3)]
    each = [one.tolist() for one in logits]
    expected = sum(soft(one, other, 2.0) for one in each for other in each if one is not other) / 2
    for detach in (False, True):
        assert mutual_kl(logits, 2.0, detach=detach).item() == pytest.approx(expected, rel=1e-10)


def test_labels_are_weighted_by_the_confidence_at_their_place():
    student = draw()
    sure = {place: max(softmax(at(BOTH[0], place))) for place in LABELLED}
    expected = sum(
        sure[p] / sum(sure.values()) * -math.log(softmax(at(student.tolist(), p))[int(LABELS[p])]) for p in LABELLED
    )
    assert confidence_weighted(student, TEACHER, LABELS).item() == pytest.approx(expected, rel=1e-10)
    assert confidence_weighted(student, TEACHER, torch.full_like(LABELS, -1)) == 0


def test_dark_knowledge_is_permuted_at_each_place():
    torch.manual_seed(0)
    found = permute_dark_knowledge(TEACHER)
    assert found.shape == TEACHER.shape
    assert torch.equal(found.argmax(1), TEACHER.argmax(1))
    assert torch.equal(found.amax(1), TEACHER.amax(1))
    assert torch.equal(found.sort(1).values, TEACHER.sort(1).values)
    orders = {tuple(torch.tensor(at(found.tolist(), place)).argsort().tolist()) for place in PLACES}
    assert len(orders) > 3


@pytest.mark.parametrize("name", ["label smoothing", "dkd", "tf-kd-reg"])
def test_a_batch_without_a_label_costs_nothing(name):
    student = Answers(draw())
    method = CASES[name][0](student)
    (update,) = method.step(Batch(inputs=torch.zeros(2, 1), targets=torch.full_like(LABELS, -1)), PROGRESS)
    loss = method.total(update, PROGRESS)
    assert loss == 0
    assert torch.autograd.grad(loss, student.logits)[0].abs().max() == 0
