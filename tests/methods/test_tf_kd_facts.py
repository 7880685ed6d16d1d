"""What the Tf-KD paper and its released code are, in numbers: one test or more for each fact of our fact sheet."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.core.method import Progress, Update
from tutelage.core.teachers import FrozenTeacher, UniformTeacher, VirtualTeacher
from tutelage.data.batch import Batch
from tutelage.losses import cross_entropy, kd_loss, soft_cross_entropy
from tutelage.methods.kd import KD, kd_uniform_teacher
from tutelage.methods.label_smoothing import LabelSmoothing, matched_label_smoothing
from tutelage.methods.supervised import Supervised
from tutelage.methods.tf_kd_reg import TfKDReg, equivalent_smoothing, virtual_distribution
from tutelage.training.settings import Training

pytestmark = pytest.mark.usefixtures("double")

# Label and other class for a = 0.99, by number of classes and temperature.
GOLDEN_CODE = {
    (10, 20): (0.104539, 0.099496),
    (100, 10): (0.011029, 0.009990),
    (100, 20): (0.010502, 0.009995),
    (100, 40): (0.010248, 0.009997),
    (200, 20): (0.005252, 0.004999),
    (1000, 20): (0.001051, 0.001000),
}
GOLDEN_PAPER = {
    (10, 20): (0.134982, 0.096113),
    (100, 10): (0.024696, 0.009852),
    (100, 20): (0.015741, 0.009942),
    (100, 40): (0.012551, 0.009974),
    (200, 20): (0.008172, 0.004984),
    (1000, 20): (0.001776, 0.000999),
}


def random_logits(rows=6, classes=10, std=3.0):
    return torch.randn(rows, classes) * std, torch.randint(0, classes, (rows,))


def smoothed(labels, classes, epsilon):
    return (1 - epsilon) * F.one_hot(labels, classes) + epsilon / classes


def centred(logits):
    return logits - logits.mean(1, keepdim=True)


def gradient_of(loss, logits):
    logits = logits.detach().clone().requires_grad_(True)
    return torch.autograd.grad(loss(logits), logits)[0]


def virtual_rows(classes, temperature, softening, confidence=0.99):
    """The virtual teacher's softened probability of the label, and of another class."""
    teacher = VirtualTeacher(classes, confidence=confidence, softening=softening)
    logits = teacher(Batch(inputs=torch.zeros(1, 1), targets=torch.tensor([1]))).logits
    row = F.softmax(logits / temperature, 1)[0]
    others = torch.cat([row[:1], row[2:]])
    assert torch.allclose(others, others[0].expand_as(others), rtol=1e-14)
    assert row.sum().item() == pytest.approx(1.0, rel=1e-12)
    return row[1].item(), others[0].item()


# 1. Label smoothing is cross-entropy with a share of the divergence from the uniform distribution.


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5])
def test_fact_01_label_smoothing_splits_into_cross_entropy_and_uniform_divergence(epsilon, slow, measure, echo):
    logits, labels = random_logits()
    found = measure(LabelSmoothing(echo, 10, smoothing=epsilon), logits, labels)
    uniform = [0.1] * 10
    hard = slow.label_loss(logits.tolist(), labels.tolist())
    soft = slow.mean(slow.kl(uniform, slow.softmax(row)) for row in logits.tolist())
    assert slow.entropy(uniform) == pytest.approx(math.log(10), rel=1e-14)
    assert found.total == pytest.approx((1 - epsilon) * hard + epsilon * (soft + math.log(10)), rel=1e-12)


def test_fact_01_gradient_of_label_smoothing_is_p_minus_the_smoothed_target(measure, echo):
    logits, labels = random_logits()
    found = measure(LabelSmoothing(echo, 10, smoothing=0.1), logits, labels).gradient
    assert torch.allclose(found, (F.softmax(logits, 1) - smoothed(labels, 10, 0.1)) / 6, atol=1e-15)
    split = measure(kd_uniform_teacher(echo, 10, temperature=1.0, alpha=0.1), logits, labels).gradient
    assert torch.allclose(found, split, atol=1e-15)


# 2. At temperature 1, distillation is cross-entropy against a mixed target.


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.95])
def test_fact_02_kd_at_temperature_one_is_a_mixed_target(alpha, slow, measure, echo, parrot):
    logits, labels = random_logits()
    answers = torch.randn(6, 10)
    found = measure(KD(echo, parrot(answers), temperature=1.0, alpha=alpha), logits, labels)
    teacher = [slow.softmax(row) for row in answers.tolist()]
    hot = [slow.one_hot(label, 10) for label in labels.tolist()]
    targets = [
        [(1 - alpha) * q + alpha * t for q, t in zip(qs, ts, strict=True)] for qs, ts in zip(hot, teacher, strict=True)
    ]
    entropy = slow.mean(map(slow.entropy, teacher))
    assert found.total + alpha * entropy == pytest.approx(slow.target_loss(logits.tolist(), targets), rel=1e-13)
    closed = (F.softmax(logits, 1) - torch.tensor(targets)) / 6
    assert torch.allclose(found.gradient, closed, atol=1e-15)


def test_fact_02_kd_from_a_uniform_teacher_is_label_smoothing(measure, echo):
    logits, labels = random_logits()
    kd = measure(KD(echo, UniformTeacher(10), temperature=1.0, alpha=0.3), logits, labels)
    smoothing = measure(LabelSmoothing(echo, 10, smoothing=0.3), logits, labels)
    assert torch.allclose(kd.gradient, smoothing.gradient, atol=1e-16)
    assert kd.total + 0.3 * math.log(10) == pytest.approx(smoothing.total, rel=1e-13)


# 3. Mixed cross-entropies are the cross-entropy with the mixed target.


def test_fact_03_a_convex_mix_of_cross_entropies_has_the_mixed_target(slow):
    logits, labels = random_logits()
    first, second = torch.randn(6, 10), torch.randn(6, 10)
    shares = (0.2, 0.5, 0.3)
    loss = (
        shares[0] * cross_entropy(logits, labels)
        + shares[1] * soft_cross_entropy(logits, first)
        + shares[2] * soft_cross_entropy(logits, second)
    )
    mixed = shares[0] * F.one_hot(labels, 10) + shares[1] * F.softmax(first, 1) + shares[2] * F.softmax(second, 1)
    assert mixed.min() >= 0
    assert torch.allclose(mixed.sum(1), torch.ones(6), rtol=1e-14)
    assert loss.item() == pytest.approx(slow.target_loss(logits.tolist(), mixed.tolist()), rel=1e-12)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_fact_03_every_target_of_ours_is_a_distribution(variant):
    for classes, confidence, temperature in ((2, 0.9, 1.0), (10, 0.99, 20.0), (100, 0.5, 40.0), (7, 1 / 7, 3.0)):
        label, other = virtual_distribution(classes, confidence=confidence, temperature=temperature, variant=variant)
        assert label >= other >= 0
        assert label + (classes - 1) * other == pytest.approx(1.0, rel=1e-13)


# 4. The gradient of the tempered divergence.


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_fact_04_gradient_of_the_tempered_divergence(temperature):
    student, _ = random_logits()
    teacher, _ = random_logits()
    gap = F.softmax(student / temperature, 1) - F.softmax(teacher / temperature, 1)
    plain = gradient_of(lambda z: kd_loss(z, teacher, temperature, t_squared=False), student) * len(student)
    squared = gradient_of(lambda z: kd_loss(z, teacher, temperature), student) * len(student)
    assert torch.allclose(plain, gap / temperature, atol=1e-14)
    assert torch.allclose(squared, gap * temperature, atol=1e-13)
    assert squared.sum(1).abs().max() < 1e-12


def test_fact_04_gradient_vanishes_exactly_where_logits_differ_by_a_constant():
    teacher, _ = random_logits()
    shift = torch.arange(6.0)[:, None] * 3 - 5
    assert gradient_of(lambda z: kd_loss(z, teacher, 4.0), teacher + shift).abs().max() < 1e-14
    moved = teacher + shift
    moved[0, 0] += 0.01
    assert gradient_of(lambda z: kd_loss(z, teacher, 4.0), moved).abs().max() > 1e-5


def test_fact_04_divergence_is_shift_invariant_and_not_negative():
    student, _ = random_logits()
    for _ in range(20):
        teacher, _ = random_logits()
        loss = kd_loss(student, teacher, 4.0)
        assert loss > 0
        assert torch.allclose(kd_loss(student + 11.0, teacher - 7.0, 4.0), loss, rtol=1e-12)


# 5. At high temperature, logits are matched.


def test_fact_05_gradient_approaches_the_centred_logit_gap_as_one_over_tau():
    student, _ = random_logits(rows=2000)
    teacher, _ = random_logits(rows=2000)
    limit = (centred(student) - centred(teacher)) / 10
    errors = []
    for temperature in (10.0, 100.0, 1e3, 1e4):
        gradient = gradient_of(lambda z, t=temperature: kd_loss(z, teacher, t), student) * len(student)
        errors.append(((gradient - limit).norm() / limit.norm()).item())
    assert errors == pytest.approx([0.21, 0.020, 0.0020, 0.00020], rel=0.15)


def test_fact_05_loss_approaches_the_squared_gap():
    student, _ = random_logits()
    teacher, _ = random_logits()
    limit = (centred(student) - centred(teacher)).square().sum(1).mean() / 20
    assert kd_loss(student, teacher, 1e4).item() == pytest.approx(limit.item(), rel=1e-3)


def test_fact_05_entropy_rises_to_that_of_the_uniform_distribution(slow):
    row = (torch.randn(10) * 3).tolist()
    entropies = [slow.entropy(slow.softmax(row, t)) for t in (0.5, 1, 2, 4, 8, 20, 100, 1e4)]
    assert entropies == sorted(entropies)
    assert entropies[-1] == pytest.approx(math.log(10), rel=1e-6)
    teacher = torch.tensor([row])
    ours = [soft_cross_entropy(teacher, teacher, t).item() for t in (1.0, 20.0)]
    assert ours == pytest.approx([entropies[1], entropies[5]], rel=1e-12)


def test_fact_05_a_teacher_that_knows_nothing_penalises_the_logits(measure, echo):
    logits, labels = random_logits(rows=4000)
    penalty = centred(logits).square().sum(1).mean().item() / 20
    soft = measure(kd_uniform_teacher(echo, 10, temperature=20.0, alpha=1.0), logits, labels).losses["kd"]
    # The fact sheet measured 4.090 against a limit of 4.108.
    assert penalty == pytest.approx(4.108, rel=0.05)
    assert soft == pytest.approx(penalty, rel=0.01)
    assert soft != pytest.approx(penalty, rel=1e-4)


# 6. The reduction.


def test_fact_06_the_default_sums_over_classes_and_mean_divides_by_them(slow, measure, echo, parrot):
    for classes in (10, 100):
        logits, labels = random_logits(classes=classes)
        answers = torch.randn(6, classes) * 3
        honest = measure(KD(echo, parrot(answers), temperature=20.0, alpha=0.95), logits, labels)
        code = measure(KD(echo, parrot(answers), temperature=20.0, alpha=0.95, reduction="mean"), logits, labels)
        expected = 400 * slow.soft_loss(logits.tolist(), answers.tolist(), 20.0)
        assert honest.losses["kd"] == pytest.approx(expected, rel=1e-9)
        assert code.losses["kd"] == pytest.approx(expected / classes, rel=1e-9)
        assert code.losses["ce"] == honest.losses["ce"]


# 7. The virtual teacher.


def test_fact_07_virtual_teacher_is_a_distribution_with_the_label_on_top():
    for classes in (2, 10, 100):
        for confidence in (1 / classes + 0.01, 0.9, 0.99):
            label, other = virtual_rows(classes, 1.0, "log-probability", confidence)
            assert label == pytest.approx(confidence, rel=1e-12)
            assert other == pytest.approx((1 - confidence) / (classes - 1), rel=1e-12)
            assert label > other


def test_fact_07_chance_confidence_is_uniform_and_full_confidence_is_one_hot():
    label, other = virtual_rows(10, 1.0, "log-probability", 0.1)
    assert label == pytest.approx(0.1, rel=1e-12)
    assert other == pytest.approx(0.1, rel=1e-12)
    for temperature in (0.05, 1.0, 20.0):
        assert virtual_rows(10, temperature, "log-probability", 1.0) == (1.0, 0.0)
        assert virtual_distribution(10, confidence=1.0, temperature=temperature) == (1.0, 0.0)


def test_fact_07_it_is_a_mix_of_label_and_uniform():
    epsilon = (1 - 0.99) * 100 / 99
    assert epsilon == pytest.approx(0.010101, abs=5e-7)
    label, other = virtual_rows(100, 1.0, "log-probability")
    assert label == pytest.approx((1 - epsilon) + epsilon / 100, rel=1e-12)
    assert other == pytest.approx(epsilon / 100, rel=1e-12)


@pytest.mark.parametrize(("classes", "alpha"), [(10, 0.1), (100, 0.95), (7, 0.5)])
def test_fact_07_at_temperature_one_reg_is_label_smoothing(classes, alpha, measure, echo):
    logits, labels = random_logits(classes=classes)
    epsilon = alpha * 0.01 * classes / (classes - 1)
    reg = measure(TfKDReg(echo, classes, temperature=1.0, alpha=alpha), logits, labels)
    smoothing = measure(LabelSmoothing(echo, classes, smoothing=epsilon), logits, labels)
    assert torch.allclose(reg.gradient, smoothing.gradient, atol=1e-15)
    assert equivalent_smoothing(classes, alpha=alpha, temperature=1.0, variant="paper") == pytest.approx(
        (epsilon, 1.0), rel=1e-12
    )
    if (classes, alpha) == (100, 0.95):
        assert epsilon == pytest.approx(0.0096, abs=5e-5)


# 8. The softened virtual teacher keeps two levels.


@pytest.mark.parametrize(("setting", "expected"), GOLDEN_CODE.items())
def test_fact_08_golden_values_of_the_code(setting, expected):
    classes, temperature = setting
    assert virtual_rows(classes, temperature, "probability") == pytest.approx(expected, abs=5.1e-7)
    assert virtual_distribution(classes, temperature=temperature, variant="code") == pytest.approx(expected, abs=5.1e-7)


@pytest.mark.parametrize(("setting", "expected"), GOLDEN_PAPER.items())
def test_fact_08_golden_values_of_the_paper(setting, expected):
    classes, temperature = setting
    assert virtual_rows(classes, temperature, "log-probability") == pytest.approx(expected, abs=5.1e-7)
    assert virtual_distribution(classes, temperature=temperature) == pytest.approx(expected, abs=5.1e-7)


@pytest.mark.parametrize("temperature", [1.0, 10.0, 40.0])
def test_fact_08_ratio_of_the_two_levels(temperature):
    a, b = 0.99, 0.01 / 99
    label, other = virtual_rows(100, temperature, "probability")
    assert label / other == pytest.approx(math.exp((a - b) / temperature), rel=1e-12)
    label, other = virtual_rows(100, temperature, "log-probability")
    assert label / other == pytest.approx((a / b) ** (1 / temperature), rel=1e-12)


@pytest.mark.parametrize("softening", ["probability", "log-probability"])
@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_fact_08_against_an_unsoftened_student_it_is_label_smoothing_at_any_temperature(softening, temperature):
    logits, labels = random_logits(classes=10)
    teacher = VirtualTeacher(10, softening=softening)(Batch(inputs=logits, targets=labels)).logits
    _, other = virtual_rows(10, temperature, softening)
    found = gradient_of(lambda z: kd_loss(z, teacher / temperature, 1.0), logits)
    smooth = gradient_of(lambda z: cross_entropy(z, labels, label_smoothing=10 * other), logits)
    assert torch.allclose(found, smooth, atol=1e-15)


# 9. Equation 9, with the temperature on both sides, is not label smoothing; without its square it is next to nothing.


def residual_of_best_label_smoothing(gradient, logits, labels):
    """Share of a gradient that no label smoothing of any epsilon and any scale explains."""
    p, q = F.softmax(logits, 1) / len(logits), F.one_hot(labels, 10) / len(logits)
    # s (p - (1 - e) q - e u) = s (p - q) + s e (q - u)
    basis = torch.stack([(p - q).flatten(), (q - 0.1 / len(logits)).flatten()], 1)
    weights = torch.linalg.lstsq(basis, gradient.flatten()[:, None]).solution
    return ((basis @ weights).flatten() - gradient.flatten()).norm().item() / gradient.norm().item()


@pytest.mark.parametrize(("t_squared", "expected"), [(False, 1.6e-4), (True, 0.055)])
def test_fact_09_how_far_equation_nine_is_from_label_smoothing(t_squared, expected, measure, echo):
    logits, labels = random_logits(rows=20_000)
    method = TfKDReg(echo, 10, temperature=20.0, alpha=0.1, t_squared=t_squared)
    gradient = measure(method, logits, labels).gradient
    assert residual_of_best_label_smoothing(gradient, logits, labels) == pytest.approx(expected, rel=0.25)


def test_fact_09_as_printed_the_soft_term_is_nearly_inert(measure, echo):
    logits, labels = random_logits(rows=2000)
    plain = measure(Supervised(echo), logits, labels).gradient
    printed = measure(TfKDReg(echo, 10, temperature=20.0, alpha=0.1, t_squared=False), logits, labels).gradient
    ours = measure(TfKDReg(echo, 10, temperature=20.0, alpha=0.1), logits, labels).gradient
    assert ((printed - 0.9 * plain).norm() / printed.norm()).item() < 1e-3
    assert ((ours - 0.9 * plain).norm() / ours.norm()).item() > 0.03


def test_fact_09_gradient_of_equation_nine(measure, echo):
    logits, labels = random_logits(classes=100)
    label, other = virtual_distribution(100, temperature=20.0)
    target = other + (label - other) * F.one_hot(labels, 100)
    hard = F.softmax(logits, 1) - F.one_hot(labels, 100)
    soft = F.softmax(logits / 20, 1) - target
    for t_squared, factor in ((False, 1 / 20), (True, 20)):
        method = TfKDReg(echo, 100, temperature=20.0, alpha=0.3, t_squared=t_squared)
        found = measure(method, logits, labels).gradient
        assert torch.allclose(found, (0.7 * hard + 0.3 * factor * soft) / 6, atol=1e-14)


# 10. The released label smoothing.


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_fact_10_the_released_label_smoothing_is_a_larger_one(classes, slow, measure, echo):
    logits, labels = random_logits(classes=classes)
    found = measure(LabelSmoothing(echo, classes, smoothing=0.1, variant="others"), logits, labels)
    targets = [[0.9 if k == y else 0.1 / (classes - 1) for k in range(classes)] for y in labels.tolist()]
    assert found.total == pytest.approx(slow.target_loss(logits.tolist(), targets), rel=1e-12)
    builtin = F.cross_entropy(logits, labels, label_smoothing=0.1 * classes / (classes - 1))
    assert found.total == pytest.approx(builtin.item(), rel=1e-14)
    assert torch.allclose(found.gradient, (F.softmax(logits, 1) - torch.tensor(targets)) / 6, atol=1e-15)


# 11. A loss scale is a learning rate and a weight decay.


def train_a_few_steps(network, scale, scale_by, momentum=0.9, nesterov=False):
    training = Training(lr=0.05, momentum=momentum, nesterov=nesterov, weight_decay=5e-3)
    method = Supervised(network, loss_scale=scale, scale_by=scale_by)
    optimizer = training.build_optimizer(method.optimizers()["student"])
    inputs, labels = torch.randn(10, 32, 6), torch.randint(0, 4, (10, 32))
    for step in range(10):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * training.lr_factor(step, steps_per_epoch=4, total_steps=10)
        optimizer.zero_grad()
        losses = method.losses(Batch(inputs=inputs[step], targets=labels[step]))
        method.total(Update(losses), Progress(step=step, total_steps=10)).backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in method.parameters()])


@pytest.mark.parametrize("scale", [0.0595, 0.406, 3.0])
@pytest.mark.parametrize("nesterov", [False, True])
def test_fact_11_scaling_the_loss_is_scaling_the_optimizer(scale, nesterov):
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    ends = {}
    for scale_by in ("loss", "optimizer"):
        torch.manual_seed(1)
        ends[scale_by] = train_a_few_steps(copy.deepcopy(network), scale, scale_by, nesterov=nesterov)
    torch.manual_seed(1)
    plain = train_a_few_steps(copy.deepcopy(network), 1.0, "loss", nesterov=nesterov)
    assert torch.allclose(ends["loss"], ends["optimizer"], rtol=1e-10, atol=1e-13)
    assert (ends["loss"] - plain).abs().max() > 1e-3


def test_fact_11_the_optimizer_twin_has_these_settings():
    spec = Supervised(nn.Linear(2, 2), loss_scale=0.0595, scale_by="optimizer").optimizers()["student"]
    (group,) = Training(lr=0.1, weight_decay=5e-4).build_optimizer(spec).param_groups
    # The fact sheet: lr 0.006, wd 8.4e-3.
    assert group["lr"] == pytest.approx(0.00595, rel=1e-12)
    assert group["initial_lr"] == group["lr"]
    assert group["weight_decay"] == pytest.approx(8.4e-3, rel=1e-3)


# 12. Where the inputs are equal, and at both ends of alpha.


def test_fact_12_a_teacher_equal_to_the_student_pulls_nowhere():
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    method = KD(network, FrozenTeacher(copy.deepcopy(network)), temperature=6.0, alpha=1.0)
    losses = method.losses(Batch(inputs=torch.randn(5, 6), targets=torch.randint(0, 4, (5,))))
    assert losses["kd"].item() == 0.0
    losses["kd"].backward()
    assert all(parameter.grad.abs().max() < 1e-15 for parameter in network.parameters())


@pytest.mark.parametrize("family", ["kd", "reg"])
def test_fact_12_both_ends_of_alpha(family, measure, echo, parrot):
    logits, labels = random_logits()
    answers = torch.randn(6, 10)

    def build(alpha):
        return KD(echo, parrot(answers), alpha=alpha) if family == "kd" else TfKDReg(echo, 10, alpha=alpha)

    plain = measure(Supervised(echo), logits, labels)
    none, whole = measure(build(0.0), logits, labels), measure(build(1.0), logits, labels)
    assert none.total == plain.total
    assert torch.equal(none.gradient, plain.gradient)
    soft = next(name for name in whole.losses if name != "ce")
    assert whole.total == whole.losses[soft]
    near = measure(build(1e-9), logits, labels)
    assert near.total == pytest.approx(none.total, rel=1e-6)


def test_fact_12_the_teacher_stays_in_eval_and_without_gradient():
    def build():
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))

    method = KD(build(), FrozenTeacher(build()))
    before = copy.deepcopy(method.teacher.state_dict())
    method.train()
    for _ in range(3):
        batch = Batch(inputs=torch.randn(16, 6), targets=torch.randint(0, 4, (16,)))
        method.total(Update(method.losses(batch)), Progress()).backward()
    assert method.student.training
    assert not any(module.training for module in method.teacher.modules())
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert all(torch.equal(before[key], value) for key, value in method.teacher.state_dict().items())


# 13. The teacher of label smoothing is right by chance.


@pytest.mark.parametrize("classes", [10, 100])
def test_fact_13_the_uniform_teacher_has_chance_accuracy(classes):
    labels = torch.arange(classes).repeat(3)
    logits = UniformTeacher(classes)(Batch(inputs=torch.zeros(len(labels), 1), targets=labels)).logits
    probabilities = F.softmax(logits, 1)
    assert torch.allclose(probabilities, torch.full_like(probabilities, 1 / classes), rtol=1e-14)
    right = probabilities.argmax(1) == labels
    assert right.double().mean().item() == pytest.approx(1 / classes, rel=1e-12)


# 14. Stability.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("confidence", [0.99, 1.0])
def test_fact_14_losses_and_gradients_stay_finite(dtype, confidence, measure, echo, parrot):
    torch.set_default_dtype(torch.float32)
    logits = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0], [-1e4, 1e4, 1e4]], dtype=dtype)
    labels = torch.tensor([1, 2, 0])
    for temperature in (0.05, 1.0, 40.0):
        methods = [
            KD(echo, parrot(-logits), temperature=temperature),
            TfKDReg(echo, 3, temperature=temperature, confidence=confidence),
            TfKDReg(echo, 3, temperature=temperature, confidence=confidence, variant="code", multiplier=100.0),
            matched_label_smoothing(echo, 3, temperature=temperature, confidence=confidence),
            kd_uniform_teacher(echo, 3, temperature=temperature),
        ]
        for method in methods:
            found = measure(method, logits, labels)
            assert math.isfinite(found.total)
            assert all(math.isfinite(value) and value >= -1e-6 for value in found.losses.values())
            assert found.gradient.isfinite().all()


# The two errors of the source note.


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.95, 1.0])
def test_note_its_virtual_teacher_sums_to_one_only_at_alpha_one_and_ours_always(alpha):
    a, classes = 0.99, 100
    note = [a] + [(1 - a) / (classes - 1) * alpha] * (classes - 1)
    assert math.fsum(note) == pytest.approx(a + alpha * (1 - a), rel=1e-12)
    assert (abs(math.fsum(note) - 1) < 1e-12) == (alpha == 1.0)
    label, other = virtual_rows(classes, 1.0, "log-probability")
    assert math.fsum([label] + [other] * (classes - 1)) == pytest.approx(1.0, rel=1e-12)


def test_note_its_mixed_target_is_right_at_temperature_one_alone(measure, echo):
    alpha, a, classes = 0.3, 0.99, 10
    logits, labels = random_logits()
    target = torch.full((6, classes), alpha * (1 - a) / (classes - 1))
    target.scatter_(1, labels[:, None], (1 - alpha) + alpha * a)
    assert torch.allclose(target.sum(1), torch.ones(6), rtol=1e-12)
    note = gradient_of(lambda z: -(target * F.log_softmax(z, 1)).sum() / 6, logits)
    smoothing = LabelSmoothing(echo, classes, smoothing=alpha * (1 - a) * classes / (classes - 1))
    assert torch.allclose(note, measure(smoothing, logits, labels).gradient, atol=1e-15)
    for temperature, t_squared, same in ((1.0, True, True), (20.0, True, False), (20.0, False, False)):
        method = TfKDReg(echo, classes, temperature=temperature, alpha=alpha, t_squared=t_squared)
        found = measure(method, logits, labels).gradient
        assert torch.allclose(found, note, rtol=1e-3, atol=1e-12) == same


def test_note_the_derivation_of_kd_needs_alpha_on_its_constant(slow, measure, echo, parrot):
    alpha = 0.3
    logits, labels = random_logits()
    answers = torch.randn(6, 10)
    found = measure(KD(echo, parrot(answers), temperature=1.0, alpha=alpha), logits, labels)
    teacher = [slow.softmax(row) for row in answers.tolist()]
    entropy = slow.mean(map(slow.entropy, teacher))
    soft = slow.target_loss(logits.tolist(), teacher)
    assert found.total == pytest.approx((1 - alpha) * found.losses["ce"] + alpha * soft - alpha * entropy, rel=1e-12)
    assert found.total != pytest.approx((1 - alpha) * found.losses["ce"] + alpha * soft - entropy, rel=1e-2)


# Table 2.4: what the recipes of the code come to once its division by the classes is undone.

RECIPES = {
    # alpha, temperature, multiplier -> weight of the cross-entropy, weight of the soft term, share, scale
    "MNv2, SNv2: KD, De-KD, self": (0.95, 20.0, 1.0, 0.05, 0.0095, 0.160, 0.0595),
    "Re-KD; R18 student": (0.6, 20.0, 1.0, 0.40, 0.0060, 0.015, 0.406),
    "R18 self": (0.95, 6.0, 50.0, 0.05, 0.475, 0.905, 0.525),
    "GN self": (0.4, 20.0, 50.0, 0.60, 0.20, 0.25, 0.80),
    "D121 self": (0.9, 20.0, 50.0, 0.10, 0.45, 0.82, 0.55),
    "RX29 self": (0.9, 20.0, 100.0, 0.10, 0.90, 0.90, 1.00),
}
REG_RECIPES = {
    "MNv2": (0.95, 40.0, 1.0, 0.05, 0.0095, 0.160, 0.0595),
    "SNv2": (0.95, 10.0, 1.0, 0.05, 0.0095, 0.160, 0.0595),
    "R18": (0.1, 20.0, 100.0, 0.90, 0.100, 0.100, 1.000),
    "GN": (0.1, 40.0, 50.0, 0.90, 0.050, 0.053, 0.95),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_of_the_code_by_mean_reduction(name, slow, measure, echo, parrot):
    alpha, temperature, multiplier, w_ce, w_kl, share, scale = RECIPES[name]
    logits, labels = random_logits(classes=100)
    answers = torch.randn(6, 100) * 3
    method = KD(echo, parrot(answers), temperature=temperature, alpha=alpha, reduction="mean")
    method.weights["kd"] *= multiplier
    found = measure(method, logits, labels)
    hard = slow.label_loss(logits.tolist(), labels.tolist())
    soft = temperature**2 * slow.soft_loss(logits.tolist(), answers.tolist(), temperature)
    assert method.weights["ce"] == pytest.approx(w_ce, rel=1e-12)
    assert found.total == pytest.approx(w_ce * hard + w_kl * soft, rel=1e-9)
    assert w_kl / (w_ce + w_kl) == pytest.approx(share, abs=3e-3)
    assert w_ce + w_kl == pytest.approx(scale, rel=1e-9)


@pytest.mark.parametrize("name", REG_RECIPES)
def test_recipes_of_the_code_for_reg(name, slow, measure, echo):
    alpha, temperature, multiplier, w_ce, w_kl, share, scale = REG_RECIPES[name]
    logits, labels = random_logits(classes=100)
    options = {"alpha": alpha, "temperature": temperature, "multiplier": multiplier}
    found = measure(TfKDReg(echo, 100, variant="code", **options), logits, labels)
    label, other = GOLDEN_CODE[100, temperature]
    targets = [[label if k == y else other for k in range(100)] for y in labels.tolist()]
    hard = slow.label_loss(logits.tolist(), labels.tolist())
    soft = slow.mean(slow.kl(t, slow.softmax(row)) for t, row in zip(targets, logits.tolist(), strict=True))
    assert found.total == pytest.approx(w_ce * hard + w_kl * soft, rel=1e-4)
    epsilon, found_scale = equivalent_smoothing(100, **options)
    assert found_scale == pytest.approx(scale, rel=1e-9)
    assert w_kl / found_scale == pytest.approx(share, abs=5e-4)
    # The smoothing is the soft term's share of a nearly uniform target.
    assert epsilon == pytest.approx(share, rel=0.02)


def test_consequence_a_reg_for_resnet18_is_its_label_smoothing_baseline():
    epsilon, scale = equivalent_smoothing(100, alpha=0.1, temperature=20.0, multiplier=100.0)
    assert scale == pytest.approx(1.0, rel=1e-12)
    assert 1 - epsilon + epsilon / 100 == pytest.approx(0.90105, abs=5e-6)
    assert epsilon / 100 == pytest.approx(0.000999, abs=5e-7)
    # Its baseline, the released label smoothing: 0.9 and 0.00101.
    baseline = 0.1 / 99
    assert baseline == pytest.approx(0.00101, abs=5e-6)
