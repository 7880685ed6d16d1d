import random

import numpy as np
import torch

from tutelage.system.chance import derive, generator, seeded


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
