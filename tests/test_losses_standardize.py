import math

import numpy as np
import pytest
import torch

from tutelage.core.teachers import VirtualTeacher
from tutelage.data.batch import Batch
from tutelage.losses import kd_loss, standardize
from tutelage.recording.quantization import Quantization

# Known answers in float64, from the fact sheet of the logit methods.
STUDENT = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
TEACHER = torch.tensor([[3.0, 2.0, 1.0], [1.0, 0.0, -1.0]], dtype=torch.float64)


def random_pair(rows=7, classes=5, scale=3.0):
    return (torch.randn(rows, classes, dtype=torch.float64) * scale for _ in range(2))


def gradient_of(loss, logits):
    logits = logits.detach().clone().requires_grad_(True)
    return torch.autograd.grad(loss(logits), logits)[0]


def slow_standardized(row, ddof):
    mean = math.fsum(row) / len(row)
    sigma = math.sqrt(math.fsum((value - mean) ** 2 for value in row) / (len(row) - ddof))
    return [(value - mean) / sigma for value in row]


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("classes", [2, 3, 100])
def test_standardize_against_loops(ddof, classes):
    logits, _ = random_pair(classes=classes)
    expected = [slow_standardized(row, ddof) for row in logits.tolist()]
    found = standardize(logits, ddof=ddof)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)
    assert torch.allclose(found.mean(1), torch.zeros(7, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("ddof", [0, 1])
def test_gradient_of_standardize_against_loops(ddof):
    logits, pulls = random_pair()
    found = gradient_of(lambda z: (standardize(z, ddof=ddof) * pulls).sum(), logits)

    def value(row, pull):
        return math.fsum(z * g for z, g in zip(slow_standardized(row, ddof), pull, strict=True))

    step = 1e-3
    for row, pull, gradient in zip(logits.tolist(), pulls.tolist(), found.tolist(), strict=True):
        for k in range(5):
            moved = [value([z + by * step * (j == k) for j, z in enumerate(row)], pull) for by in (-2, -1, 1, 2)]
            expected = (8 * (moved[2] - moved[1]) - (moved[3] - moved[0])) / (12 * step)
            assert gradient[k] == pytest.approx(expected, rel=1e-9, abs=1e-10)


def test_standardize_is_ddof_1_by_default():
    assert torch.equal(standardize(STUDENT[:1]), torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64))
    assert torch.equal(standardize(STUDENT), standardize(STUDENT, ddof=1))


@pytest.mark.parametrize(("ddof", "expected"), [(1, 0.09950594564), (0, 0.134699515595)])
def test_standardized_kd_known_answers(ddof, expected):
    teacher = torch.tensor([[-3.0, 3.0, 1.0, -1.0]], dtype=torch.float64)
    student = torch.tensor([[-6.0, 3.0, 4.0, -1.0]], dtype=torch.float64)
    found = kd_loss(standardize(student, ddof=ddof), standardize(teacher, ddof=ddof), 1.0)
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("ddof", "expected"), [(1, 1.2806266713), (0, 1.8843656477)])
def test_standardized_kd_known_answers_at_temperature_two(ddof, expected):
    found = kd_loss(standardize(STUDENT[:1], ddof=ddof), standardize(TEACHER[:1], ddof=ddof), 2.0)
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("ddof", [0, 1])
def test_standardized_logits_know_no_scale_and_no_shift(ddof):
    logits, _ = random_pair()
    scales, shifts = torch.rand(7, 1, dtype=torch.float64) * 9 + 0.1, torch.randn(7, 1, dtype=torch.float64) * 9
    assert torch.allclose(standardize(scales * logits + shifts, ddof=ddof), standardize(logits, ddof=ddof), atol=1e-12)
    assert torch.allclose(standardize(-logits, ddof=ddof), -standardize(logits, ddof=ddof), atol=1e-12)
    assert kd_loss(standardize(7 * logits - 3, ddof=ddof), standardize(logits, ddof=ddof)).item() < 1e-14
    pulls = torch.randn(7, 5, dtype=torch.float64)
    gradient = gradient_of(lambda z: (standardize(z, ddof=ddof) * pulls).sum(), logits)
    # What changes nothing has no gradient along it.
    assert gradient.sum(1).abs().max() < 1e-13
    assert (gradient * logits).sum(1).abs().max() < 1e-13


@pytest.mark.parametrize(("ddof", "bound"), [(0, math.sqrt(99)), (1, 99 / math.sqrt(100))])
def test_standardized_logits_are_bounded_and_one_hot_ones_reach_the_bound(ddof, bound):
    logits, _ = random_pair(classes=100, scale=30.0)
    assert standardize(logits, ddof=ddof).abs().max() <= bound
    one_hot = torch.eye(100, dtype=torch.float64)
    assert standardize(one_hot, ddof=ddof).amax(1).tolist() == pytest.approx([bound] * 100, rel=1e-12)


def test_standardized_two_classes_are_a_sign_without_gradient():
    logits, _ = random_pair(classes=2)
    assert torch.allclose(standardize(logits).abs(), torch.full((7, 2), 0.5, dtype=torch.float64).sqrt())
    pulls = torch.randn(7, 2, dtype=torch.float64)
    assert gradient_of(lambda z: (standardize(z) * pulls).sum(), logits).abs().max() < 1e-13


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -0.3, 7.0, 1234.567, 1e4])
@pytest.mark.parametrize("ddof", [0, 1])
def test_equal_logits_become_zeros_without_gradient(dtype, value, ddof):
    for classes in (2, 3, 10, 97, 1000):
        logits = torch.full((2, classes), value, dtype=dtype, requires_grad=True)
        found = standardize(logits, ddof=ddof)
        (gradient,) = torch.autograd.grad((found * torch.randn(2, classes)).sum(), logits)
        assert torch.equal(found, torch.zeros_like(found))
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_rounding_of_equal_logits_is_not_blown_up():
    # The mean of equal numbers is not always that number: what is left over is no knowledge.
    rows = torch.full((1, 97), 1.0) * torch.logspace(-3, 3, 200).unsqueeze(1)
    left = rows - rows.mean(1, keepdim=True)
    assert left.abs().max() > 0
    assert torch.equal(standardize(rows), torch.zeros_like(rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_that_differ_by_one_rounding_are_equal(dtype):
    row = torch.full((1, 100), 0.1, dtype=dtype)
    row[0, 3] = row[0, 3].nextafter(row.new_tensor(1.0))
    assert row.unique().numel() == 2
    assert torch.equal(standardize(row), torch.zeros_like(row))


@pytest.mark.parametrize("size", [1e-40, 1e-20, 1e-13, 1e-8])
def test_tiny_logits_have_finite_gradients(size):
    logits = torch.tensor([[size, -size, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad((standardize(logits) * torch.tensor([[0.3, 0.5, -2.0]])).sum(), logits)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_small_differences_are_no_rounding(scale):
    base = torch.randn(7, 100)
    assert torch.allclose(standardize(base * scale), standardize(base), atol=1e-4)
    near = 10.0 + 1e-3 * base
    assert standardize(near).std(1).tolist() == pytest.approx([1.0] * 7, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_standardize_is_computed_in_float32(dtype):
    logits = torch.randn(8, 100).mul(5).to(dtype)
    found = standardize(logits)
    assert found.dtype == torch.float32
    assert torch.equal(found, standardize(logits.float()))
    huge = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    assert standardize(huge)[0].tolist() == pytest.approx([1.0, -1.0, 0.0], rel=1e-5)
    (gradient,) = torch.autograd.grad(standardize(huge)[0, 2], huge)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_standardize_under_autocast(dtype):
    logits = torch.randn(8, 100).mul(5)
    with torch.autocast("cpu", dtype=dtype):
        found = standardize(logits)
    assert torch.equal(found, standardize(logits))


def test_rows_are_standardized_apart():
    logits, _ = random_pair()
    logits[3] = 2.5
    found = standardize(logits)
    assert torch.equal(found[3], torch.zeros(5, dtype=torch.float64))
    assert torch.allclose(found[:3], standardize(logits[:3]), rtol=1e-14)
    gradient = gradient_of(lambda z: standardize(z)[0].square().sum() + standardize(z)[0, 0], logits)
    assert torch.equal(gradient[1:], torch.zeros_like(gradient[1:]))


def restored(keep, logits):
    """What a recording replays of logits."""
    stored = Quantization.parse(keep).pack(logits)
    rows = np.empty(len(logits), Quantization.parse(keep).fields(logits.shape[1], "float32"))
    for field, content in stored.items():
        rows[field] = content
    return Quantization.parse(keep).logits(rows, logits.shape[1])


def without_others(origin):
    """Rows in which probabilities of zero are -1e30."""
    if origin == "one-hot":
        return torch.eye(5).log().clamp(min=-1e30)
    if origin == "virtual":
        labels = torch.tensor([3, 0, 4])
        return VirtualTeacher(5, confidence=1.0)(Batch(inputs=labels, targets=labels)).logits
    return restored(origin, torch.randn(7, 5) * 3)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("origin", ["one-hot", "virtual", "hard", "top2-renormalized"])
def test_logarithms_of_zero_leave_two_levels(origin, ddof):
    rows = without_others(origin)
    assert (rows == -1e30).any(1).all()
    found = standardize(rows, ddof=ddof)
    assert torch.allclose(found, standardize((rows > -1e30).double(), ddof=ddof).float(), rtol=1e-6)
    expected = torch.tensor([slow_standardized(row, ddof) for row in rows.double().tolist()])
    assert torch.allclose(found, expected, rtol=1e-6)
    pulls = torch.randn(rows.shape)
    gradient = gradient_of(lambda z: (standardize(z, ddof=ddof) * pulls).sum(), rows)
    # In float64 the squares are finite; by the largest magnitude, the gradients are of the order of one.
    slow = rows.double()
    sigma = ((slow - slow.mean(1, keepdim=True)).square().sum(1, keepdim=True) / (5 - ddof)).sqrt()
    along = (pulls * expected).sum(1, keepdim=True) / (5 - ddof)
    closed = (pulls - pulls.mean(1, keepdim=True) - along * expected) / sigma
    assert torch.allclose(gradient.double() * 1e30, closed * 1e30, rtol=1e-5, atol=1e-5)
    assert closed.abs().max() > 1e-32


@pytest.mark.parametrize("size", [1e-3, 1.0, 7e4, 1e12, 3e18, 1e30, 3e38])
def test_no_magnitude_is_too_large(size):
    rows = torch.tensor([[1.0, -1.0, 0.25, 0.0]]) * size
    assert torch.allclose(standardize(rows), standardize(rows.double() / size).float(), rtol=1e-6, atol=1e-7)
    assert gradient_of(lambda z: standardize(z)[:, 0].sum(), rows).isfinite().all()
    assert torch.equal(standardize(torch.full((1, 97), size)), torch.zeros(1, 97))


def test_scaling_by_a_power_of_two_changes_no_bit():
    rows = torch.randn(200, 100) * torch.logspace(-3, 6, 200)[:, None]
    centred = rows - rows[:, :1]
    centred = centred - centred.mean(1, keepdim=True)
    assert torch.equal(standardize(rows), centred * (centred.square().sum(1, keepdim=True) / 99).rsqrt())


@pytest.mark.parametrize("ddof", [0, 1])
def test_maps_are_standardised_place_by_place(ddof):
    maps = torch.randn(2, 5, 3, 4, dtype=torch.float64) * 3
    rows = maps.permute(0, 2, 3, 1).reshape(-1, 5)
    expected = standardize(rows, ddof=ddof).view(2, 3, 4, 5).permute(0, 3, 1, 2)
    assert torch.allclose(standardize(maps, ddof=ddof), expected, rtol=1e-12)
