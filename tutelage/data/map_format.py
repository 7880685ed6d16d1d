"""How a task's maps lie in files: what they are called, where they are looked for, and how one is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tutelage.data.names import Spec


@dataclass(frozen=True, kw_only=True)
class MapFormat:
    """A format of maps.

    Attributes:
        word: What one is called, such as `mask`.
        folders: What people call a folder of them, in lower case; the first is the usual name.
        columns: What people call a column of them; the first is the usual name.
        options: The options behind the data that are for them, such as `ignore`.
        endings: The endings of their files, beside those of images.
        read: Opens one from a cell of a table: the numbers as they stand in the file, `[height, width]`. The second
            argument is the place to name if it cannot be read.
        noted: What a look at all maps keeps of one, from its numbers, the user's request and its place. Each value is
            kept once.
        identity: What the user said of them, as plain values: the same files read otherwise are other data.
    """

    word: str
    folders: tuple[str, ...]
    columns: tuple[str, ...]
    options: tuple[str, ...]
    endings: frozenset[str] = frozenset()
    read: Callable[[Any, str], NDArray[Any]]
    noted: Callable[[NDArray[Any], Spec, str], Iterable[Any]]
    identity: Callable[[Spec], dict[str, Any]]
