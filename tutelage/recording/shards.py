"""The files of a recording: each is written atomically, has a checksum, and is used only if the checksum is right."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import UserError
from tutelage.recording.header import Header
from tutelage.recording.layout import checksum_path, shard_path
from tutelage.system.files import atomic

State = Literal["missing", "complete", "damaged"]
# Seconds after which a temporary file is surely abandoned: storing a shard takes far less.
_DEAD_AFTER = 600


@contextmanager
def writing(folder: Path, header: Header, view: int, shard: int) -> Iterator[NDArray[Any]]:
    """Yield the rows of a shard to be filled, and store them at the end of the block unless it raises.

    Several processes may write the same shard at once; one of them wins.

    Args:
        folder: Where the recording is.
        header: Its header.
        view: Which view, from 0.
        shard: Which shard of the view, from 0.

    Yields:
        The rows, a structured array of zeros `[row]`, in memory.

    Raises:
        UserError: If the disk is full or the place cannot be written.
    """
    rows = np.zeros(len(header.rows(shard)), header.row_dtype)
    # An error in the block ends the function here, so a half-filled shard is never stored.
    yield rows
    path = shard_path(folder, view, shard)
    # Removed first: the old checksum must never stand beside the new content.
    checksum_path(path).unlink(missing_ok=True)
    with atomic(path) as file:
        hashed, own = _Hashed(file), os.fstat(file.fileno()).st_ino
        np.lib.format.write_array(hashed, rows, allow_pickle=False)
    _store_checksum(path, hashed.digest.hexdigest())
    # Another process may have replaced the file after ours and before our checksum; then the file's own is stored.
    if path.stat().st_ino != own:
        _store_checksum(path, _digest(path))


def sweep(folder: Path) -> None:
    """Remove temporary files of killed processes. Younger files are kept: their process may still be running."""
    for path in folder.glob("view-*/.shard-*"):
        # Another process may sweep the same file meanwhile.
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _DEAD_AFTER:
                path.unlink()


def opened(folder: Path, header: Header, view: int, shard: int, *, verify: bool = True) -> NDArray[Any]:
    """Return the rows of a shard, mapped from disk.

    Args:
        folder: Where the recording is.
        header: Its header.
        view: Which view, from 0.
        shard: Which shard of the view, from 0.
        verify: Whether to compare the content with the checksum.

    Raises:
        UserError: If the shard is missing, truncated, of another type, or differs from what was written.
    """
    path = shard_path(folder, view, shard)
    if verify and _digest(path) != checksum(folder, view, shard):
        raise _damaged(path, "its content is not what was written (the checksum differs)")
    try:
        # Never pickled: reading a recording must not run code.
        rows: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error
    expected = (len(header.rows(shard)),)
    if rows.dtype != header.row_dtype or rows.shape != expected:
        raise _damaged(path, f"it holds {rows.shape} rows of {rows.dtype}, not {expected} of {header.row_dtype}")
    # A plain array, still backed by the file: selecting rows from a memmap object is slower.
    return np.asarray(rows)


def is_complete(folder: Path, view: int, shard: int) -> bool:
    """Return whether a shard was written to its end, without looking at its content."""
    return checksum_path(shard_path(folder, view, shard)).exists()


def state(folder: Path, header: Header, view: int, shard: int) -> State:
    """Return whether a shard is missing, complete or damaged. Its whole content is read for this."""
    if not is_complete(folder, view, shard):
        return "missing"
    try:
        opened(folder, header, view, shard)
    except UserError:
        return "damaged"
    return "complete"


def checksum(folder: Path, view: int, shard: int) -> str:
    """Return the checksum that was stored with a shard, without looking at its content.

    Raises:
        UserError: If it cannot be read.
    """
    path = shard_path(folder, view, shard)
    try:
        return checksum_path(path).read_text().split()[0]
    except (OSError, ValueError, IndexError) as error:
        raise _damaged(path, f"its checksum cannot be read ({error})") from error


def views_present(folder: Path) -> list[int]:
    """Return the numbers of the views that have a folder, in order."""
    names = (path.name.removeprefix("view-") for path in folder.glob("view-*"))
    return sorted(int(name) for name in names if name.isdecimal())


def complete_shards(folder: Path, header: Header, view: int) -> int:
    """Return how many shards of a view were written to their end."""
    return sum(is_complete(folder, view, shard) for shard in range(header.shards))


class _Hashed:
    """A file that keeps the digest of what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self._file.write(content)


def _store_checksum(path: Path, digest: str) -> None:
    with atomic(checksum_path(path)) as file:
        # Two spaces, as sha256sum writes them.
        file.write(f"{digest}  {path.name}\n".encode())


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return UserError(f"The shard {path} could not be opened: {error.strerror}. Allow more open files (ulimit -n).")
    return _damaged(path, (isinstance(error, OSError) and error.strerror) or str(error))


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"The shard {path} is damaged: {why}. Run the `tutelage record` command that made it again.")
