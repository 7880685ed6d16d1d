import math

import pytest
import torch

from tutelage.features.products import gram, unit_rows


def test_gram_against_loops():
    features = torch.randn(4, 2, 3, 5, dtype=torch.float64)
    rows = [sample.flatten().tolist() for sample in features]
    expected = [[math.fsum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]
    assert gram(features).tolist() == [pytest.approx(row, rel=1e-12) for row in expected]
    transposed = features.transpose(1, 3)
    assert torch.allclose(gram(transposed), gram(features), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gram_is_computed_in_float32_under_autocast(dtype):
    # In float16 the sum of these squares is infinite.
    features = torch.randn(4, 64, 8, 8).mul(100).to(dtype)
    with torch.autocast("cpu", dtype):
        found = gram(features)
    assert found.dtype == torch.float32
    assert torch.equal(found, gram(features.float()))


@pytest.mark.parametrize("length", [1e-9, 1.0, 1e15])
def test_unit_rows_have_length_one_at_any_scale(length):
    rows = torch.tensor([[3.0, 4.0], [-4.0, 3.0]]) * length
    assert torch.allclose(unit_rows(rows), torch.tensor([[0.6, 0.8], [-0.8, 0.6]]))


def test_unit_rows_gradient_is_the_projection_off_the_row():
    rows = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, 5, dtype=torch.float64)
    (found,) = torch.autograd.grad((unit_rows(rows) * upstream).sum(), rows)
    for row, given, gradient in zip(rows.tolist(), upstream.tolist(), found.tolist(), strict=True):
        norm = math.hypot(*row)
        along = math.fsum(a * b for a, b in zip(row, given, strict=True)) / norm**2
        assert gradient == pytest.approx([(g - along * r) / norm for r, g in zip(row, given, strict=True)], rel=1e-9)


def test_rows_that_are_too_short_count_as_zeros():
    rows = torch.tensor([[6e-4, 7e-4], [0.0, 2e-3]], requires_grad=True)
    found = unit_rows(rows, shortest=1e-3)
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), rows)
    assert found.tolist() == [[0.0, 0.0], [0.0, 1.0]]
    assert gradient.tolist() == [[0.0, 0.0], [pytest.approx(500.0), 0.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rows_of_zeros_stay_zeros_without_a_gradient(dtype):
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=dtype, requires_grad=True)
    found = unit_rows(rows)
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), rows)
    assert found[0].tolist() == [0.0, 0.0]
    assert gradient[0].tolist() == [0.0, 0.0]
    assert gradient[1].abs().max() > 0.05
