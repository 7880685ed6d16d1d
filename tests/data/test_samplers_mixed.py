"""Batches of labelled and unlabelled samples, each in several views."""

import pytest
import torch

from tutelage.data.samplers import BatchSampler, MixedBatches
from tutelage.errors import UserError

LABELLED = torch.tensor([True, False, False] * 10)


def epoch(sampler, number=0, seed=0):
    return list(sampler.epoch(number, torch.Generator().manual_seed(seed)))


def test_every_sample_comes_once_in_each_view():
    sampler = MixedBatches(LABELLED, batch_size=8, views=3)
    assert isinstance(sampler, BatchSampler)
    batches = epoch(sampler)
    assert len(batches) == len(sampler) == 4
    firsts = []
    for batch in batches:
        sections = batch.view(3, -1)
        assert torch.equal(sections[0], sections[1])
        assert torch.equal(sections[0], sections[2])
        firsts.append(sections[0])
    assert sorted(torch.cat(firsts).tolist()) == list(range(30))


def test_all_batches_have_both_in_proportion():
    for batch in epoch(MixedBatches(LABELLED, batch_size=8, views=1)):
        labelled = int(LABELLED[batch].sum())
        assert labelled in (2, 3)
        assert len(batch) - labelled == 5


def test_with_equal_batches_some_are_left_out_and_others_in_the_next_epoch():
    sampler = MixedBatches(LABELLED, batch_size=8, views=1, drop_last=True)
    one, other = epoch(sampler), epoch(sampler, seed=1)
    assert {len(batch) for batch in one} == {7}
    assert set(torch.cat(one).tolist()) != set(torch.cat(other).tolist())


def test_the_order_comes_from_the_generator():
    sampler = MixedBatches(LABELLED, batch_size=8, views=2)
    one, again, other = epoch(sampler), epoch(sampler), epoch(sampler, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("labelled", "size", "words"),
    [
        (LABELLED, 2, "10 labelled and 20 unlabelled samples cannot both be in each of 15 batches of 2"),
        (LABELLED | True, 8, "30 labelled and 0 unlabelled"),
        (LABELLED, 1, "cannot be mixed"),
    ],
)
def test_too_few_are_refused(labelled, size, words):
    with pytest.raises(UserError, match=words):
        MixedBatches(labelled, batch_size=size, views=2)
