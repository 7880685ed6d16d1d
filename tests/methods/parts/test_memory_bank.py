import math
import threading
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.parts import memory_bank
from tutelage.methods.parts.memory_bank import (
    ContrastRows,
    MemoryBank,
    bank_bytes,
    check_memory,
    memory_note,
    step_bytes,
    unit,
)

TARGETS = torch.tensor([2, 0, 4, 2, 0, 2, 1, 4, 4, 4])


def ask(indices):
    indices = torch.as_tensor(indices)
    return Batch(inputs=indices, targets=TARGETS[indices], indices=indices)


def bank_of(samples=10, dim=4, *, momentum=0.5):
    torch.manual_seed(3)
    return MemoryBank(samples, dim, temperature=0.2, momentum=momentum)


# Which rows.


def test_each_sample_has_a_row_and_rows_are_sorted_by_class():
    own = ContrastRows(TARGETS, 5, 1)(ask(range(10)))[:, 0]
    assert sorted(own.tolist()) == list(range(10))
    assert TARGETS[own.argsort()].tolist() == sorted(TARGETS.tolist())


def test_negatives_are_of_other_classes_and_uniform():
    torch.manual_seed(0)
    rows = ContrastRows(TARGETS, 5, 30_000)
    by_row = TARGETS.sort(stable=True).values
    indices = [0, 1, 6, 9]
    for index, drawn in zip(indices, rows(ask(indices))[:, 1:], strict=True):
        others = by_row != TARGETS[index]
        counts = drawn.bincount(minlength=10)
        assert not counts[~others].any()
        expected = 30_000 / int(others.sum())
        # Five standard deviations of a binomial count.
        assert (counts[others] - expected).abs().max() < 5 * math.sqrt(expected)


def test_negatives_may_outnumber_the_samples_and_each_call_draws_others():
    rows = ContrastRows(TARGETS, 5, 100)
    first, second = rows(ask([0, 1])), rows(ask([0, 1]))
    assert first.shape == (2, 101)
    assert torch.equal(first[:, 0], second[:, 0])
    assert not torch.equal(first, second)


def test_rows_are_no_part_of_a_checkpoint():
    assert not ContrastRows(TARGETS, 5, 3).state_dict()


def test_one_class_has_no_negatives():
    with pytest.raises(UserError, match="All training samples have one class"):
        ContrastRows(torch.tensor([1, 1, 1]), 3, 4)


def test_positions_are_needed():
    with pytest.raises(UserError, match="pass the dataset instead"):
        ContrastRows(TARGETS, 5, 2)(Batch(inputs=torch.zeros(2, 1), targets=TARGETS[:2]))


# What is remembered.


def test_a_bank_starts_within_its_bounds():
    vectors = MemoryBank(2000, 48, temperature=1, momentum=0).vectors
    bound = 1 / math.sqrt(48 / 3)
    assert vectors.abs().max() <= bound
    assert vectors.min() < -0.99 * bound
    assert vectors.max() > 0.99 * bound
    # So is the squared length one, on average.
    assert vectors.square().sum(1).mean().item() == pytest.approx(1, abs=0.02)


def test_probabilities_are_exponentials_over_the_first_mean(double):
    bank = bank_of()
    embeddings, rows = unit(torch.randn(3, 4)), torch.randint(10, (3, 5))
    exponentials = [
        [math.exp(sum(a * b for a, b in zip(v, bank.vectors[row].tolist(), strict=True)) / 0.2) for row in chosen]
        for v, chosen in zip(embeddings.tolist(), rows.tolist(), strict=True)
    ]
    z = 10 * sum(map(sum, exponentials)) / 15
    found = bank(embeddings, rows)
    expected = torch.tensor(exponentials).div(z).log()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    # The constant is the first batch's, for good.
    other = bank(-embeddings, rows)
    assert bank.log_z.item() == pytest.approx(math.log(z), rel=1e-12)
    torch.testing.assert_close(other, -(expected + math.log(z)) - math.log(z), rtol=1e-12, atol=1e-12)


def test_no_gradient_flows_into_the_bank_or_its_constant():
    bank = bank_of()
    embeddings = unit(torch.randn(3, 4)).requires_grad_(True)
    rows = torch.randint(10, (3, 1))
    bank(embeddings, rows).sum().backward()
    torch.testing.assert_close(embeddings.grad, bank.vectors[rows[:, 0]] / 0.2)
    assert not bank.vectors.requires_grad
    assert not bank.log_z.requires_grad


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_only_the_given_rows_move_and_have_length_one(momentum, double):
    bank = bank_of(momentum=momentum)
    before, new = bank.vectors.tolist(), unit(torch.randn(2, 4))
    bank.remember(torch.tensor([7, 2]), new)
    for row, embedding in zip((7, 2), new.tolist(), strict=True):
        moved = [momentum * old + (1 - momentum) * e for old, e in zip(before[row], embedding, strict=True)]
        length = math.sqrt(sum(value * value for value in moved))
        assert bank.vectors[row].tolist() == pytest.approx([value / length for value in moved], rel=1e-12)
        before[row] = bank.vectors[row].tolist()
    assert bank.vectors.tolist() == before


def test_an_embedding_of_zeros_is_finite():
    embedding = torch.zeros(2, 4, requires_grad=True)
    unit(embedding).sum().backward()
    assert torch.isfinite(embedding.grad).all()


# How, and at what cost.


@pytest.mark.parametrize("most", [1, 24, 2**26])
def test_gathering_and_the_product_agree(monkeypatch, most, double):
    bank = bank_of(samples=40)
    embeddings, rows = unit(torch.randn(5, 4)), torch.randint(40, (5, 3))

    def result(choice):
        monkeypatch.setattr(memory_bank, "_at_once", choice)
        leaf = embeddings.clone().requires_grad_(True)
        scores = bank._cosines(leaf, rows)
        (gradient,) = torch.autograd.grad(scores.square().sum(), leaf)
        return scores, gradient

    real = memory_bank._at_once
    monkeypatch.setattr(memory_bank, "_MOST_GATHERED", most)
    assert real(5, 3, 40, 4)[0] > real(5, 3, 40, 4)[1], "the bank is not large enough to be gathered from"
    gathered, product = result(real), result(lambda *_: (0, 1))
    torch.testing.assert_close(gathered, product, rtol=1e-12, atol=1e-14)
    slow = [
        [float(embedding @ bank.vectors[row]) for row in chosen]
        for embedding, chosen in zip(embeddings, rows, strict=True)
    ]
    torch.testing.assert_close(gathered[0], torch.tensor(slow), rtol=1e-12, atol=1e-14)


def test_the_way_is_chosen_by_memory():
    cifar, imagenet = memory_bank._at_once(64, 16385, 50_000, 128), memory_bank._at_once(256, 16385, 1_281_167, 128)
    assert cifar[0] < cifar[1]
    assert imagenet[0] > imagenet[1]
    assert max(map(min, (cifar, imagenet))) <= 2**26


def test_bytes_of_the_banks_are_what_they_are():
    banks = [bank_of(), bank_of()]
    assert bank_bytes(10, 4) == sum(bank.vectors.numel() * bank.vectors.element_size() for bank in banks)
    assert step_bytes(64, 16385, 50_000, 128) < 64 * 16385 * 128 * 4 / 8


def test_what_is_said_of_the_memory():
    assert memory_note(50_000, 128, 64, 16384).startswith(
        "The memory banks, 2 x 50,000 samples x 128 numbers, take 51.2 MB, and as much again in the copy of the best "
        "epoch; comparing a batch of 64 with them takes "
    )


def test_banks_beyond_the_machine_are_refused_before_they_are_made():
    check_memory(50_000, 128)
    with pytest.raises(UserError, match=r"take 1024000000.0 GB, and this machine has .* Lower --embedding-dim"):
        check_memory(10**15, 128)


# Several processes.


class Group:
    """Two processes of `torch.distributed`, as two threads."""

    def __init__(self):
        self.barrier, self.held, self.rank = threading.Barrier(2, timeout=10), [None, None], threading.local()

    def is_available(self):
        return True

    def is_initialized(self):
        return hasattr(self.rank, "number")

    def get_world_size(self):
        return 2

    def all_gather(self, parts, tensor):
        self.barrier.wait()
        self.held[self.rank.number] = tensor.clone()
        self.barrier.wait()
        for part, held in zip(parts, self.held, strict=True):
            part.copy_(held)


def test_two_processes_keep_the_bank_of_one(monkeypatch):
    group, found = Group(), [None, None]
    monkeypatch.setattr(memory_bank, "dist", group)
    embeddings, rows = (
        F.normalize(torch.randn(6, 4), dim=1),
        torch.tensor([[8, 1], [3, 1], [0, 2], [5, 9], [7, 7], [2, 4]]),
    )

    def train(bank, part):
        log_probability = bank(embeddings[part], rows[part])
        bank.remember(rows[part][:, 0], embeddings[part])
        return SimpleNamespace(bank=bank, log_probability=log_probability)

    def process(number, bank):
        group.rank.number = number
        found[number] = train(bank, slice(number, None, 2))

    workers = [threading.Thread(target=process, args=(number, bank_of())) for number in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    alone = train(bank_of(), slice(None))
    for number in (0, 1):
        assert torch.equal(found[number].bank.vectors, found[0].bank.vectors)
        torch.testing.assert_close(found[number].bank.vectors, alone.bank.vectors)
        torch.testing.assert_close(found[number].bank.log_z, alone.bank.log_z)
        torch.testing.assert_close(found[number].log_probability, alone.log_probability[number::2])
