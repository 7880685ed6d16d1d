"""The files of a recording: each appears whole, carries a checksum, and is believed only if that is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from tutelage.recording.header import Header

State = Literal["missing", "complete", "damaged"]


@contextmanager
def writing(folder: Path, header: Header, view: int, shard: int) -> Iterator[NDArray[Any]]:
    """Give the rows of a shard to be filled; they are stored at the end, unless an error passes.

    Processes that write the same shard at once do no harm: one of them wins.

    Args:
        folder: Where the recording is.
        header: Its header.
        view: Which view, from 0.
        shard: Which shard of the view, from 0.

    Yields:
        The rows, a structured array of zeros `[row]`.

    Raises:
        UserError: If the disk is full or the place cannot be written.
    """
    raise NotImplementedError
    yield


def opened(folder: Path, header: Header, view: int, shard: int, *, verify: bool = True) -> NDArray[Any]:
    """Return the rows of a shard, mapped from disk.

    Args:
        folder: Where the recording is.
        header: Its header.
        view: Which view, from 0.
        shard: Which shard of the view, from 0.
        verify: Whether to compare the content with the checksum.

    Raises:
        UserError: If the shard is missing, truncated, of another type, or not what was written.
    """
    raise NotImplementedError


def is_complete(folder: Path, view: int, shard: int) -> bool:
    """Return whether a shard was written to its end, without looking at its content."""
    raise NotImplementedError


def state(folder: Path, header: Header, view: int, shard: int) -> State:
    """Return whether a shard is there, and is what was written: its whole content is read for that."""
    raise NotImplementedError


def checksum(folder: Path, view: int, shard: int) -> str:
    """Return the checksum that was stored with a shard, without looking at its content.

    Raises:
        UserError: If it cannot be read.
    """
    raise NotImplementedError


def views_present(folder: Path) -> list[int]:
    """Return the views of which anything is there, in order."""
    raise NotImplementedError


def complete_shards(folder: Path, header: Header, view: int) -> int:
    """Return how many shards of a view were written to their end."""
    raise NotImplementedError
