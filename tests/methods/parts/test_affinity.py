"""Pairs of places against slow loops and known answers."""

import math

import pytest
import torch

from tutelage.methods.parts.affinity import nodes_of, pairwise_bytes, pairwise_loss


def cosine(one, other):
    return sum(a * b for a, b in zip(one, other)) / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def slow(student, teacher):
    """The mean over all pairs of nodes, one pair after the other."""
    total = 0.0
    for ours, theirs in zip(student.mT.tolist(), teacher.mT.tolist(), strict=True):
        for i in range(len(ours)):
            for j in range(len(ours)):
                total += (cosine(ours[i], ours[j]) - cosine(theirs[i], theirs[j])) ** 2 / len(ours) ** 2
    return total / len(student)


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_three_nodes_of_two_channels():
    teacher = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]], dtype=torch.float64)
    student = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]], dtype=torch.float64)
    assert pairwise_loss(student, teacher).item() == pytest.approx(0.2222222222, abs=1e-10)
    assert pairwise_loss(student, teacher, detach_norm=True).item() == pytest.approx(0.2222222222, abs=1e-7)


@pytest.mark.parametrize("most_in_table", [1024, 0])
def test_value_and_gradient_equal_a_slow_loop(most_in_table):
    student, teacher = drawn(2, 3, 7).requires_grad_(), drawn(2, 5, 7, seed=1)
    loss = pairwise_loss(student, teacher, most_in_table=most_in_table)
    assert loss.item() == pytest.approx(slow(student.detach(), teacher), rel=1e-10)
    (gradient,) = torch.autograd.grad(loss, student)
    step, shift = 1e-6, torch.zeros_like(student)
    for place in ((0, 0, 0), (0, 2, 6), (1, 1, 3)):
        shift.zero_()
        shift[place] = step
        rise = slow(student.detach() + shift, teacher) - slow(student.detach() - shift, teacher)
        assert gradient[place].item() == pytest.approx(rise / (2 * step), rel=1e-5, abs=1e-9)


def test_many_nodes_cost_no_table_of_pairs():
    student, teacher = drawn(1, 4, 3000).float().requires_grad_(), drawn(1, 6, 3000, seed=1).float()
    loss = pairwise_loss(student, teacher)
    loss.backward()
    table = pairwise_loss(student.detach(), teacher, most_in_table=5000)
    assert loss.item() == pytest.approx(table.item(), rel=1e-5)
    close = student.detach() * (1 + 1e-3 * torch.randn(1, 1, 3000)) + 1e-3 * drawn(1, 4, 3000, seed=2).float()
    assert pairwise_loss(close, student.detach()).item() == pytest.approx(
        pairwise_loss(close, student.detach(), most_in_table=5000).item(), rel=1e-2
    ), "small differences of large sums are kept"


def test_lengths_rotations_and_widths_do_not_matter():
    student, teacher = drawn(2, 3, 6), drawn(2, 4, 6, seed=1)
    loss = pairwise_loss(student, teacher)
    lengths = torch.rand(2, 1, 6, dtype=torch.float64) + 0.1
    torch.testing.assert_close(pairwise_loss(student * lengths, teacher), loss)
    rotation, _ = torch.linalg.qr(drawn(3, 3, seed=2))
    torch.testing.assert_close(pairwise_loss(rotation @ student, teacher), loss)
    assert pairwise_loss(student, student).item() == pytest.approx(0, abs=1e-12)


def test_with_detached_lengths_the_gradient_takes_lengths_for_constants():
    student, teacher = drawn(1, 3, 4).requires_grad_(), drawn(1, 3, 4, seed=1)
    (gradient,) = torch.autograd.grad(pairwise_loss(student, teacher, detach_norm=True), student)
    lengths = torch.linalg.vector_norm(student.detach(), dim=1, keepdim=True) + 1e-8
    unit = (student.detach() / lengths).requires_grad_()
    theirs = teacher / (torch.linalg.vector_norm(teacher, dim=1, keepdim=True) + 1e-8)
    (inner,) = torch.autograd.grad((unit.mT @ unit - theirs.mT @ theirs).square().mean(), unit)
    torch.testing.assert_close(gradient, inner / lengths)


def test_nodes_of_zeros_are_like_nothing_and_have_no_gradient():
    student = torch.zeros(1, 3, 4, requires_grad=True)
    loss = pairwise_loss(student, drawn(1, 3, 4).float())
    loss.backward()
    assert torch.isfinite(loss)
    assert not student.grad.any()


def test_patches():
    maps = torch.arange(20.0).view(1, 1, 4, 5)
    found = nodes_of(maps, (2, 2), "average")
    assert found.tolist() == [[[3, 5, 6.5, 13, 15, 16.5]]]
    assert nodes_of(maps, (2, 2), "max").tolist() == [[[6, 8, 9, 16, 18, 19]]]
    assert nodes_of(torch.zeros(1, 1, 65, 65), (32, 32), "max").shape[2] == 9, "three nodes a side, as in the code"
    with pytest.raises(ValueError, match="4 nodes and the teacher 6"):
        pairwise_loss(torch.zeros(1, 2, 4), torch.zeros(1, 2, 6))


def test_its_memory_is_foretold():
    assert pairwise_bytes(2, 10, (3, 5)) == 2 * 3 * 100 * 4, "three tables of pairs"
    assert pairwise_bytes(2, 2000, (3, 5)) == 2 * (8 * 2000 + 9 + 25 + 15) * 8, "nodes and products of channels"
    assert pairwise_bytes(1, 2000, (3000, 2500)) == 3 * 2000**2 * 4, "fewer nodes than channels"
