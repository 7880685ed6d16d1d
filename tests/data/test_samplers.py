import pytest
import torch

from tutelage.data.samplers import BatchSampler, ShuffledBatches
from tutelage.errors import UserError


def epoch(sampler, seed=0):
    return list(sampler.epoch(0, torch.Generator().manual_seed(seed)))


def test_it_is_a_batch_sampler():
    assert isinstance(ShuffledBatches(4, batch_size=2), BatchSampler)


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
