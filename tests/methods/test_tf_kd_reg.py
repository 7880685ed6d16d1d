import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.errors import UserError
from tutelage.methods.tf_kd_reg import TfKDReg, equivalent_smoothing, virtual_distribution


def slow_teacher(label, classes, a, temperature, variant, slow):
    p = [a if k == label else (1 - a) / (classes - 1) for k in range(classes)]
    if variant == "code":
        return slow.softmax(p, temperature)
    powers = [x ** (1 / temperature) for x in p]
    return [x / sum(powers) for x in powers]


@pytest.mark.parametrize("temperature", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("t_squared", [True, False])
def test_equation_nine_against_loops_and_closed_gradient(temperature, t_squared, double, slow, measure, echo):
    logits, labels = torch.randn(5, 4) * 3, torch.randint(0, 4, (5,))
    method = TfKDReg(echo, 4, temperature=temperature, alpha=0.3, confidence=0.9, t_squared=t_squared)
    targets = [slow_teacher(y, 4, 0.9, temperature, "paper", slow) for y in labels.tolist()]
    rows = zip(targets, logits.tolist(), strict=True)
    factor = temperature**2 if t_squared else 1.0
    soft = factor * slow.mean(slow.kl(t, slow.softmax(z, temperature)) for t, z in rows)
    found = measure(method, logits, labels)
    assert found.losses["virtual"] == pytest.approx(soft, rel=1e-10)
    assert found.total == pytest.approx(0.7 * found.losses["ce"] + 0.3 * soft, rel=1e-12)
    gap = factor / temperature * (F.softmax(logits / temperature, 1) - torch.tensor(targets))
    closed = (0.7 * (F.softmax(logits, 1) - F.one_hot(labels, 4)) + 0.3 * gap) / 5
    assert torch.allclose(found.gradient, closed, atol=1e-14)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
@pytest.mark.parametrize("multiplier", [1.0, 50.0])
def test_released_code_against_loops_and_closed_gradient(temperature, multiplier, double, slow, measure, echo):
    logits, labels = torch.randn(5, 4) * 3, torch.randint(0, 4, (5,))
    method = TfKDReg(echo, 4, temperature=temperature, alpha=0.3, variant="code", multiplier=multiplier)
    targets = [slow_teacher(y, 4, 0.99, temperature, "code", slow) for y in labels.tolist()]
    soft = slow.mean(slow.kl(t, slow.softmax(z)) for t, z in zip(targets, logits.tolist(), strict=True)) / 4
    found = measure(method, logits, labels)
    assert found.losses["virtual"] == pytest.approx(soft, rel=1e-10)
    assert found.total == pytest.approx(0.7 * found.losses["ce"] + 0.3 * multiplier * soft, rel=1e-12)
    gap = multiplier / 4 * (F.softmax(logits, 1) - torch.tensor(targets))
    closed = (0.7 * (F.softmax(logits, 1) - F.one_hot(labels, 4)) + 0.3 * gap) / 5
    assert torch.allclose(found.gradient, closed, atol=1e-14)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_virtual_distribution_against_loops(variant, slow):
    for classes, a, temperature in ((2, 0.9, 1.0), (10, 0.99, 20.0), (100, 0.5, 4.0)):
        row = slow_teacher(0, classes, a, temperature, variant, slow)
        found = virtual_distribution(classes, confidence=a, temperature=temperature, variant=variant)
        assert found == pytest.approx((row[0], row[-1]), rel=1e-12)


def test_multiplier_is_for_the_code_alone():
    with pytest.raises(UserError, match="variant=code"):
        TfKDReg(nn.Linear(2, 4), 4, alpha=0.2, multiplier=50.0)
    with pytest.raises(UserError, match="variant=paper"):
        TfKDReg(nn.Linear(2, 4), 4, variant="code", t_squared=False)
    code = TfKDReg(nn.Linear(2, 4), 4, alpha=0.2, multiplier=50.0, variant="code")
    assert code.weights == pytest.approx({"ce": 0.8, "virtual": 10.0})


def test_equivalent_smoothing_ignores_the_multiplier_and_temperature_of_the_paper():
    plain = equivalent_smoothing(10, alpha=0.3, temperature=1.0, variant="paper")
    assert equivalent_smoothing(10, alpha=0.3, temperature=20.0, multiplier=9.0, variant="paper") == plain


def test_defaults_are_the_papers(echo):
    method = TfKDReg(echo, 1000)
    assert (method.temperature, method.weights["virtual"], method.teacher.confidence) == (20.0, 0.1, 0.99)


@pytest.mark.parametrize(
    "options", [{"alpha": 1.5}, {"temperature": 0.0}, {"confidence": 1.5}, {"confidence": 0.05}, {"confidence": -1.0}]
)
def test_mistakes_are_told(options, echo):
    with pytest.raises(UserError, match=f"{next(iter(options))}="):
        TfKDReg(echo, 10, **options)
