"""Losses of single tokens against slow loops, one number at a time; and their gradients against finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F

from tutelage.core.token_losses import Forward, JensenShannon, NextToken, Reverse

T, S = (0.7, 0.2, 0.1), (0.5, 0.25, 0.25)
LOSSES = [Forward, Reverse, JensenShannon]


def softmax(row, temperature):
    powers = [math.exp(value / temperature) for value in row]
    return [power / math.fsum(powers) for power in powers]


def kl(one, other):
    return math.fsum(p * (math.log(p) - math.log(q)) for p, q in zip(one, other, strict=True))


def slow(loss, student, teacher):
    q, p = softmax(student, loss.temperature), softmax(teacher, loss.temperature)
    if isinstance(loss, JensenShannon):
        m = [loss.beta * a + (1 - loss.beta) * b for a, b in zip(p, q, strict=True)]
        return loss.beta * kl(p, m) + (1 - loss.beta) * kl(q, m)
    return kl(p, q) if isinstance(loss, Forward) else kl(q, p)


def logits(*probabilities):
    return torch.tensor([probabilities], dtype=torch.float64).log()


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("loss", [Forward, Reverse, lambda t: JensenShannon(t, 0.5), lambda t: JensenShannon(t, 0.1)])
def test_value_and_gradient_equal_a_slow_loop(loss, temperature):
    loss = loss(temperature)
    student, teacher = 2 * torch.randn(2, 3, 5, dtype=torch.float64)
    expected = [slow(loss, *rows) for rows in zip(student.tolist(), teacher.tolist(), strict=True)]
    assert loss.losses(student, teacher).tolist() == pytest.approx(expected, rel=1e-11)
    gradient = loss.gradients(student, teacher)
    step = 1e-6
    for row in range(3):
        for place in range(5):
            up, down = student[row].tolist(), student[row].tolist()
            up[place] += step
            down[place] -= step
            slope = (slow(loss, up, teacher[row].tolist()) - slow(loss, down, teacher[row].tolist())) / (2 * step)
            assert gradient[row, place].item() == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_known_answers():
    assert Forward().losses(logits(*S), logits(*T)).item() == pytest.approx(0.0992727822, abs=1e-10)
    assert Reverse().losses(logits(*S), logits(*T)).item() == pytest.approx(0.1166224525, abs=1e-10)
    # Of a certain student and a certain teacher that disagree, half and half is log 2.
    one, other = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])
    assert JensenShannon().losses(one, other).item() == pytest.approx(math.log(2), rel=1e-6)


def test_half_and_half_does_not_care_which_is_the_teacher():
    student, teacher = torch.randn(2, 4, 6)
    found = JensenShannon().losses(student, teacher)
    torch.testing.assert_close(found, JensenShannon().losses(teacher, student))


def test_the_limits_of_beta_are_the_two_directions():
    student, teacher = torch.randn(2, 4, 6, dtype=torch.float64)
    near = JensenShannon(1.0, 1e-6).losses(student, teacher) / 1e-6
    torch.testing.assert_close(near, Forward().losses(student, teacher), rtol=1e-4, atol=0)
    far = JensenShannon(1.0, 1 - 1e-6).losses(student, teacher) / 1e-6
    torch.testing.assert_close(far, Reverse().losses(student, teacher), rtol=1e-4, atol=0)
    # So are their gradients.
    slope = JensenShannon(1.0, 1e-6).gradients(student, teacher) / 1e-6
    torch.testing.assert_close(slope, Forward().gradients(student, teacher), rtol=1e-3, atol=1e-6)
    slope = JensenShannon(1.0, 1 - 1e-6).gradients(student, teacher) / 1e-6
    torch.testing.assert_close(slope, Reverse().gradients(student, teacher), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", LOSSES)
def test_of_equal_answers_there_is_no_loss_and_no_gradient(kind, dtype):
    student = 5 * torch.randn(7, 11, dtype=dtype)
    for loss in (kind(1.0), kind(0.05)):
        assert loss.losses(student, student.clone()).tolist() == [0.0] * 7
        assert loss.gradients(student, student.clone()).abs().max() <= (1e-5 if dtype == torch.float32 else 1e-14)


@pytest.mark.parametrize("kind", LOSSES)
def test_no_divergence_is_below_zero(kind):
    """Nearly equal answers, whose difference rounding drowns: rivals report negative ones."""
    teacher = 3 * torch.randn(200, 50)
    student = (teacher + 1e-3 * torch.randn(200, 50)).bfloat16().float()
    assert kind(1.0).losses(student, teacher.bfloat16().float()).min() >= 0


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_finite_at_a_low_temperature(kind, scale):
    student, teacher = scale * torch.randn(2, 8, 30)
    loss = kind(0.05)
    assert loss.losses(student, teacher).isfinite().all()
    assert loss.gradients(student, teacher).isfinite().all()


@pytest.mark.parametrize("kind", LOSSES)
def test_finite_where_a_probability_is_zero(kind):
    student, teacher = torch.randn(2, 3, 6)
    teacher[:, 2], student[:, 4] = -math.inf, -math.inf
    assert kind(1.0).losses(student, teacher).isfinite().all()
    assert kind(1.0).gradients(student, teacher).isfinite().all()


def test_the_next_token():
    student = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 3, -1, 2, 2])
    expected = F.cross_entropy(student, targets, reduction="sum", ignore_index=-1)
    torch.testing.assert_close(NextToken().losses(student, targets).sum(), expected)
    (gradient,) = torch.autograd.grad(expected, student)
    torch.testing.assert_close(NextToken().gradients(student.detach(), targets), gradient)
