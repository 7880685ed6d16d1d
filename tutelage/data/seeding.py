"""Random numbers that depend on what they are for, and on nothing that ran before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator


def derive(*parts: int) -> int:
    """Return the seed that belongs to these numbers, such as (seed, epoch, batch)."""
    # 32 bits: torch's CPU generator and numpy's global one take no more.
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest())


def generator(*parts: int) -> Generator:
    """Return a CPU generator that starts where these numbers say."""
    return Generator().manual_seed(derive(*parts))


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Seed torch, numpy and `random` for a block of foreign code, and put back their states afterwards."""
    seed = derive(*parts)
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - foreign transforms use it
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would seed the accelerators too, whose states are not put back.
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002
