import random

import numpy as np
import pytest
import torch

from tutelage.system.chance import derive, generator, kept, seed_everything, seeded, starting_at


def draw():
    return torch.rand(1).item(), random.random(), np.random.rand()


def test_seeds_depend_on_every_part_and_its_place():
    seeds = {derive(*parts) for parts in [(0, 1), (1, 0), (0, 1, 0), (0, 0, 1), (-1, 0), (2**40, 3)]}
    assert len(seeds) == 6
    assert derive(3, 4) == derive(3, 4)
    assert torch.equal(torch.rand(3, generator=generator(1, 2)), torch.rand(3, generator=generator(1, 2)))


def test_foreign_chance_is_seeded_and_the_outer_chance_untouched():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    with seeded(1):
        first = draw()
    after = draw()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    assert draw() == after
    with seeded(1):
        assert draw() == first
    with seeded(2):
        assert draw() != first


def test_what_is_kept_goes_on_as_if_nothing_had_been_drawn():
    @kept()
    def work():
        seed_everything(7)
        return draw()

    seed_everything(1)
    expected = [draw(), draw()]
    seed_everything(1)
    assert draw() == expected[0]
    seen = work()
    assert draw() == expected[1]
    assert work() == seen


def test_what_is_kept_is_put_back_after_an_error():
    seed_everything(1)
    expected = draw()
    seed_everything(1)
    with pytest.raises(RuntimeError), kept():
        seed_everything(2)
        raise RuntimeError
    assert draw() == expected


@pytest.mark.parametrize("accelerators", [False, True])
def test_a_block_that_starts_at_a_seed_draws_what_a_seeded_process_draws(accelerators):
    seed = 2**40 + 3
    seed_everything(seed)
    expected = draw()
    seed_everything(7)
    following = draw()
    seed_everything(7)
    with starting_at(seed, accelerators=accelerators):
        assert draw() == expected
    assert draw() == following
    with pytest.raises(RuntimeError, match="stop"), starting_at(seed):
        raise RuntimeError("stop")
    seed_everything(seed)
    assert torch.rand(1).item() == expected[0]
    assert torch.rand(1, generator=torch.Generator().manual_seed(seed)).item() == expected[0]


def test_a_seeded_block_starts_at_the_seed_of_its_numbers():
    with seeded(3, 4):
        found = draw()
    with starting_at(derive(3, 4)):
        assert draw() == found
