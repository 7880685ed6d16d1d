"""The pool of mixtures: its size, its shares, what is least sure, and what is drawn."""

import math

import pytest
import torch
from torch import nn

from tutelage.methods.parts.mixture_pool import (
    SHARES,
    Mixtures,
    confidence,
    drawn,
    free,
    least_confident,
    members,
    mixed,
    pool_size,
)


@pytest.mark.parametrize(("images", "pairs"), [(3, 3), (4, 4), (5, 10), (48, 48 * 23), (1000, 499_000)])
def test_the_pool_has_each_pair_once(images, pairs):
    assert pool_size(images) == pairs
    if images <= 48:
        first, second = members(torch.arange(pairs), images)
        found = {frozenset(pair) for pair in zip(first.tolist(), second.tolist())}
        assert len(found) == pairs
        assert all(len(pair) == 2 for pair in found)
        # An even number of images lacks the partners at half the distance.
        assert pairs == math.comb(images, 2) - (images // 2 if images % 2 == 0 else 0)


def test_there_are_eleven_shares():
    assert len(SHARES) == 11
    assert SHARES[0] == 0.3
    assert SHARES[-1] == 0.7
    assert tuple(round(0.3 + 0.04 * step, 2) for step in range(11)) == SHARES


class Logistic(nn.Module):
    """Two classes with the logit 3 x - 1 between them: 2 for x = 1, and -1 for x = 0."""

    def forward(self, images):
        logit = 3 * images.mean((1, 2, 3)) - 1
        return torch.stack([logit, torch.zeros_like(logit)], 1)


def test_of_a_logistic_student_the_share_beside_the_boundary_is_chosen():
    images = torch.stack([torch.ones(1, 2, 2), torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    found = least_confident(Logistic(), images, torch.arange(3), 3)
    first, second = members(found.pairs, 3)
    by_pair = dict(zip(zip(first.tolist(), second.tolist()), found.shares.tolist()))
    assert SHARES[by_pair[0, 1]] == 0.34
    assert SHARES[by_pair[1, 2]] == 0.66
    chosen = Mixtures(found.pairs[:1], found.shares[:1]).images(images)
    assert confidence(Logistic()(chosen)).item() == pytest.approx(0.5049998, abs=1e-6)
    # Two equal images are the surest, whatever the share, and come last.
    assert (first[2], second[2]) == (2, 0)


def test_it_is_what_a_slow_loop_finds_and_scores_in_parts():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    # Hundreds, whose mixtures are whole numbers: rounding has no say.
    images = torch.randint(3, (40, 3, 2, 2), dtype=torch.uint8) * 100
    pairs = torch.arange(pool_size(40))[::2]
    scored = []
    found = least_confident(network, images, pairs, 20, advance=scored.append)
    assert len(scored) > 1
    assert sum(scored) == len(pairs)
    slow = []
    for pair in pairs.tolist():
        i, j = pair % 40, (pair % 40 + pair // 40 + 1) % 40
        each = []
        for share in SHARES:
            mixture = (share * images[i].double() + (1 - share) * images[j].double()).round() / 255
            each.append(network(mixture[None].float()).softmax(1).max().item())
        slow.append((min(each), pair, each))
    slow.sort()
    assert found.pairs.tolist() == [pair for _, pair, _ in slow[:20]]
    # Two shares may be as good but for rounding.
    for share, (lowest, _, each) in zip(found.shares.tolist(), slow):
        assert each[share] == pytest.approx(lowest, rel=1e-5)
    assert len(set(found.pairs.tolist())) == 20


def test_white_stays_white():
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    for share in SHARES:
        assert (mixed(white, white, torch.tensor([share])) == 255).all()


@pytest.mark.parametrize("size", [50, 10_000_000])
def test_pairs_are_drawn_once_and_never_again(size):
    taken = torch.tensor([1, 7, 8])
    found = drawn(size, 30, taken, torch.Generator().manual_seed(0))
    assert len(found) == len(set(found.tolist())) == 30
    assert not set(found.tolist()) & {1, 7, 8}
    assert torch.equal(found, drawn(size, 30, taken, torch.Generator().manual_seed(0)))
    # From the whole pool, and not from its beginning.
    assert found.double().mean() > 0.25 * size
    if size == 50:
        assert set(drawn(size, 99, taken, torch.Generator()).tolist()) == set(free(size, taken).tolist())
        assert len(free(size, taken)) == 47
