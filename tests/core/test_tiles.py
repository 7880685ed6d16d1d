"""Sums over tokens, tile by tile: any tile gives the same, and nothing as large as the answers is made beside them."""

import runpy
from pathlib import Path

import pytest
import torch

from tutelage.core.tiles import sum_over_tokens
from tutelage.core.token_losses import Forward, JensenShannon, NextToken, Reverse

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "losses.py"))
saved_bytes, peak_bytes = BENCHMARK["saved_bytes"], BENCHMARK["peak_bytes"]
WORDS = 40


def answers(batch=3, tokens=5, dtype=torch.float64):
    """As networks give them: the classes last in memory."""
    student, teacher = torch.randn(2, batch, tokens, WORDS, dtype=dtype)
    return student.requires_grad_(True), teacher, torch.rand(batch, tokens) < 0.7


def total(loss, student, other, counted, **options):
    other = other.movedim(2, 1) if other.ndim == 3 else other
    return sum_over_tokens(loss, student.movedim(2, 1), other, counted, **options)


@pytest.mark.parametrize("loss", [Forward(2.0), Reverse(0.5), JensenShannon(1.0, 0.3)], ids=str)
def test_any_tile_gives_the_same(loss):
    student, teacher, counted = answers()
    expected = loss.losses(student.flatten(0, 1), teacher.flatten(0, 1))[counted.flatten()].sum()
    (slope,) = torch.autograd.grad(total(loss, student, teacher, counted, tile=10**9), student)
    assert (slope[~counted] == 0).all()
    assert (slope[counted] != 0).any()
    for tile in (1, WORDS, 3 * WORDS, 4 * WORDS + 1):
        found = total(loss, student, teacher, counted, tile=tile)
        torch.testing.assert_close(found, expected)
        (gradient,) = torch.autograd.grad(3 * found, student)
        torch.testing.assert_close(gradient, 3 * slope)


def test_derivatives_are_those_of_finite_differences():
    student, teacher, counted = answers(2, 3)
    for loss in (Forward(2.0), Reverse(), JensenShannon(0.8, 0.2)):
        assert torch.autograd.gradcheck(lambda z, loss=loss: total(loss, z, teacher, counted, tile=WORDS), [student])
    targets = torch.tensor([[1, 39, -1], [0, -1, 7]])
    assert torch.autograd.gradcheck(lambda z: total(NextToken(), z, targets, targets >= 0, tile=WORDS), [student])


def test_what_does_not_count_may_be_anything():
    student, teacher, counted = answers(dtype=torch.float32)
    with torch.no_grad():
        student[~counted], teacher[~counted] = float("nan"), float("inf")
    found = total(Forward(), student, teacher, counted)
    assert found.isfinite()
    (gradient,) = torch.autograd.grad(found, student)
    assert gradient.isfinite().all()


def test_of_nothing_the_sum_is_zero_and_has_a_gradient():
    student, teacher, counted = answers()
    found = total(Forward(), student, teacher, torch.zeros_like(counted))
    assert found.item() == 0.0
    (gradient,) = torch.autograd.grad(found, student)
    assert (gradient == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_beside_the_answers_there_is_one_gradient_and_a_tile(dtype):
    """What is at once: the gradient, in the type of the answers, and some copies of a tile in float32."""
    student, teacher, counted = answers(8, 64, dtype)
    tile = WORDS * 32
    whole, small = student.nbytes, 4 * tile
    for loss in (Forward(), Reverse(), JensenShannon()):
        step = lambda loss=loss: total(loss, student, teacher, counted, tile=tile)  # noqa: E731
        # Only what is there already is kept.
        assert saved_bytes(step, [student, teacher, counted]) == 0
        assert peak_bytes(lambda step=step: torch.autograd.grad(step(), student)) <= whole + 11.5 * small
    # The textbook makes several tensors of that size.
    gap = lambda: teacher.log_softmax(2) - student.log_softmax(2)  # noqa: E731
    assert peak_bytes(lambda: torch.autograd.grad((teacher.softmax(2) * gap()).sum(), student)) > 3 * whole


def test_there_is_no_second_derivative():
    student, teacher, counted = answers()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(total(Forward(), student, teacher, counted), student, create_graph=True)


def test_under_transforms():
    student, teacher, counted = answers()
    (expected,) = torch.autograd.grad(total(Reverse(), student, teacher, counted), student)
    found = torch.func.grad(lambda z: total(Reverse(), z, teacher, counted))(student.detach())
    torch.testing.assert_close(found, expected)


def test_half_precision_is_computed_in_float32():
    student, teacher, counted = answers(dtype=torch.bfloat16)
    found = total(Forward(), student, teacher, counted)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, total(Forward(), student.float(), teacher.float(), counted))
    (gradient,) = torch.autograd.grad(found, student)
    assert gradient.dtype == torch.bfloat16
