"""The plan of an epoch: the samples and views of each batch, decided before any image is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.data.augment import Augmentation
from tutelage.data.batch import Output
from tutelage.data.samplers import BatchSampler
from tutelage.errors import UserError
from tutelage.system.chance import generator

# Separate streams of random numbers: draws of one must not change those of another.
ORDER, VIEW, FOREIGN, RECORDED = 0, 1, 2, 3


class RecordedViews(ABC):
    """Recorded views of every sample, each with a teacher's output.

    Training uses a recording only through this class.
    """

    @property
    @abstractmethod
    def views(self) -> int:
        """How many views of each sample there are."""

    @property
    @abstractmethod
    def augmentation(self) -> Augmentation:
        """The augmentation that the views' parameters belong to."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of the content."""

    def identity(self) -> dict[str, Any]:
        """Return the recording's part of a training's fingerprint."""
        return {"fingerprint": self.fingerprint, "views": self.views}

    def origin(self) -> dict[str, Any] | None:
        """Return plain values that identify the recording, whatever its number of views; None if unknown."""
        return None

    def only(self, layers: Collection[str]) -> RecordedViews:
        """Return the same views, with these layers alone; the others are not read."""
        return self

    def check(self, data: Any) -> None:  # noqa: B027 - views of any kind have nothing to check
        """Refuse to be replayed for other samples than the recorded ones.

        Args:
            data: The `Data` to train on.

        Raises:
            UserError: If the samples are not the recorded ones.
        """

    def check_goes_on(self, begun: Mapping[str, Any], folder: Path) -> None:  # noqa: B027 - as above
        """Refuse to resume a training with another number of views, and say how to resume it.

        Args:
            begun: The `identity` that the training was begun with.
            folder: The training's folder, for the message.

        Raises:
            UserError: If only the number of views differs. Every other difference shows in the fingerprint.
        """

    @abstractmethod
    def read(self, indices: Tensor, views: Tensor) -> tuple[Tensor, Output]:
        """Return the view parameters `[batch, width]`, and the teacher's output.

        Args:
            indices: Position of each sample in the dataset, `[batch]`, on the CPU.
            views: The number of the view of each sample, `[batch]`.
        """


@dataclass(frozen=True)
class PlannedBatch:
    """One batch of one process.

    Attributes:
        number: Its position in the epoch.
        indices: Position of each sample in the dataset, `[batch]`.
        view: Parameters of the augmentation, `[batch, width]`; None without augmentation.
        answer: A teacher's recorded output for these views; None if nothing was recorded.
    """

    number: int
    indices: Tensor
    view: Tensor | None
    answer: Output | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The batches of every epoch. Each depends on the seed, the epoch and its number alone.

    Attributes:
        sampler: Forms the batches.
        seed: Seed of all random numbers.
        augmentation: The augmentation of the images.
        size: The images' height and width in pixels; () for inputs that are not images and are not augmented.
        rank: The number of this process, from 0.
        world_size: How many processes share each batch.
        sections: How many equal sections a batch consists of. The processes share each section.
        recorded: Recorded views: one per sample and epoch, another in the next; a repeated sample gets different views.
    """

    sampler: BatchSampler
    seed: int
    augmentation: Augmentation
    size: tuple[int, ...]
    rank: int = 0
    world_size: int = 1
    sections: int = 1
    recorded: RecordedViews | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise UserError(f"rank {self.rank} of {self.world_size} processes: ranks go from 0 to world_size - 1.")

    def __len__(self) -> int:
        return len(self.sampler)

    def sizes(self) -> tuple[int, ...]:
        """Return this process's number of samples in a whole batch, then in a section if there are several."""
        # The commonest size, because the last batch may be smaller.
        counts = Counter(len(indices) for indices in self.sampler.epoch(0, generator(self.seed, ORDER, 0)))
        samples = len(self._mine(max(counts, key=lambda size: (counts[size], size))))
        return (samples,) if self.sections == 1 else (samples, samples // self.sections)

    def epoch(self, number: int, start: int = 0) -> Iterator[PlannedBatch]:
        """Yield the batches of epoch `number` from batch `start` on. A later start does not change the batches."""
        batches = enumerate(self.sampler.epoch(number, generator(self.seed, ORDER, number)))
        for position, indices in islice(batches, start, None):
            mine, view = self._mine(len(indices)), None
            if self.recorded is not None:
                rounds = self._rounds(self.recorded.views, indices, number)[mine]
                yield PlannedBatch(position, indices[mine], *self.recorded.read(indices[mine], rounds))
                continue
            if self.augmentation:
                # Drawn for the whole batch, so that the views do not depend on the number of processes.
                chance = generator(self.seed, VIEW, number, position)
                height, width = self.size
                view = self.augmentation.sample(chance, len(indices), (height, width))[mine]
            yield PlannedBatch(position, indices[mine], view)

    def _rounds(self, views: int, indices: Tensor, number: int) -> Tensor:
        """Return the number of the recorded view of each sample in an epoch, `[batch]`."""
        # A random order of the views, the same in all epochs, so that every view has its turn before one repeats.
        order = torch.randperm(views, generator=generator(self.seed, VIEW))
        return order[(number + earlier(indices)) % views]

    def _mine(self, samples: int) -> Tensor:
        """Return the places of this process's samples in a batch. Every process gets as many from each section."""
        places = torch.arange(samples).view(self.sections, -1)
        shared = places.shape[1] - places.shape[1] % self.world_size
        return places[:, self.rank : shared : self.world_size].flatten()


def earlier(indices: Tensor) -> Tensor:
    """Return how many equal entries come before each entry, `[batch]`: 0 for the first, 1 for the second."""
    order = indices.argsort(stable=True)
    ranked = indices[order]
    place = torch.arange(len(indices))
    first = torch.searchsorted(ranked, ranked)
    return torch.empty_like(place).index_copy_(0, order, place - first)
