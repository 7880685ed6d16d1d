"""Losses over known and novel classes: slow loops in float64, and the known answers."""

import math

import pytest
import torch

from tutelage.methods.cr_kd import assignments, relation_loss, swapped_loss

TABLE = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.2]], dtype=torch.float64)
OLD = torch.tensor([[0.5, 0.1], [0.2, 0.3]], dtype=torch.float64) / 0.1
NEW = torch.tensor([[0.4, 0.2, 0.1], [0.1, 0.1, 0.6]], dtype=torch.float64) / 0.1


def slow_assignments(cosines, epsilon, iterations):
    """Return the table after alternating divisions, entry by entry: samples are the columns, as published."""
    samples, clusters = len(cosines), len(cosines[0])
    table = [[math.exp(cosines[n][k] / epsilon) for n in range(samples)] for k in range(clusters)]
    whole = sum(map(sum, table))
    table = [[value / whole for value in row] for row in table]
    for _ in range(iterations):
        table = [[value / sum(row) / clusters for value in row] for row in table]
        sums = [sum(row[n] for row in table) for n in range(samples)]
        table = [[row[n] / sums[n] / samples for n in range(samples)] for row in table]
    return [[samples * table[k][n] for k in range(clusters)] for n in range(samples)]


@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_assignments_are_those_of_a_slow_loop(iterations):
    cosines = 2 * torch.rand(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    found = assignments(cosines, epsilon=0.05, iterations=iterations)
    expected = torch.tensor(slow_assignments(cosines.tolist(), 0.05, iterations), dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_known_tables_of_assignments():
    found = assignments(TABLE)
    torch.testing.assert_close(found.sum(1), torch.ones(4, dtype=torch.float64))
    expected = torch.tensor([1.7533916858, 2.2466083142], dtype=torch.float64)
    torch.testing.assert_close(found.sum(0), expected, atol=1e-9, rtol=0)
    even = assignments(TABLE, iterations=50).sum(0)
    torch.testing.assert_close(even, torch.full((2,), 2.0, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(assignments(torch.zeros(4, 3)), torch.full((4, 3), 1 / 3))
    torch.testing.assert_close(assignments(TABLE - 5), found)
    assert assignments(TABLE[:0]).shape == (0, 2)


def test_the_sharpest_assignment_is_finite():
    extreme = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]])
    assert torch.isfinite(assignments(extreme, epsilon=1 / 80)).all()


def test_the_known_value_of_the_relation():
    assert relation_loss(OLD, NEW, 4.0).item() == pytest.approx(10.1704100701, abs=1e-9)
    softened = torch.softmax(NEW / 4, dim=1)
    eta = softened[:, :2].sum(1)
    torch.testing.assert_close(eta, torch.tensor([0.7727802270, 0.3642759688], dtype=torch.float64), atol=1e-9, rtol=0)
    weights = eta / eta.mean()
    expected = torch.tensor([1.3592647924, 0.6407352076], dtype=torch.float64)
    torch.testing.assert_close(weights, expected, atol=1e-9, rtol=0)
    assert weights.mean().item() == pytest.approx(1)


def slow_relation(old, new, temperature):
    def soft(values):
        powers = [torch.exp(value / temperature) for value in values]
        return [power / sum(powers) for power in powers]

    known, etas, distances = old.shape[1], [], []
    for before, now in zip(old, new, strict=True):
        etas.append(sum(soft(now)[:known]))
        q, p = soft(before), soft(now[:known])
        distances.append(-sum(a.detach() * torch.log(b) for a, b in zip(q, p, strict=True)))
    mean = sum(etas) / len(etas)
    return temperature**2 * sum(eta / mean * far for eta, far in zip(etas, distances, strict=True)) / len(etas)


def test_relation_and_its_gradient_are_those_of_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    old, new = (3 * torch.randn(5, width, generator=generator, dtype=torch.float64) for width in (3, 5))
    values, gradients = [], []
    for loss in (relation_loss, slow_relation):
        leaf = new.clone().requires_grad_()
        values.append(loss(old, leaf, 4.0))
        gradients.append(torch.autograd.grad(values[-1], leaf)[0])
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)
    # The weight learns too: without it, novel outputs would have no gradient.
    assert gradients[0][:, 3:].abs().max() > 0
    torch.autograd.gradcheck(lambda x: relation_loss(old, x, 4.0), new.clone().requires_grad_())


def test_equal_answers_still_cost_their_entropy():
    assert relation_loss(OLD, torch.cat([OLD, OLD[:, :1]], dim=1)).item() > 1
    assert relation_loss(OLD[:0], NEW[:0]).item() == 0


def test_swapped_loss_and_its_gradient_are_those_of_a_slow_loop():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    targets = torch.rand(2, 2, 4, 5, generator=generator, dtype=torch.float64)

    def slow(logits, targets):
        heads = []
        for head in range(2):
            terms = []
            for target in range(2):
                for view in range(3):
                    if view == target:
                        continue
                    for sample in range(4):
                        row = logits[head, view, sample]
                        normaliser = torch.log(sum(torch.exp(value) for value in row))
                        wanted = targets[head, target, sample]
                        terms.append(-sum(wanted[k] * (row[k] - normaliser) for k in range(5)))
            heads.append(sum(terms) / len(terms))
        return torch.stack(heads)

    values, gradients = [], []
    for loss in (swapped_loss, slow):
        leaf = logits.clone().requires_grad_()
        values.append(loss(leaf, targets))
        gradients.append(torch.autograd.grad(values[-1].sum(), leaf)[0])
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)
