"""The work of a recording: which shards are written in which order, and how several processes divide them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from tutelage.recording import layout
from tutelage.recording.header import Header
from tutelage.system.parts import Part


@dataclass(frozen=True)
class Unit:
    """One piece of work: the samples of a shard are read once, and several views of them are recorded.

    Attributes:
        shard: The number of the shard, the same in each view.
        views: The numbers of the views.
    """

    shard: int
    views: tuple[int, ...]


def units(shards: int, *, views: int, at_once: int, part: Part) -> list[Unit]:
    """Return the units of a part, in an order that completes the first views first.

    Args:
        shards: How many shards a view has.
        views: How many views are wanted.
        at_once: How many views a unit has at most.
        part: Which share of the work. Each unit belongs to exactly one part.
    """
    # Every n-th unit, not a block of them: all parts then work on the same views, which are complete sooner.
    groups = [tuple(range(first, min(first + at_once, views))) for first in range(0, views, at_once)]
    return [Unit(shard, group) for group in groups for shard in range(shards)][part.number - 1 :: part.of]


def without(work: Sequence[Unit], done: Collection[tuple[int, int]]) -> list[Unit]:
    """Return the units that are left, without the shards that are done.

    Args:
        work: The units.
        done: Pairs of view and shard that are done.
    """
    left = [replace(unit, views=tuple(v for v in unit.views if (v, unit.shard) not in done)) for unit in work]
    return [unit for unit in left if unit.views]


class Chunks:
    """Batches of consecutive samples, unit after unit. A batch is read once for all views of its unit.

    Args:
        header: The recording's header, which knows the samples of a shard.
        work: The units.
        batch_size: Samples per batch; the last one of a shard may be smaller.
    """

    def __init__(self, header: Header, work: Sequence[Unit], batch_size: int) -> None:
        self._header, self._work, self._batch_size = header, work, batch_size

    def __len__(self) -> int:
        # A batch ends where its shard does.
        return sum(len(range(0, len(self._header.rows(unit.shard)), self._batch_size)) for unit in self._work)

    def epoch(self, number: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the positions of each batch's samples. Both arguments are ignored: nothing is shuffled."""
        for unit in self._work:
            rows = self._header.rows(unit.shard)
            for start in range(rows.start, rows.stop, self._batch_size):
                yield torch.arange(start, min(start + self._batch_size, rows.stop))


def images_in(header: Header, work: Sequence[Unit]) -> int:
    """Return how many images some units record, each view of a sample counted."""
    return sum(len(header.rows(unit.shard)) * len(unit.views) for unit in work)


def expected_size(header: Header, *, views: int) -> str:
    """Return a recording's size on disk, in words."""
    total = layout.total_bytes(header.row_dtype.itemsize, samples=header.samples, views=views)
    return f"{in_views(views)} of {header.samples:,} samples, {header.keep} in {header.values}: {in_bytes(total)}"


def in_views(count: int) -> str:
    """Return a number of views for people."""
    return "1 view" if count == 1 else f"{count} views"


def in_bytes(count: float) -> str:
    """Return a number of bytes for people, such as `18.4 MB`; a MB is 1000 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        # 999.95 and more would be shown as 1000.0 of this unit.
        if count < 999.95:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
