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
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
# Nothing is given back, and no piece is got from the system by itself: the threshold for that has a limit in older
# versions, above which it would be refused.
_KEEPING = {_TRIM_THRESHOLD: -1, _MMAP_MAX: 0}
# What glibc ends at by itself in a process that frees large pieces.
_USUAL = {_TRIM_THRESHOLD: 64 * 2**20, _MMAP_THRESHOLD: 32 * 2**20, _MMAP_MAX: 65536}


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
    for parameter, value in _KEEPING.items():
        mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _USUAL.items():
            mallopt(parameter, value)
        library.malloc_trim(0)


def can_keep_memory() -> bool:
    """Return whether the C library can be told to keep memory."""
    return _glibc() is not None


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
