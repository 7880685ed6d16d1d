"""Memory that a step frees is kept for the next one.

The allocator of glibc gives large pieces back to the system at once, and gets them again page by page, each cleared
anew: on two cores a fifth of the training step of a small network, and more or less of it in every process.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# From malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP = 2**31 - 1
# What glibc ends at by itself in a process that frees large pieces.
_USUAL = {_TRIM_THRESHOLD: 64 * 2**20, _MMAP_THRESHOLD: 32 * 2**20}


@contextmanager
def kept_memory(wanted: bool = True) -> Iterator[None]:
    """Keep freed memory within, and give it back at the end; does nothing where the C library is another.

    Args:
        wanted: Whether to.
    """
    library = _glibc() if wanted else None
    if library is None:
        yield
        return
    mallopt: Callable[[int, int], int] = library.mallopt
    for threshold in _USUAL:
        mallopt(threshold, _KEEP)
    try:
        yield
    finally:
        for threshold, usual in _USUAL.items():
            mallopt(threshold, usual)
        library.malloc_trim(0)


def can_keep_memory() -> bool:
    """Return whether the C library can be told to keep memory."""
    return _glibc() is not None


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
