"""Random numbers that depend on their purpose, and on nothing that ran before.

`generator` returns a separate generator. `seeded` and `starting_at` seed the global generators for a block of code, and
restore them. `seed_everything` seeds them for a piece of work and leaves them so. `kept` restores them for the caller.
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
    """Return a new CPU generator, seeded from these numbers."""
    return Generator().manual_seed(derive(*parts))


def seed_everything(seed: int) -> None:
    """Seed every random generator that training may draw from, on all devices, without restoring it later."""
    torch.manual_seed(seed)
    _seed_others(seed)


@contextmanager
def starting_at(seed: int, *, accelerators: bool = False) -> Iterator[None]:
    """Seed torch, numpy and `random` for a block, and restore their states afterwards.

    Args:
        seed: A whole number, 0 or more.
        accelerators: Whether to seed and restore the generators of other devices too.
    """
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - foreign code draws from it
    with torch.random.fork_rng(devices=range(torch.cuda.device_count() if accelerators else 0)):
        # torch.manual_seed would also seed the other devices, whose states are not restored here.
        (torch if accelerators else torch.default_generator).manual_seed(seed)
        _seed_others(seed)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Run a block of foreign code, such as a dataset's own transforms, with the seed that belongs to these numbers."""
    with starting_at(derive(*parts)):
        yield


def random_state(*, accelerators: bool = True) -> dict[str, Any]:
    """Return the state of every random generator that training may draw from.

    Args:
        accelerators: Whether to include the generators of other devices.
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
    """Restore every random generator to the state that `random_state` returned."""
    torch.set_rng_state(state["torch"])
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def kept() -> Iterator[None]:
    """Restore every random generator after a block, or after each call of a function that this decorates."""
    # Asking an unused GPU for its state would start it, which takes time and memory.
    state = random_state(accelerators=torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        restore_random_state(state)


def _seed_others(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
