"""Digests of file contents: decoded images in the cache belong to content, not to times of change."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tutelage.data.cache import cache_folder
from tutelage.data.walk import Folder

_CHUNK = 1 << 22
_TOGETHER = 256
_DIGITS = 64
# The coarsest clock of the usual file systems. A file that changed within it could change again and look the same.
_CLOCK_NANOSECONDS = 2_000_000_000


@dataclass(frozen=True)
class Contents:
    """The files of a folder. Their content is read once, and its digest is remembered until a file changes.

    A change shows in a file's device, inode number, size, and two times. A user can set the modification time back,
    but that itself updates the time of the last status change.

    Attributes:
        root: The folder.
        paths: The files, relative to the folder.
        states: The system's record of each file.
    """

    root: str
    paths: Sequence[str]
    states: Sequence[os.stat_result]

    @classmethod
    def of(cls, tree: Folder) -> Contents:
        """Return the contents of a folder as it was walked."""
        files = list(tree.below())
        skipped = len(tree.path.rstrip("/\\")) + 1
        relative = [file[skipped:].replace(os.sep, "/") for file in files]
        return cls(tree.path, relative, [os.stat(file) for file in files])  # noqa: PTH116

    @property
    def listing(self) -> list[tuple[str, int, int]]:
        """Path, size in bytes and time of change in nanoseconds of each file, sorted."""
        return sorted((path, state.st_size, state.st_mtime_ns) for path, state in zip(self.paths, self.states))

    @cached_property
    def state(self) -> str:
        """SHA-256 over the system's records of the files."""
        digest = hashlib.sha256()
        for path, state in zip(self.paths, self.states):
            times = (state.st_mtime_ns, state.st_ctime_ns)
            digest.update(repr((path, state.st_dev, state.st_ino, state.st_size, *times)).encode())
        return digest.hexdigest()

    def known(self) -> str | None:
        """Return the digest of the content if it was read before in this state, else None."""
        # On Windows st_ctime is the time of creation, so it does not show changes.
        if os.name == "nt":
            return None
        try:
            digest = self._note.read_text()
        except OSError:
            return None
        return digest if len(digest) == _DIGITS else None

    def digest(self) -> str:
        """Return the SHA-256 over the paths and the content of all files, reading them if need be."""
        known = self.known()
        if known is not None:
            return known
        newest = max((max(state.st_mtime_ns, state.st_ctime_ns) for state in self.states), default=0)
        settled = time.time_ns() - newest > _CLOCK_NANOSECONDS
        total = hashlib.sha256()
        # Reading and hashing release the interpreter lock, so threads help.
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            starts = range(0, len(self.paths), _TOGETHER)
            for part in pool.map(lambda start: self._read(self.paths[start : start + _TOGETHER]), starts):
                total.update(part)
        # A file that changed a moment ago could change again without a new time, so its digest is not kept.
        if settled:
            self._remember(total.hexdigest())
        return total.hexdigest()

    @property
    def _note(self) -> Path:
        return cache_folder() / f"content-{self.state}"

    def _read(self, paths: Sequence[str]) -> bytes:
        """Return bytes that identify some files: the path and the digest of each."""
        found = bytearray()
        for path in paths:
            digest = hashlib.sha256()
            with open(os.path.join(self.root, path), "rb", buffering=0) as file:  # noqa: PTH118, PTH123
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
            found += f"{path}\0".encode() + digest.digest()
        return bytes(found)

    def _remember(self, digest: str) -> None:
        try:
            self._note.parent.mkdir(parents=True, exist_ok=True)
            scratch = self._note.with_name(f"{self._note.name}-{os.getpid()}")
            scratch.write_text(digest)
            scratch.replace(self._note)
        except OSError:
            return  # The content is read again the next time.
