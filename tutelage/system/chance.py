"""Random numbers that depend on what they are for, and on nothing that ran before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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


def random_state() -> dict[str, Any]:
    """Return the state of every random generator that training may draw from."""
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 (third-party augmentations)
    assert isinstance(keys, np.ndarray)
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put every random generator where `random_state` found it."""
    torch.set_rng_state(state["torch"])
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_everything(seed: int) -> None:
    """Seed every random generator that training may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
