import pytest
import torch

from tutelage.data.augment import Augmentation
from tutelage.data.batch import Output
from tutelage.data.plan import Plan, RecordedViews, earlier
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


def test_the_sizes_of_a_whole_batch_and_of_its_sections():
    assert plan().sizes() == (8,)
    assert plan(world_size=3, rank=2).sizes() == (2,)
    pairs = PairBatches(torch.arange(50) % 5, batch_size=8)
    options = {"seed": 0, "augmentation": Augmentation(), "size": (8, 8), "sections": 2}
    assert Plan(sampler=pairs, **options).sizes() == (16, 8)
    assert Plan(sampler=pairs, world_size=2, **options).sizes() == (8, 4)


def test_a_whole_batch_is_the_most_frequent_one_wherever_it_stands():
    class Uneven:
        def __len__(self):
            return 4

        def epoch(self, number, chance):
            yield from (torch.arange(size) for size in (3, 8, 8, 5))

    assert Plan(sampler=Uneven(), seed=0, augmentation=Augmentation(), size=(8, 8)).sizes() == (8,)


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


class Said(RecordedViews):
    """Recorded views whose parameters say which view of which sample they are."""

    views, fingerprint = 3, "said"
    augmentation = Augmentation.parse("crop:1")

    def read(self, indices, views):
        return torch.stack([indices, views], 1).float(), Output(logits=10.0 * indices[:, None] + views[:, None])


def recorded_plan(indices=(0, 1, 2, 3), **settings):
    class Fixed:
        def __len__(self):
            return 1

        def epoch(self, number, generator):
            yield torch.tensor(indices)

    return Plan(sampler=Fixed(), seed=5, augmentation=Said.augmentation, size=(8, 8), recorded=Said(), **settings)


def test_every_recorded_view_is_taken_before_one_is_repeated():
    plan = recorded_plan()
    rounds = [next(plan.epoch(number)).view[:, 1] for number in range(6)]
    assert all(len(set(views.tolist())) == 1 for views in rounds)
    assert {int(views[0]) for views in rounds[:3]} == {0, 1, 2}
    assert [int(views[0]) for views in rounds[:3]] == [int(views[0]) for views in rounds[3:]]


def test_a_sample_that_is_several_times_in_a_batch_has_as_many_views():
    planned = next(recorded_plan((7, 7, 2, 7, 2)).epoch(1))
    assert planned.view[:, 0].tolist() == [7, 7, 2, 7, 2]
    assert set(planned.view[planned.indices == 7, 1].tolist()) == {0.0, 1.0, 2.0}
    assert len(set(planned.view[planned.indices == 2, 1].tolist())) == 2
    assert torch.equal(planned.answer.logits[:, 0], 10 * planned.view[:, 0] + planned.view[:, 1])


def test_recorded_views_do_not_depend_on_the_number_of_processes():
    whole = next(recorded_plan((7, 7, 2, 2)).epoch(0)).view
    halves = [next(recorded_plan((7, 7, 2, 2), rank=rank, world_size=2).epoch(0)).view for rank in (0, 1)]
    assert torch.equal(whole[0::2], halves[0])
    assert torch.equal(whole[1::2], halves[1])


def test_earlier_counts_the_same_entries_before_a_place():
    assert earlier(torch.tensor([4, 2, 4, 4, 2, 9])).tolist() == [0, 0, 1, 2, 1, 0]
