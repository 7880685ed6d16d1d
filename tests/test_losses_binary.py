"""Losses of independent yes-or-no questions, one for each class."""

import math

import pytest
import torch

from tutelage.losses import binary_cross_entropy, binary_kd_loss, cross_entropy, kd_loss


def sigmoid(z):
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def slow_cross_entropy(logits, targets):
    """The loss by loops over `[batch, class, place]`, and its gradient; -1 is left out."""
    batch, classes, places = logits.shape
    gradient, total = torch.zeros_like(logits), 0.0
    counted = sum(any(targets[b, c, p] != -1 for c in range(classes)) for b in range(batch) for p in range(places))
    for b in range(batch):
        for c in range(classes):
            for p in range(places):
                q, found = targets[b, c, p].item(), sigmoid(logits[b, c, p].item())
                if q != -1:
                    total -= q * math.log(found) + (1 - q) * math.log(1 - found)
                    gradient[b, c, p] = (found - q) / counted
    return total / counted, gradient


def slow_kd(student, teacher, temperature):
    """The divergence by loops over `[batch, class, place]`, without the squared temperature, and its gradient."""
    batch, classes, places = student.shape
    gradient, total, count = torch.zeros_like(student), 0.0, batch * places
    for b in range(batch):
        for c in range(classes):
            for p in range(places):
                one, other = (sigmoid(logits[b, c, p].item() / temperature) for logits in (teacher, student))
                total += one * math.log(one / other) + (1 - one) * math.log((1 - one) / (1 - other))
                gradient[b, c, p] = (other - one) / temperature / count
    return total / count, gradient


def of_all(loss, logits):
    logits = logits.detach().clone().requires_grad_(True)
    value = loss(logits)
    return value.item(), torch.autograd.grad(value, logits)[0]


def test_known_answers():
    logits, targets = torch.tensor([[0.0, 0.0]], dtype=torch.float64), torch.tensor([[1, 0]])
    assert binary_cross_entropy(logits, targets).item() == pytest.approx(2 * math.log(2), rel=1e-12)
    # Log-odds of log 3 are a probability of 3/4, against 1/2.
    teacher = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert binary_kd_loss(logits, teacher, 1.0).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("places", [(), (3,), (2, 2)])
@pytest.mark.parametrize("unknown", [False, True])
def test_cross_entropy_against_loops(places, unknown):
    logits = torch.randn(4, 5, *places, dtype=torch.float64) * 3
    targets = torch.randint(-1 if unknown else 0, 2, logits.shape)
    if unknown:
        # A place of which nothing is known does not count.
        targets[1] = -1
    rows = logits.reshape(4, 5, -1), targets.reshape(4, 5, -1)
    value, gradient = slow_cross_entropy(*rows)
    found, slope = of_all(lambda z: binary_cross_entropy(z, targets), logits)
    assert found == pytest.approx(value, rel=1e-12)
    assert torch.allclose(slope.reshape(4, 5, -1), gradient, atol=1e-14)


def test_probabilities_are_targets_too():
    logits, targets = torch.randn(3, 4, 1, dtype=torch.float64), torch.rand(3, 4, 1, dtype=torch.float64)
    value, _ = slow_cross_entropy(logits, targets)
    assert binary_cross_entropy(logits, targets).item() == pytest.approx(value, rel=1e-12)


def test_no_known_answer_is_no_loss_and_a_broken_network_is_still_seen():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = binary_cross_entropy(logits, torch.full((2, 3), -1))
    assert loss == 0
    assert torch.autograd.grad(loss, logits)[0].abs().max() == 0
    assert binary_cross_entropy(torch.full((2, 3), math.nan), torch.ones(2, 3)).isnan()


@pytest.mark.parametrize("places", [(), (3,), (2, 2)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("t_squared", [True, False])
def test_kd_against_loops(places, temperature, t_squared):
    student, teacher = (torch.randn(4, 5, *places, dtype=torch.float64) * 3 for _ in range(2))
    factor = temperature**2 if t_squared else 1.0
    value, gradient = slow_kd(student.reshape(4, 5, -1), teacher.reshape(4, 5, -1), temperature)
    found, slope = of_all(lambda z: binary_kd_loss(z, teacher, temperature, t_squared=t_squared), student)
    assert found == pytest.approx(factor * value, rel=1e-10)
    assert torch.allclose(slope.reshape(4, 5, -1), factor * gradient, atol=1e-14)
    mean = binary_kd_loss(student, teacher, temperature, t_squared=t_squared, reduction="mean")
    assert mean.item() == pytest.approx(found / 5, rel=1e-12)


def test_two_classes_that_exclude_each_other_are_one_question():
    student, teacher = (torch.randn(6, 1, dtype=torch.float64) * 3 for _ in range(2))
    both = [torch.cat([logits, torch.zeros_like(logits)], 1) for logits in (student, teacher)]
    for temperature in (1.0, 4.0):
        expected = kd_loss(*both, temperature)
        assert torch.allclose(binary_kd_loss(student, teacher, temperature), expected, rtol=1e-12)
    labels = torch.randint(0, 2, (6,))
    expected = cross_entropy(both[0], labels)
    assert torch.allclose(binary_cross_entropy(student, 1 - labels[:, None]), expected, rtol=1e-12)


def test_equal_logits_cost_nothing_and_pull_nowhere():
    student = torch.randn(4, 5, dtype=torch.float64) * 3
    value, slope = of_all(lambda z: binary_kd_loss(z, student), student)
    assert value == 0
    assert slope.abs().max() < 1e-15


def test_no_gradient_reaches_the_teacher():
    student, teacher = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    binary_kd_loss(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_sure_networks_have_finite_losses_and_gradients(dtype, temperature):
    student = torch.tensor([[1e4, -1e4, 0.0, 1e4]]).to(dtype).requires_grad_(True)
    teacher = torch.tensor([[-1e4, -1e4, 1e4, 1e4]]).to(dtype)
    targets = torch.tensor([[0, 0, 1, 1]])
    for loss in (binary_kd_loss(student, teacher, temperature), binary_cross_entropy(student, targets)):
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite()
        assert loss > 0
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = (torch.randn(8, 100).mul(5).to(dtype) for _ in range(2))
    targets = torch.randint(0, 2, (8, 100))
    assert torch.equal(binary_kd_loss(student, teacher), binary_kd_loss(student.float(), teacher.float()))
    found = binary_cross_entropy(student, targets)
    assert torch.equal(found, binary_cross_entropy(student.float(), targets))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="same classes in the same order"):
        binary_kd_loss(torch.zeros(4, 10), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="each class needs a 0 or a 1"):
        binary_cross_entropy(torch.zeros(4, 10), torch.zeros(4, dtype=torch.long))
