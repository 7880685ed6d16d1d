"""Regression against slow loops and known answers."""

import pytest
import torch

from tutelage.data.task import task_named
from tutelage.errors import UserError

TASK = task_named("regression")


def test_the_loss_is_the_mean_squared_error():
    answer = torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[0.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    found = TASK.criterion.loss(answer, targets)
    assert found.item() == pytest.approx((1 + 0 + 9 + 4) / 4)
    (gradient,) = torch.autograd.grad(found, answer)
    torch.testing.assert_close(gradient, 2 * (answer.detach() - targets) / 4)


def test_numbers_and_rows_of_one_are_not_compared_crosswise():
    with pytest.raises(UserError, match="one column for each number"):
        TASK.criterion.loss(torch.zeros(4, 1), torch.zeros(4))
    assert TASK.read_targets([1.5, 2, 3], where="x").shape == (3, 1)


def test_the_divergence_is_the_squared_difference_whatever_the_temperature():
    student, teacher = torch.randn(5, 2, requires_grad=True), torch.randn(5, 2, requires_grad=True)
    found = TASK.criterion.divergence(student, teacher, 4.0)
    assert found.item() == pytest.approx(((student - teacher) ** 2).mean().item())
    found.backward()
    assert teacher.grad is None
    with pytest.raises(ValueError, match="same classes"):
        TASK.criterion.divergence(student, teacher[:, :1])
    members = torch.randn(3, 5, 2)
    torch.testing.assert_close(TASK.criterion.mean(members), members.mean(0))


def test_metrics_against_slow_sums_batch_by_batch():
    torch.manual_seed(0)
    answer, targets = torch.randn(50, 2), torch.randn(50, 2)
    meter = TASK.meter()
    for rows in (slice(0, 20), slice(20, 50)):
        meter.update(answer[rows], targets[rows])
    found, error = meter.compute(), (answer - targets).double()
    assert found["mae"] == pytest.approx(error.abs().mean().item())
    assert found["mse"] == pytest.approx(error.square().mean().item())
    spread = (targets.double() - targets.double().mean(0)).square().sum(0)
    assert found["r2"] == pytest.approx((1 - error.square().sum(0) / spread).mean().item())
    assert TASK.meter().compute() == {}
    one = TASK.meter()
    one.update(answer[:1], targets[:1])
    assert set(one.compute()) == {"mae", "mse"}


def test_lower_is_better():
    assert TASK.metrics[TASK.primary].better(1.0, 2.0)
    assert not TASK.metrics["r2"].better(0.1, 0.2)


def test_targets_that_are_no_numbers_are_refused():
    with pytest.raises(UserError, match="sample 1 of x is not finite"):
        TASK.read_targets([1.0, float("nan")], where="x")
    with pytest.raises(UserError, match="needs one number per sample"):
        TASK.read_targets(["a"], where="x")
    with pytest.raises(UserError, match="differ in length"):
        TASK.read_targets([[1.0], [1.0, 2.0]], where="x")
    with pytest.raises(UserError, match="2 numbers per sample"):
        TASK.check_answer((2, 1), 2, 2, who="student", data="toys")


def test_merged_meters_of_the_parts_are_the_meter_of_all():
    torch.manual_seed(0)
    answer, targets = torch.randn(50, 2), torch.randn(50, 2)
    whole, parts = TASK.meter(), [TASK.meter() for _ in range(3)]
    whole.update(answer, targets)
    parts[0].update(answer[:20], targets[:20])
    parts[2].update(answer[20:], targets[20:])
    for later in parts[1:]:
        parts[0].merge(later)
    assert parts[0].compute() == pytest.approx(whole.compute(), rel=1e-12)


def test_correlations_are_those_of_scipy():
    from scipy.stats import pearsonr, spearmanr

    torch.manual_seed(0)
    # Rounded, so that ranks are shared.
    answer, targets = torch.randn(60, 2).mul(3).round(), torch.randn(60, 2).mul(3).round()
    task = TASK.judged_by(["pearson", "spearman"], outputs=2)
    first, second = task.meter(detail="watched"), task.meter(detail="watched")
    first.update(answer[:25], targets[:25])
    second.update(answer[25:], targets[25:])
    first.merge(second)
    found = first.compute()
    for name, theirs in (("pearson", pearsonr), ("spearman", spearmanr)):
        wanted = [theirs(answer[:, value], targets[:, value]).statistic for value in range(2)]
        assert found[name] == pytest.approx(sum(wanted) / 2, abs=1e-12)
    assert "pearson" not in TASK.meter().compute()


def test_equal_answers_correlate_with_nothing_and_equal_targets_have_no_correlation():
    task = TASK.judged_by(["spearman"], outputs=1)
    constant, values = torch.full((5, 1), 0.1), torch.arange(5.0)[:, None]
    for answer, targets, wanted in ((constant, values, 0.0), (values, values, 1.0), (values, constant, None)):
        meter = task.meter()
        meter.update(answer, targets)
        assert meter.compute().get("spearman") == wanted
