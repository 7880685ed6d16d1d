import pytest
import torch

from tutelage.data.augment import Augmentation
from tutelage.data.plan import Plan
from tutelage.data.samplers import PairBatches, ShuffledBatches
from tutelage.errors import UserError


def plan(**options):
    values = {"seed": 3, "augmentation": Augmentation.parse("crop:2,flip"), "size": (8, 8), **options}
    return Plan(sampler=ShuffledBatches(50, batch_size=8), **values)


def same(first, second):
    return (
        first.number == second.number
        and torch.equal(first.indices, second.indices)
        and torch.equal(first.view, second.view)
    )


def test_a_resumed_epoch_is_the_rest_of_the_whole_one():
    whole = list(plan().epoch(4))
    assert [batch.number for batch in whole] == list(range(7))
    for start in (0, 3, 6, 7):
        rest = list(plan().epoch(4, start))
        assert len(rest) == 7 - start
        assert all(same(a, b) for a, b in zip(rest, whole[start:]))


def test_epochs_and_seeds_differ():
    first = next(plan().epoch(0))
    assert not torch.equal(first.indices, next(plan().epoch(1)).indices)
    other = next(plan(seed=4).epoch(0))
    assert not torch.equal(first.indices, other.indices)
    assert not torch.equal(first.view, other.view)


def test_processes_share_each_batch_and_its_views():
    for whole, *parts in zip(plan().epoch(1), *(plan(rank=rank, world_size=3).epoch(1) for rank in range(3))):
        for rank, part in enumerate(parts):
            # Each as many as the others: of eight samples two are left out.
            shared = len(whole.indices) - len(whole.indices) % 3
            assert torch.equal(part.indices, whole.indices[rank:shared:3])
            assert torch.equal(part.view, whole.view[rank:shared:3])


def test_the_global_chance_is_neither_used_nor_moved():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = next(plan().epoch(0))
    assert torch.equal(torch.rand(3), expected)
    assert same(first, next(plan().epoch(0)))


def test_impossible_ranks_are_refused():
    with pytest.raises(UserError, match="rank 2"):
        plan(rank=2, world_size=2)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [6, 7, 9])
def test_processes_share_pairs_and_part_none(batch_size, world_size):
    labels = torch.arange(40) % 7

    def plan_of(rank, ranks):
        chance = {"seed": 3, "augmentation": Augmentation.parse("crop:2,flip"), "size": (8, 8)}
        sampler = PairBatches(labels, batch_size=batch_size)
        return Plan(sampler=sampler, rank=rank, world_size=ranks, sections=2, **chance)

    ranks = [plan_of(rank, world_size).epoch(1) for rank in range(world_size)]
    seen = 0
    for whole, *parts in zip(plan_of(0, 1).epoch(1), *ranks, strict=True):
        anchors, partners = whole.indices.chunk(2)
        assert torch.equal(labels[anchors], labels[partners])
        pairs = list(zip(anchors.tolist(), partners.tolist(), whole.view[: len(anchors)].tolist(), strict=True))
        shared = len(pairs) - len(pairs) % world_size
        for rank, part in enumerate(parts):
            mine = [half.tolist() for half in part.indices.chunk(2)]
            views = part.view.chunk(2)[0].tolist()
            assert list(zip(*mine, views, strict=True)) == pairs[rank:shared:world_size]
            seen += len(mine[0])
    assert seen > 30
