"""Random numbers that depend on what they are for, and on nothing that ran before.

`generator` is a generator of one's own; `seeded` and `starting_at` serve code that draws from the global ones, and put
these back; `seed_everything` starts a piece of work, which goes on drawing; `kept` hides that from the caller.
"""

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


def seed_everything(seed: int) -> None:
    """Start every random generator that training may draw from at a seed, on all devices, and leave it there."""
    torch.manual_seed(seed)
    _seed_others(seed)


@contextmanager
def starting_at(seed: int, *, accelerators: bool = False) -> Iterator[None]:
    """Start torch, numpy and `random` at a seed for a block, and put back their states afterwards.

    Args:
        seed: Any whole number from zero on.
        accelerators: Whether the generators of other devices than the CPU are started and put back as well.
    """
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - foreign code draws from it
    with torch.random.fork_rng(devices=range(torch.cuda.device_count() if accelerators else 0)):
        # torch.manual_seed starts the other devices as well, whose states would not be put back.
        (torch if accelerators else torch.default_generator).manual_seed(seed)
        _seed_others(seed)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Run a block of foreign code, such as a dataset's own transforms, from the seed that belongs to these numbers."""
    with starting_at(derive(*parts)):
        yield


def random_state(*, accelerators: bool = True) -> dict[str, Any]:
    """Return the state of every random generator that training may draw from.

    Args:
        accelerators: Whether those of other devices than the CPU are among them.
    """
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 (third-party augmentations)
    assert isinstance(keys, np.ndarray)
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
    }
    if accelerators and torch.cuda.is_available():
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


@contextmanager
def kept() -> Iterator[None]:
    """Put every random generator back after a block, or after each call of a function that this decorates."""
    # A GPU that nothing was drawn on is not started to be asked.
    state = random_state(accelerators=torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        restore_random_state(state)


def _seed_others(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
