import pytest
import torch

from tutelage.data.samplers import (
    BatchSampler,
    BoundedBatches,
    GroupedBatches,
    LikeLengths,
    PairBatches,
    RepeatedBatches,
    ShuffledBatches,
)
from tutelage.errors import UserError


def epoch(sampler, seed=0):
    return list(sampler.epoch(0, torch.Generator().manual_seed(seed)))


def test_it_is_a_batch_sampler():
    assert isinstance(ShuffledBatches(4, batch_size=2), BatchSampler)


def test_samples_of_a_batch_belong_together_and_each_comes_once():
    groups = [0, 1, 0, 2, 1, 0, 0]
    sampler = GroupedBatches(groups, batch_size=3)
    assert isinstance(sampler, BatchSampler)
    batches = epoch(sampler)
    assert [batch.tolist() for batch in batches] == [[0, 2, 5], [6], [1, 4], [3]]
    assert len(sampler) == 4


@pytest.mark.parametrize(("drop_last", "count", "left_out"), [(False, 26, 0), (True, 25, 3)])
def test_batches_of_like_lengths_hold_each_sample_once(drop_last, count, left_out):
    lengths = torch.arange(103) % 50
    sampler = LikeLengths(lengths, batch_size=4, drop_last=drop_last)
    batches = epoch(sampler)
    assert isinstance(sampler, BatchSampler)
    assert len(batches) == len(sampler) == count
    seen = torch.cat(batches)
    assert len(seen) == len(seen.unique()) == 103 - left_out
    # Of samples in random order, a batch of four spans about half of all lengths.
    assert max(int(lengths[batch].max() - lengths[batch].min()) for batch in batches) < 5
    assert [batch.tolist() for batch in epoch(sampler, seed=1)] != [batch.tolist() for batch in batches]
    assert [batch.tolist() for batch in epoch(sampler)] == [batch.tolist() for batch in batches]
    # Short batches do not all come first.
    firsts = [int(lengths[batch].min()) for batch in batches]
    assert firsts != sorted(firsts)


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_every_sample_comes_once(drop_last, sizes):
    sampler = ShuffledBatches(10, batch_size=4, drop_last=drop_last)
    batches = epoch(sampler)
    assert [len(batch) for batch in batches] == sizes
    assert len(sampler) == len(sizes)
    assert len(set(torch.cat(batches).tolist())) == sum(sizes)


def test_order_comes_from_the_generator():
    sampler = ShuffledBatches(50, batch_size=50)
    assert torch.equal(epoch(sampler)[0], epoch(sampler)[0])
    assert not torch.equal(epoch(sampler)[0], epoch(sampler, seed=1)[0])
    assert torch.equal(epoch(ShuffledBatches(50, batch_size=50, shuffle=False))[0], torch.arange(50))


@pytest.mark.parametrize(
    ("length", "options"), [(0, {}), (5, {"batch_size": 0}), (5, {"batch_size": 6, "drop_last": True})]
)
def test_no_batch_is_refused(length, options):
    with pytest.raises(UserError):
        ShuffledBatches(length, **{"batch_size": 4, **options})


# Pairs.

LABELS = torch.tensor([3, 9, 3, 3, 9, 4, 3, 9, 3, 9, 3])


@pytest.mark.parametrize("batch_size", [1, 3, 4, 11, 20])
def test_anchors_are_a_permutation_and_partners_of_their_class(batch_size):
    sampler = PairBatches(LABELS, batch_size=batch_size)
    assert isinstance(sampler, BatchSampler)
    for seed in range(20):
        batches = epoch(sampler, seed)
        assert len(batches) == len(sampler) == -(-11 // batch_size)
        halves = [batch.chunk(2) for batch in batches]
        assert all(len(anchors) == len(partners) <= batch_size for anchors, partners in halves)
        assert all(torch.equal(LABELS[anchors], LABELS[partners]) for anchors, partners in halves)
        assert sorted(torch.cat([anchors for anchors, _ in halves]).tolist()) == list(range(11))
        # The only sample of its class is its own partner.
        (partner,) = [int(p) for anchors, partners in halves for a, p in zip(anchors, partners) if a == 5]
        assert partner == 5


def test_every_sample_of_a_class_is_as_likely_a_partner():
    sampler, counts = PairBatches(LABELS, batch_size=11), torch.zeros(11, 11)
    for seed in range(1200):
        ((anchors, partners),) = (batch.chunk(2) for batch in epoch(sampler, seed))
        counts[anchors, partners] += 1
    same = LABELS[:, None] == LABELS
    expected = 1200 * same / same.sum(1)
    assert not counts[~same].any()
    # Five standard deviations.
    assert ((counts - expected).abs() <= 5 * expected.sqrt())[same].all()
    # With replacement: of the six of one class some come twice, and others not.
    assert any(len(set(batch[11:].tolist())) < 11 for batch in epoch(sampler))


def test_pairs_come_from_the_generator_alone():
    sampler = PairBatches(torch.arange(50) % 5, batch_size=16)
    first = torch.cat(epoch(sampler))
    torch.manual_seed(9)
    assert torch.equal(torch.cat(list(sampler.epoch(7, torch.Generator().manual_seed(0)))), first)
    assert torch.equal(torch.cat(epoch(PairBatches(torch.arange(50) % 5, batch_size=16))), first)
    assert not torch.equal(torch.cat(epoch(sampler, seed=1)), first)


@pytest.mark.parametrize(
    ("samples", "batch_size", "drop_last", "sizes"),
    [
        (11, 4, False, [8, 8, 6]),
        (11, 4, True, [8, 8]),
        (9, 4, False, [8, 8]),
        (9, 1, False, [2] * 9),
        (1, 4, False, [2]),
        (3, 4, False, [6]),
        (8, 4, True, [8, 8]),
    ],
)
def test_no_last_batch_is_a_single_anchor(samples, batch_size, drop_last, sizes):
    sampler = PairBatches(torch.zeros(samples, dtype=torch.long), batch_size=batch_size, drop_last=drop_last)
    assert [len(batch) for batch in epoch(sampler)] == sizes
    assert len(sampler) == len(sizes)


def test_no_pairs_are_refused():
    with pytest.raises(UserError, match="0 samples"):
        PairBatches(torch.zeros(0, dtype=torch.long), batch_size=4)
    with pytest.raises(UserError, match="3 samples give no batch of 4"):
        PairBatches(torch.zeros(3, dtype=torch.long), batch_size=4, drop_last=True)


# Repeats.


def repeated(samples=24, batch_size=8, repeats=4, **options):
    return RepeatedBatches(samples, batch_size=batch_size, repeats=repeats, **options)


def epochs(sampler, count, seed=0):
    return [list(sampler.epoch(number, torch.Generator().manual_seed(100 * seed + number))) for number in range(count)]


def test_a_batch_holds_the_same_samples_in_each_of_its_sections():
    sampler = repeated()
    assert isinstance(sampler, BatchSampler)
    for batch in epoch(sampler):
        sections = batch.view(4, 2)
        assert (sections == sections[0]).all()
        assert len(set(sections[0].tolist())) == 2


@pytest.mark.parametrize(("samples", "batch_size", "repeats"), [(24, 8, 4), (50, 12, 2), (50, 12, 3), (51, 4, 4)])
def test_every_sample_comes_once_in_as_many_epochs_and_the_next_time_after_as_many(samples, batch_size, repeats):
    seen = epochs(repeated(samples, batch_size, repeats), 3 * repeats)
    parts = [set(torch.cat(batches).tolist()) for batches in seen]
    left_out = samples % repeats
    for start in range(2 * repeats + 1):
        window = parts[start : start + repeats]
        assert len(set.union(*window)) == sum(map(len, window)) == samples - left_out
    if not left_out:
        assert all(parts[e] == parts[e + repeats] for e in range(2 * repeats))


def test_who_is_left_out_changes():
    parts = [set(torch.cat(batches).tolist()) for batches in epochs(repeated(51, 4, 4), 40)]
    assert set.union(*parts) == set(range(51))


@pytest.mark.parametrize(
    ("samples", "batch_size", "repeats"), [(24, 8, 4), (50, 12, 3), (51, 8, 4), (5, 16, 2), (7, 4, 1)]
)
@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_is_as_long_as_one_in_which_every_sample_comes_once(samples, batch_size, repeats, drop_last):
    if drop_last and samples < batch_size:
        pytest.skip("no batch at all")
    sampler = repeated(samples, batch_size, repeats, single_from=5, drop_last=drop_last)
    whole = samples - samples % repeats
    plain = [len(batch) for batch in epoch(ShuffledBatches(whole, batch_size=batch_size, drop_last=drop_last))]
    for batches in epochs(sampler, 8):
        assert [len(batch) for batch in batches] == plain
        assert len(batches) == len(sampler)


def test_at_the_end_all_samples_come_once_an_epoch():
    seen = epochs(repeated(24, 8, 4, single_from=2), 5)
    assert [len(set(torch.cat(batches).tolist())) for batches in seen] == [6, 6, 24, 24, 24]
    assert all(len(batch) == 8 for batches in seen for batch in batches)


def test_repeats_come_from_the_generator_and_parts_from_none():
    one, again, other = epochs(repeated(), 4), epochs(repeated(), 4), epochs(repeated(), 4, seed=1)
    torch.manual_seed(3)
    assert all(torch.equal(torch.cat(a), torch.cat(b)) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(torch.cat(a), torch.cat(b)) for a, b in zip(one, other, strict=True))
    assert all(set(torch.cat(a).tolist()) == set(torch.cat(b).tolist()) for a, b in zip(one, other, strict=True))


def test_once_is_shuffled_batches():
    assert sorted(torch.cat(epoch(repeated(10, 4, 1))).tolist()) == list(range(10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 6},
            "batch of 6 cannot hold each of its samples 4 times: take a batch size that is a multiple of 4",
        ),
        ({"repeats": 0}, "0 times"),
        ({"batch_size": 0}, "batch of 0 cannot hold"),
        ({"samples": 3}, "3 samples, each 4 times, give no batch of 8"),
        ({"samples": 7, "drop_last": True}, "7 samples"),
    ],
)
def test_repeats_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        repeated(**options)


def test_bounded_batches_hold_every_sample_once_and_never_too_many_tokens():
    lengths = torch.tensor([9, 1, 4, 4, 2, 30, 3, 1, 1])
    batches = list(BoundedBatches(lengths, batch_size=3, tokens=12).epoch(0, torch.Generator()))
    assert [lengths[batch].tolist() for batch in batches] == [[1, 1, 1], [2, 3, 4], [4], [9], [30]]
    assert sorted(torch.cat(batches).tolist()) == list(range(9))
    assert len(BoundedBatches(lengths, batch_size=3, tokens=12)) == 5
    one = list(BoundedBatches(lengths, batch_size=20, tokens=1000).epoch(0, torch.Generator()))
    assert len(one) == 1
