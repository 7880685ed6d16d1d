import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.errors import UserError
from tutelage.methods.kd import KD
from tutelage.methods.tolerant_teacher import TolerantTeacher, tolerant_teacher, top_score_difference


def slow_difference(row, top, slow):
    f = sorted(slow.softmax(row), reverse=True)[:top]
    return f[0] - sum(f[1:]) / (top - 1)


@pytest.mark.parametrize(("top", "expected"), [(2, 0.2), (3, 0.3), (4, 1 / 3)])
def test_known_answers_of_probabilities(top, expected):
    logits = torch.tensor([[0.5, 0.3, 0.1, 0.1]], dtype=torch.float64).log()
    assert top_score_difference(logits, top).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("top", "difference", "mix"), [(2, 0.4070314418, 0.4269263959), (3, 0.4819006915, 0.4568740957)]
)
def test_known_answers_of_logits(top, difference, mix, double, measure, echo):
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    found = measure(TolerantTeacher(echo, 4, top=top, eta=0.6), logits, torch.tensor([0]))
    assert found.losses["tolerance"] == pytest.approx(difference, rel=1e-9)
    assert found.total == pytest.approx(mix, rel=1e-9)


def test_known_answer_of_a_batch(double, measure, echo):
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    rows = [top_score_difference(logits[i : i + 1], 3).item() for i in range(2)]
    assert rows == pytest.approx([0.497861433662, 0.0], abs=1e-12)
    found = measure(TolerantTeacher(echo, 3, top=3, eta=0.6), logits, torch.tensor([2, 0]))
    assert found.total == pytest.approx(0.5514377626661936, rel=1e-12)


@pytest.mark.parametrize("top", [2, 3, 5])
def test_loss_against_loops_and_closed_gradient(top, double, slow, measure, echo):
    logits, labels = torch.randn(6, 5) * 2, torch.randint(0, 5, (6,))
    found = measure(TolerantTeacher(echo, 5, top=top, eta=0.3), logits, labels)
    expected = slow.mean(slow_difference(row, top, slow) for row in logits.tolist())
    assert found.losses["tolerance"] == pytest.approx(expected, rel=1e-12)
    assert found.total == pytest.approx(0.3 * found.losses["ce"] + 0.7 * expected, rel=1e-12)
    # With signs w on the sorted probabilities f: d(w . f)/dz_j = f_j (w_j - w . f).
    f = logits.softmax(1)
    w = torch.zeros_like(f)
    w.scatter_(1, f.topk(top, 1).indices, torch.tensor([1.0] + [-1 / (top - 1)] * (top - 1)).expand(6, -1))
    closed = f * (w - (w * f).sum(1, keepdim=True))
    assert torch.allclose(found.gradient, (0.3 * (f - F.one_hot(labels, 5)) + 0.7 * closed) / 6, atol=1e-15)


def test_range_and_invariance():
    assert top_score_difference(torch.zeros(3, 6), 5).item() == pytest.approx(0.0, abs=1e-7)
    assert top_score_difference(torch.tensor([[1e4, 0.0, 0.0]]), 3).item() == pytest.approx(1.0)
    logits = torch.randn(200, 6, dtype=torch.float64) * 4
    values = [top_score_difference(row[None], 4).item() for row in logits]
    assert min(values) >= 0
    assert max(values) <= 1
    permuted = top_score_difference(logits[:, torch.randperm(6)], 4)
    assert torch.allclose(permuted, top_score_difference(logits, 4), rtol=1e-12)


def test_minimising_it_lowers_the_first_choice():
    logits = torch.randn(1, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(top_score_difference(logits, 5), logits)
    before, after = (z.softmax(1).amax() for z in (logits, logits - 0.1 * gradient))
    assert after < before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits = torch.tensor([[1e4, 0.0, -1e4], [2.0, 1.0, 0.5]], dtype=dtype)
    found = top_score_difference(logits, 3)
    assert found.dtype == torch.float32
    assert torch.equal(found, top_score_difference(logits.float(), 3))


@pytest.mark.parametrize("options", [{"top": 1}, {"top": 11}, {"eta": -0.1}, {"eta": 1.1}, {"eta": math.nan}])
def test_mistakes_are_told(options):
    with pytest.raises(UserError, match=f"{next(iter(options))}="):
        TolerantTeacher(nn.Linear(2, 10), 10, **options)


def test_generations_from_the_patriarch(run, make, without_test):
    network = tolerant_teacher(run, make, without_test, 3, generations=3, top=2, eta=0.7, alpha=0.4)
    assert make.parts == ["patriarch", "generation-1", "generation-2"]
    assert [fit.name for fit in run.fits] == make.parts
    patriarch = run.fits[0].method
    assert isinstance(patriarch, TolerantTeacher)
    assert (patriarch.top, patriarch.weights["ce"]) == (2, 0.7)
    for number in (1, 2):
        method = run.fits[number].method
        assert isinstance(method, KD)
        assert method.teacher.network is make.networks[number - 1]
        assert (method.temperature, method.weights["kd"]) == (1.0, 0.4)
    assert network is make.networks[2]


def test_few_classes_are_all_compared(run, make, without_test):
    tolerant_teacher(run, make, without_test, 3)
    assert run.fits[0].method.top == 3


def test_one_generation_is_refused(run, make, without_test):
    with pytest.raises(UserError, match="generations=1"):
        tolerant_teacher(run, make, without_test, 3, generations=1)
