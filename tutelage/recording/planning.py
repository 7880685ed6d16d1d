"""What a recording takes: the work, in the order in which it is done, dealt out to those who share it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Generator, Tensor

from tutelage.errors import UserError
from tutelage.recording import layout
from tutelage.recording.header import Header


@dataclass(frozen=True)
class Part:
    """One of several processes or machines that share the work.

    Attributes:
        number: Which one, from 1.
        of: How many there are.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read a part such as `2/4`; None is the whole.

        Raises:
            UserError: If it is none.
        """
        if text is None:
            return cls()
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"part={text} is no part: write 1/4, 2/4, 3/4 and 4/4 for four that share the work.")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True)
class Unit:
    """Samples that are read once, and the views of them that are recorded meanwhile.

    Attributes:
        shard: Which shard of each view; it has the samples.
        views: Which views.
    """

    shard: int
    views: tuple[int, ...]


def units(shards: int, *, views: int, at_once: int, part: Part) -> list[Unit]:
    """Return the units of a part, such that views become complete in order.

    Args:
        shards: How many shards a view has.
        views: How many views are wanted.
        at_once: How many views a unit has at most.
        part: Whose work it is; the parts together have each unit once.
    """
    groups = [tuple(range(first, min(first + at_once, views))) for first in range(0, views, at_once)]
    return [Unit(shard, group) for group in groups for shard in range(shards)][part.number - 1 :: part.of]


def without(work: Sequence[Unit], done: Collection[tuple[int, int]]) -> list[Unit]:
    """Return the units without what is done.

    Args:
        work: The units.
        done: Views, each with a shard of it that is done.
    """
    left = [replace(unit, views=tuple(v for v in unit.views if (v, unit.shard) not in done)) for unit in work]
    return [unit for unit in left if unit.views]


class Chunks:
    """Batches of consecutive samples, unit after unit: the same ones whatever views of them are wanted.

    Args:
        header: The recording's, which knows the samples of a shard.
        work: The units.
        batch_size: Samples per batch; the last one of a shard may be smaller.
    """

    def __init__(self, header: Header, work: Sequence[Unit], batch_size: int) -> None:
        self._header, self._work, self._batch_size = header, work, batch_size

    def __len__(self) -> int:
        return sum(len(range(0, len(self._header.rows(unit.shard)), self._batch_size)) for unit in self._work)

    def epoch(self, number: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the samples of each batch; there is no chance in them."""
        for unit in self._work:
            rows = self._header.rows(unit.shard)
            for start in range(rows.start, rows.stop, self._batch_size):
                yield torch.arange(start, min(start + self._batch_size, rows.stop))


def images_in(header: Header, work: Sequence[Unit]) -> int:
    """Return how many views of samples some units have."""
    return sum(len(header.rows(unit.shard)) * len(unit.views) for unit in work)


def foretold(header: Header, *, views: int) -> str:
    """Return what a recording takes on disk, in words."""
    total = layout.total_bytes(header.row_dtype.itemsize, samples=header.samples, views=views)
    return f"{in_views(views)} of {header.samples:,} samples, {header.keep} in {header.values}: {in_bytes(total)}"


def in_views(count: int) -> str:
    """Return a number of views for people."""
    return "1 view" if count == 1 else f"{count} views"


def in_bytes(count: float) -> str:
    """Return a number of bytes for people, such as `18.4 MB`: a thousand kB are a MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.95:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
