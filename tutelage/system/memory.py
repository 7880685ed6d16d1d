"""Keeping the memory that a training step frees for the next step.

The allocator of glibc returns large blocks to the system at once, and then gets them again page by page, each of them
cleared. On two cores this took a fifth of a small network's training step; the share varies between processes.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
# Nothing is returned, and no block is mapped by itself. The number of mappings is set to 0 rather than their threshold
# raised, because older versions refuse a threshold above a limit.
_KEEPING = {_TRIM_THRESHOLD: -1, _MMAP_MAX: 0}
# The values that glibc itself adapts to in a process that frees large blocks.
_USUAL = {_TRIM_THRESHOLD: 64 * 2**20, _MMAP_THRESHOLD: 32 * 2**20, _MMAP_MAX: 65536}


@contextmanager
def kept_memory(wanted: bool = True) -> Iterator[None]:
    """Keep freed memory within the block, and return it at the end. Does nothing if the C library is not glibc.

    Args:
        wanted: Whether to keep memory at all.
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
    """Return whether the C library supports keeping memory: only glibc does."""
    return _glibc() is not None


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
