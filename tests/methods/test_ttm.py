"""TTM and WTTM against loops in float64, value and gradient, their known answers, and the identity with KD."""

import math

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress, Update
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.losses import kd_loss
from tutelage.methods.ttm import TTM, WTTM, sample_weights, ttm_loss, wttm_loss

STUDENT = torch.tensor([[2, 0, 1], [0, 1, 0], [-1, 1, 2], [1, 0, 0]], dtype=torch.float64)
TEACHER = torch.tensor([[3, 0, 0], [0, 2, 1], [0, 1, 3], [1, 2, 0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 0])
LOSSES = {"ttm": ttm_loss, "wttm": wttm_loss}


# The paper's equations, one number at a time: of scalar tensors, through which gradients flow.


def slow_softmax(row):
    exponentials = [z.exp() for z in row]
    return [e / sum(exponentials) for e in exponentials]


def slow_rows(student, teacher, temperature):
    """The divergence and the weight of each row, from powers of the teacher's probabilities."""
    for ours, theirs in zip(student.unbind(), teacher.unbind(), strict=True):
        q, p = slow_softmax(ours.unbind()), slow_softmax(theirs.unbind())
        powers = [x ** (1 / temperature) for x in p]
        target = [x / sum(powers) for x in powers]
        yield sum(t * (t / x).log() for t, x in zip(target, q, strict=True)), sum(powers)


def slow(name, student, teacher, temperature):
    rows = [kl * (w if name == "wttm" else 1.0) for kl, w in slow_rows(student, teacher, temperature)]
    return sum(rows) / len(rows)


def drawn(*shape, scale=2.0):
    return scale * torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("shape", [(5, 4), (1, 6), (3, 2)])
def test_value_and_gradient_are_the_papers(name, temperature, shape):
    student, teacher = drawn(*shape).requires_grad_(), drawn(*shape)
    found, expected = LOSSES[name](student, teacher, temperature), slow(name, student, teacher, temperature)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, student)[0] for loss in (found, expected)), rtol=1e-9, atol=0
    )


def test_known_answers():
    assert ttm_loss(STUDENT, TEACHER, 2.0).item() == pytest.approx(0.0956163285, abs=5e-11)
    assert wttm_loss(STUDENT, TEACHER, 2.0).item() == pytest.approx(0.1482092843, abs=5e-11)
    assert ttm_loss(STUDENT, TEACHER, 10.0).item() == pytest.approx(0.2186523420, abs=5e-11)
    assert wttm_loss(STUDENT, TEACHER, 10.0).item() == pytest.approx(0.5523280817, abs=5e-11)
    rows = [ttm_loss(s[None], t[None], 2.0).item() for s, t in zip(STUDENT, TEACHER, strict=True)]
    assert rows == pytest.approx([0.0386248290, 0.0247729861, 0.0950100074, 0.2240574915], abs=5e-11)
    rows = [ttm_loss(s[None], t[None], 10.0).item() for s, t in zip(STUDENT, TEACHER, strict=True)]
    assert rows == pytest.approx([0.2151358731, 0.0889920442, 0.4465489991, 0.1239324517], abs=5e-11)
    weights = [1.3792221174, 1.6103743837, 1.4614743783, 1.6103743837]
    assert sample_weights(TEACHER, 2.0).tolist() == pytest.approx(weights, abs=5e-11)
    weights = [2.4581914640, 2.6147859822, 2.5164431571, 2.6147859822]
    assert sample_weights(TEACHER, 10.0).tolist() == pytest.approx(weights, abs=5e-11)


def test_it_is_tempered_cross_entropy_less_renyi_entropy():
    """The paper's point: CE(p~, q) = T CE(p~, q_T) - (T - 1) H_{1/T}(q), to rounding."""
    temperature = 2.0
    target, log_q = (TEACHER / temperature).softmax(1), STUDENT.log_softmax(1)
    entropy = (log_q / temperature).exp().sum(1).log() / (1 - 1 / temperature)
    assert entropy.tolist() == pytest.approx([0.9529333768, 1.0373088249, 0.8592489939, 1.0373088249], abs=5e-11)
    tempered = -(target * (STUDENT / temperature).log_softmax(1)).sum(1)
    expected = temperature * tempered - (temperature - 1) * entropy + (target * target.log()).sum(1)
    assert ttm_loss(STUDENT, TEACHER, temperature).item() == pytest.approx(expected.mean().item(), rel=1e-14)
    softened = temperature * kd_loss(STUDENT, TEACHER, temperature, t_squared=False).item()
    assert softened == pytest.approx(0.1227749876, abs=5e-11)


@pytest.mark.parametrize("loss", LOSSES.values())
def test_at_a_temperature_of_one_it_is_kd(loss):
    student, teacher = drawn(5, 4), drawn(5, 4)
    torch.testing.assert_close(loss(student, teacher, 1.0), kd_loss(student, teacher, 1.0))
    torch.testing.assert_close(sample_weights(teacher, 1.0), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("loss", LOSSES.values())
def test_the_softened_teacher_costs_nothing_and_shifts_do_not_matter(loss):
    teacher = drawn(5, 4)
    student = (teacher / 3).requires_grad_()
    found = loss(student, teacher, 3.0)
    assert found.item() == pytest.approx(0.0, abs=1e-14)
    assert torch.autograd.grad(found, student)[0].abs().max() < 1e-14
    other, shift = drawn(5, 4), drawn(5, 1, scale=50)
    torch.testing.assert_close(loss(other + shift, teacher - 2 * shift, 3.0), loss(other, teacher, 3.0))


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_weight_grows_from_one_with_doubt(classes):
    sure, unsure = torch.zeros(1, classes), torch.zeros(1, classes)
    sure[0, 1] = 1e4
    assert sample_weights(sure, 10.0).item() == pytest.approx(1.0)
    assert sample_weights(unsure, 10.0).item() == pytest.approx(classes**0.9, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_sure_teacher_keeps_what_it_says_of_the_others(dtype):
    """A power of its probabilities would be zero: in float16 beyond a gap of 17, in float32 beyond 103."""
    student, teacher = torch.zeros(2, 2, dtype=dtype), torch.tensor([[20.0, 0.0], [0.0, 150.0]], dtype=dtype)
    expected = [kl.item() for kl, _ in slow_rows(student.double(), teacher.double(), 10.0)]
    with torch.autocast("cpu", torch.bfloat16 if dtype == torch.float32 else dtype):
        found = ttm_loss(student, teacher, 10.0)
        weights = sample_weights(teacher, 10.0)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert weights.tolist() == pytest.approx([1 + math.exp(-2), 1 + math.exp(-15)], rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values())
def test_classes_that_stand_for_nothing_are_finite(loss):
    """A recording of the likeliest classes has -1e30 for the others."""
    student = torch.randn(3, 5, requires_grad=True)
    teacher = torch.full((3, 5), -1e30).index_fill(1, torch.tensor([1, 4]), 0.5)
    found = loss(student, teacher, 10.0)
    (gradient,) = torch.autograd.grad(found, student)
    assert found.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_each_place_of_a_map_counts_as_a_sample(name):
    student, teacher = drawn(2, 3, 2, 2).requires_grad_(), drawn(2, 3, 2, 2)
    found = LOSSES[name](student, teacher, 4.0)
    rows = [logits.movedim(1, 3).flatten(0, 2) for logits in (student, teacher)]
    expected = slow(name, *rows, 4.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, student)[0] for loss in (found, expected)), rtol=1e-9, atol=0
    )


def test_no_gradient_reaches_the_teacher():
    student, teacher = drawn(3, 4).requires_grad_(), drawn(3, 4).requires_grad_()
    wttm_loss(student, teacher, 5.0).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize(("build", "name", "beta"), [(TTM, "ttm", 45.0), (WTTM, "wttm", 4.0)])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_method_adds_the_cross_entropy(build, name, beta, mixed, echo, parrot):
    targets = torch.tensor([[0.7, 0.3, 0.0]] * 4, dtype=torch.float64) if mixed else LABELS
    method = build(echo, parrot(TEACHER))
    losses = method.losses(Batch(inputs=STUDENT, targets=targets))
    hard = nn.functional.cross_entropy(STUDENT, targets)
    soft = slow(name, STUDENT, TEACHER, method.temperature)
    assert {key: loss.item() for key, loss in losses.items()} == pytest.approx({"ce": hard.item(), name: soft.item()})
    total = method.total(Update(losses), Progress())
    assert total.item() == pytest.approx((hard + beta * soft).item())
    assert method.losses(Batch(inputs=STUDENT)).keys() == {name}


@pytest.mark.parametrize("build", [TTM, WTTM])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": -1.0}, {"temperature": math.inf}])
def test_a_temperature_by_which_nothing_can_be_divided_is_refused(build, options, echo, parrot):
    with pytest.raises(UserError, match=f"temperature={options['temperature']} must be above zero and finite"):
        build(echo, parrot(TEACHER), **options)


@pytest.mark.parametrize("build", [TTM, WTTM])
@pytest.mark.parametrize("beta", [-1.0, math.nan])
def test_a_weight_below_zero_is_refused(build, beta, echo, parrot):
    with pytest.raises(UserError, match=f"beta={beta}"):
        build(echo, parrot(TEACHER), beta=beta)


@pytest.mark.parametrize("loss", LOSSES.values())
def test_other_classes_are_refused(loss):
    with pytest.raises(ValueError, match="the same classes in the same order"):
        loss(STUDENT, TEACHER[:, :2])
