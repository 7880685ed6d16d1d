import math

import pytest
import torch

from tutelage.errors import Notice, UserError
from tutelage.methods.parts import transport
from tutelage.methods.parts.transport import check_contrast, transport_costs

DISTANCES = [[0, 0.2, 0.6, 0.4], [0.2, 0, 0.3, 0.5], [0.6, 0.3, 0, 0.1], [0.4, 0.5, 0.1, 0]]
COST = 1 - torch.exp(-torch.tensor(DISTANCES, dtype=torch.float64))
STUDENT = torch.tensor([[2, 0, 1, -1], [0, 1, 0, 1]], dtype=torch.float64)
TEACHER = torch.tensor([[3, 0, 1, 0], [0, 2, 1, -1]], dtype=torch.float64)
OWN = torch.eye(4, dtype=torch.bool)[[0, 1]]
EXACT = (0.0169360148, 0.0330383000)


def masked(logits, own=OWN, temperature=2.0):
    return (logits / temperature).masked_fill(own, -torch.inf).log_softmax(1)


def slow_plan(a, b, cost, epsilon, iterations):
    """Sinkhorn's iterations on plain numbers: the plan as a list of rows."""
    n = range(len(a))
    kernel = [[math.exp(-cost[i][j] / epsilon) for j in n] for i in n]
    u = [1.0 for _ in n]
    for _ in range(iterations):
        v = [b[j] / sum(kernel[i][j] * u[i] for i in n) for j in n]
        u = [a[i] / sum(kernel[i][j] * v[j] for j in n) for i in n]
    return [[u[i] * kernel[i][j] * v[j] for j in n] for i in n]


def slow_cost(student, teacher, cost, slow, *, epsilon=0.05, iterations=10):
    """What the plan costs that moves one softmax to another; all classes take part."""
    plan = slow_plan(slow.softmax(student), slow.softmax(teacher), cost, epsilon, iterations)
    return sum(p * c for row, costs in zip(plan, cost, strict=True) for p, c in zip(row, costs, strict=True))


def some(classes, samples=3, scale=2.0, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    distances = 0.4 * torch.rand(classes, classes, generator=drawn, dtype=torch.float64) + 0.5
    cost = (1 - torch.exp(-(distances + distances.T) / 2)).fill_diagonal_(0)
    logits = scale * torch.randn(2, samples, classes, generator=drawn, dtype=torch.float64)
    return logits[0].requires_grad_(True), logits[1], cost


def test_known_answers_after_ten_iterations_and_at_the_end():
    ten = transport_costs(masked(STUDENT), masked(TEACHER), COST, iterations=10)
    assert ten.tolist() == pytest.approx([0.0126193941, 0.0264133815], abs=5e-11)
    ended = transport_costs(masked(STUDENT), masked(TEACHER), COST, tolerance=1e-12)
    assert ended.tolist() == pytest.approx([0.0200721420, 0.0340177532], abs=5e-11)


def test_without_entropy_it_is_the_exact_transport_which_only_unfinished_plans_undercut():
    nearly = transport_costs(masked(STUDENT), masked(TEACHER), COST, epsilon=0.01, tolerance=1e-12)
    assert nearly.tolist() == pytest.approx(EXACT, abs=1e-5)
    for epsilon in (0.05, 0.2):
        ended = transport_costs(masked(STUDENT), masked(TEACHER), COST, epsilon=epsilon, tolerance=1e-12)
        assert all(one > exact for one, exact in zip(ended.tolist(), EXACT, strict=True))
    ten = transport_costs(masked(STUDENT), masked(TEACHER), COST, iterations=10)
    assert all(one < exact for one, exact in zip(ten.tolist(), EXACT, strict=True))


@pytest.mark.parametrize(("options", "iterations"), [({"iterations": 10}, 10), ({"tolerance": 1e-13}, 3000)])
def test_value_and_gradient_are_the_slow_loops(slow, options, iterations):
    student, teacher, cost = some(4)
    costs = transport_costs(student.log_softmax(1), teacher.log_softmax(1), cost, **options)
    gradients = torch.autograd.grad(costs.sum(), student)[0]

    def value(row, sample):
        return slow_cost(row, teacher[sample].tolist(), cost.tolist(), slow, iterations=iterations)

    step = 1e-5
    for sample in range(len(student)):
        row = student[sample].tolist()
        assert costs[sample].item() == pytest.approx(value(row, sample), rel=1e-9)
        for k in range(len(row)):
            sides = [value([x + sign * step * (at == k) for at, x in enumerate(row)], sample) for sign in (1, -1)]
            expected = (sides[0] - sides[1]) / 2 / step
            assert gradients[sample, k].item() == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("classes", [5, 40])
def test_the_gradient_at_the_end_is_that_of_very_many_iterations(classes):
    student, teacher, cost = some(classes, 6)
    own = torch.nn.functional.one_hot(torch.arange(6) % classes, classes).bool()
    gradients = []
    for options in ({"tolerance": 1e-11}, {"iterations": 800}):
        costs = transport_costs(masked(student, own, 1), masked(teacher, own, 1), cost, **options)
        gradients.append(torch.autograd.grad(costs.mean(), student)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-9)
    # The classes that take no part learn nothing.
    assert gradients[0][own].abs().max() == 0
    single = transport_costs(masked(student.float(), own, 1), masked(teacher, own, 1), cost)
    (gradient,) = torch.autograd.grad(single.mean(), student)
    assert (gradient - gradients[0]).abs().max() < 0.02 * gradients[0].abs().max()


def test_what_a_sample_costs_does_not_depend_on_the_others():
    student, teacher, cost = some(12, 8, scale=4)
    whole = transport_costs(student.log_softmax(1), teacher.log_softmax(1), cost)
    (gradient,) = torch.autograd.grad(whole.sum(), student)
    for sample in range(8):
        alone = student[sample : sample + 1].detach().requires_grad_(True)
        costs = transport_costs(alone.log_softmax(1), teacher[sample : sample + 1].log_softmax(1), cost)
        assert costs.item() == pytest.approx(whole[sample].item(), rel=1e-12)
        torch.testing.assert_close(
            torch.autograd.grad(costs.sum(), alone)[0][0], gradient[sample], rtol=1e-7, atol=1e-12
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"iterations": 10}])
def test_answers_a_thousand_apart_equal_and_even_ones_stay_finite(dtype, options):
    _, _, cost = some(6)
    student = torch.tensor([[1000.0, 0, 0, 0, 0, -1000], [0] * 6, [3, 2, 1, 0, 0, 0], [200, 0, 0, 0, 0, 0]])
    teacher = torch.tensor([[0.0, 1000, 0, 0, 0, 0], [0] * 6, [3, 2, 1, 0, 0, 0], [0] * 6])
    student = student.to(dtype).requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        costs = transport_costs(student.float().log_softmax(1), teacher.log_softmax(1), cost.float(), **options)
    assert costs.dtype == torch.float32
    assert costs.isfinite().all()
    # All of the first sample's mass moves from one class to another.
    assert costs[0].item() == pytest.approx(cost[0, 1].item(), rel=1e-4)
    assert costs[1:3].max() < 1e-3
    (gradient,) = torch.autograd.grad(costs.sum(), student)
    assert gradient.isfinite().all()


def test_one_class_costs_nothing_and_no_gradient_comes_from_it():
    student = torch.randn(3, 1, requires_grad=True)
    for options in ({}, {"iterations": 10}):
        costs = transport_costs(student.log_softmax(1), torch.zeros(3, 1), torch.zeros(1, 1), **options)
        assert costs.tolist() == [0, 0, 0]
        assert torch.autograd.grad(costs.sum(), student)[0].abs().max() == 0


def test_a_transport_that_does_not_end_is_told(monkeypatch):
    monkeypatch.setattr(transport, "_MOST_ITERATIONS", 20)
    with pytest.warns(Notice, match="After 20 iterations the transport is off by"):
        transport_costs(masked(STUDENT), masked(TEACHER), COST, tolerance=1e-9)


def test_an_entropy_too_small_for_float32_is_refused():
    check_contrast(COST, 0.01)
    for epsilon in (0.0, 0.005, math.nan):
        with pytest.raises(UserError, match="must be above zero"):
            check_contrast(COST, epsilon)


def test_there_is_no_second_derivative():
    student, teacher, cost = some(4)
    costs = transport_costs(student.log_softmax(1), teacher.log_softmax(1), cost)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(costs.sum(), student, create_graph=True)
