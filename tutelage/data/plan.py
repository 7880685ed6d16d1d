"""What the batches of an epoch hold, decided before any image is read."""

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

# Streams of random numbers that must not meet.
ORDER, VIEW, FOREIGN, RECORDED = 0, 1, 2, 3


class RecordedViews(ABC):
    """Views of every sample that were drawn before, each with what a teacher said about it.

    A training asks a recording through this class alone, and knows no more of it.
    """

    @property
    @abstractmethod
    def views(self) -> int:
        """How many views of each sample there are."""

    @property
    @abstractmethod
    def augmentation(self) -> Augmentation:
        """What the views' parameters belong to."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Stands for the content."""

    def identity(self) -> dict[str, Any]:
        """Return what the recording adds to the fingerprint of a training."""
        return {"fingerprint": self.fingerprint, "views": self.views}

    def origin(self) -> dict[str, Any] | None:
        """Return what the views are of, however many of them there are, as plain values; None if nothing is known."""
        return None

    def only(self, layers: Collection[str]) -> RecordedViews:
        """Return the same views, of whose answers no other layers are read."""
        return self

    def check(self, data: Any) -> None:  # noqa: B027 - views of any kind have nothing to check
        """Refuse to be replayed for other samples than were recorded.

        Args:
            data: The `Data` that is about to be trained on.

        Raises:
            UserError: If they are others.
        """

    def check_goes_on(self, begun: Mapping[str, Any], folder: Path) -> None:  # noqa: B027 - likewise
        """Refuse to go on with a training on more or fewer views than it was begun with, and say how to go on.

        Args:
            begun: The `identity` that the training was begun with.
            folder: The training's folder, for the message.

        Raises:
            UserError: If only the number of views differs; whatever else differs is found by the fingerprint.
        """

    @abstractmethod
    def read(self, indices: Tensor, views: Tensor) -> tuple[Tensor, Output]:
        """Return the view parameters `[batch, width]`, and what the teacher said.

        Args:
            indices: Position of each sample in the dataset, `[batch]`, on the CPU.
            views: Which view of it, `[batch]`.
        """


@dataclass(frozen=True)
class PlannedBatch:
    """One batch of one process.

    Attributes:
        number: Its position in the epoch.
        indices: Position of each sample in the dataset, `[batch]`.
        view: Parameters of the augmentation, `[batch, width]`; None without one.
        answer: What a teacher said about these views, where that was recorded.
    """

    number: int
    indices: Tensor
    view: Tensor | None
    answer: Output | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The batches of every epoch, each from (seed, epoch, batch) alone.

    Attributes:
        sampler: Decides which samples form a batch.
        seed: All chance comes from it.
        augmentation: What is done to the images.
        size: The images' height and width in pixels; () for inputs that are no images, which no augmentation changes.
        rank: Which process this is.
        world_size: How many processes share each batch.
        sections: How many equal sections a batch consists of; the processes share each of them.
        recorded: Views to take instead of drawing some: in an epoch the same view of each sample, in the next epoch
            another, and of a sample that is several times in a batch as many.
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
        """Return how many samples of a whole batch are this process's, and how many in each section, where several."""
        counts = Counter(len(indices) for indices in self.sampler.epoch(0, generator(self.seed, ORDER, 0)))
        samples = len(self._mine(max(counts, key=lambda size: (counts[size], size))))
        return (samples,) if self.sections == 1 else (samples, samples // self.sections)

    def epoch(self, number: int, start: int = 0) -> Iterator[PlannedBatch]:
        """Yield the batches of epoch `number` from batch `start` on: the same ones as without the start."""
        batches = enumerate(self.sampler.epoch(number, generator(self.seed, ORDER, number)))
        for position, indices in islice(batches, start, None):
            mine, view = self._mine(len(indices)), None
            if self.recorded is not None:
                rounds = self._rounds(self.recorded.views, indices, number)[mine]
                yield PlannedBatch(position, indices[mine], *self.recorded.read(indices[mine], rounds))
                continue
            if self.augmentation:
                # For the whole batch, so that the views do not depend on the number of processes.
                chance = generator(self.seed, VIEW, number, position)
                height, width = self.size
                view = self.augmentation.sample(chance, len(indices), (height, width))[mine]
            yield PlannedBatch(position, indices[mine], view)

    def _rounds(self, views: int, indices: Tensor, number: int) -> Tensor:
        """Return which recorded view of each sample is taken in an epoch, `[batch]`."""
        order = torch.randperm(views, generator=generator(self.seed, VIEW))
        return order[(number + earlier(indices)) % views]

    def _mine(self, samples: int) -> Tensor:
        """Return which samples of a batch are this process's: of each section as many as any other process has."""
        places = torch.arange(samples).view(self.sections, -1)
        shared = places.shape[1] - places.shape[1] % self.world_size
        return places[:, self.rank : shared : self.world_size].flatten()


def earlier(indices: Tensor) -> Tensor:
    """Return how often each entry of `[batch]` stands before its place: 0 for the first, 1 for the second of a kind."""
    order = indices.argsort(stable=True)
    ranked = indices[order]
    place = torch.arange(len(indices))
    first = torch.searchsorted(ranked, ranked)
    return torch.empty_like(place).index_copy_(0, order, place - first)
