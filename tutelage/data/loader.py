"""Loaders: they yield the same batches of an epoch whether the run starts there or resumes in its middle."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tutelage.data.augment import Augmentation
from tutelage.data.batch import Batch, moved
from tutelage.data.images import as_inputs
from tutelage.data.own import OwnLoader, as_samples
from tutelage.data.plan import FOREIGN, Plan, PlannedBatch, RecordedViews
from tutelage.data.samplers import BatchSampler, GroupedBatches, LikeLengths, ShuffledBatches
from tutelage.data.samples import Samples
from tutelage.data.task import Task
from tutelage.errors import UserError
from tutelage.system import processes
from tutelage.system.chance import seeded

Device = torch.device | str
Read = tuple[PlannedBatch, Any, Tensor | None]
MakeBatch = Callable[[PlannedBatch, Any, Tensor | None], Batch]
_MOST_WORKERS = 8
_NO_AUGMENTATION = Augmentation()


@runtime_checkable
class Loader(Protocol):
    """The source of batches for training and evaluation."""

    def __len__(self) -> int:
        """Return the number of batches per epoch."""

    def sizes(self) -> tuple[int, ...]:
        """Return the number of samples of a whole batch, then of a section if there are several; () if unknown."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch `number` from batch `start` on. They depend on the seed and the number alone."""


class ResidentLoader:
    """Batches of samples in memory: gathered and augmented as uint8 on the device, then converted to float.

    Args:
        samples: The samples; they are moved to the device once.
        plan: The batches.
        make: Makes a batch from the inputs and targets that were read.
        device: The device on which the batches are made.
    """

    def __init__(self, samples: Samples, plan: Plan, make: MakeBatch, *, device: Device = "cpu") -> None:
        self._samples, self._plan, self._make, self._device = samples.to(device), plan, make, device

    def __len__(self) -> int:
        return len(self._plan)

    def sizes(self) -> tuple[int, ...]:
        """Return the number of samples of a whole batch, then of a section if there are several."""
        return self._plan.sizes()

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch `number` from batch `start` on."""
        taught = self._samples.taught
        for read in self.read(number, start):
            batch = self._make(*read)
            if taught is not None:
                # The indices are on the device already.
                batch = replace(batch, teacher_inputs=taught.read_batch(batch.indices)[0])
            yield batch

    def read(self, number: int, start: int = 0) -> Iterator[Read]:
        """Yield what the batches of an epoch are made of: what is planned, the inputs as they are, the targets."""
        for planned in self._plan.epoch(number, start):
            indices = planned.indices.to(self._device, non_blocking=True)
            yield planned, *self._samples.read_batch(indices)


class StreamedLoader:
    """Batches of samples that are read when they are needed, by worker processes; augmented on the device.

    Random numbers in a dataset's own transforms are seeded per batch, so the number of workers does not change results.
    A sample that occurs several times in a batch is decoded once and sent once through the workers' pipe. Samples of a
    user's own dataset are the exception: their transform may change them differently each time.

    Args:
        samples: The samples.
        plan: The batches.
        make: Makes a batch from the inputs and targets that were read.
        device: The device of the batches.
        workers: Number of processes that read ahead; 0 reads in this process.
    """

    def __init__(
        self, samples: Samples, plan: Plan, make: MakeBatch, *, device: Device = "cpu", workers: int = 0
    ) -> None:
        self._plan, self._device, self._make = plan, torch.device(device), make
        self._queue = _Queue(plan, once=samples.is_steady)
        self._reader: DataLoader[Any] = DataLoader(
            _Reader(samples),
            # The queue asks for whole batches, so a DataLoader must not form its own.
            batch_size=None,
            sampler=self._queue,
            num_workers=workers,
            persistent_workers=workers > 0,
            # Only from pinned memory does a copy to the GPU run beside other work.
            pin_memory=self._device.type == "cuda",
            # A DataLoader draws a seed for its workers each epoch, by default from the global generator.
            generator=Generator(),
        )

    def __len__(self) -> int:
        return len(self._plan)

    def sizes(self) -> tuple[int, ...]:
        """Return the number of samples of a whole batch, then of a section if there are several."""
        return self._plan.sizes()

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch `number` from batch `start` on. Only one epoch can be read at a time."""
        for read in self.read(number, start):
            yield self._make(*read)

    def read(self, number: int, start: int = 0) -> Iterator[Read]:
        """Yield what the batches of an epoch are made of: what is planned, the inputs as they are, the targets."""
        planned_batches = self._queue.begin(number, start)
        for read in self._reader:
            if isinstance(read, UserError):
                # A new error: raising `read` itself would tie this frame into a cycle, and the workers would end late.
                raise UserError(*read.args)
            # Workers read ahead, but batches arrive in the order in which they were asked for.
            planned, places = planned_batches.popleft()
            inputs, targets = (moved(value, self._device, non_blocking=True) for value in read)
            if places is not None:
                places = places.to(self._device, non_blocking=True)
                inputs, targets = _taken(inputs, places), _taken(targets, places)
            yield planned, inputs, targets


def _taken(value: Any, places: Tensor) -> Any:
    """Return the samples at some places of a batch of inputs or targets."""
    if isinstance(value, Mapping):
        return {name: _taken(part, places) for name, part in value.items()}
    if isinstance(value, list):
        return [value[place] for place in places.tolist()]
    return None if value is None else value.index_select(0, places)


def _batch_maker(plan: Plan, task: Task, *, device: Device, channels_last: bool, world_size: int) -> MakeBatch:
    """Return a function that makes a batch: it augments images, and moves targets such as masks with them."""

    def make(planned: PlannedBatch, inputs: Any, targets: Tensor | None) -> Batch:
        extras: dict[str, Tensor] = {}
        if planned.view is not None:
            view = planned.view.to(device, non_blocking=True)
            inputs, extras = plan.augmentation.apply(inputs, view), {"view": view}
            targets = None if targets is None else task.under_view(targets, plan.augmentation, view)
        if targets is not None and not targets.is_floating_point():
            # Maps of classes are stored and moved in as few bytes as possible.
            targets = targets.long()
        is_image = isinstance(inputs, Tensor) and inputs.ndim == 4
        places = task.count_places(inputs, targets) if world_size > 1 else None
        if places is not None:
            # Of several processes each has another number, and their gradients are averaged.
            places = processes.mean(places)
        return Batch(
            inputs=as_inputs(inputs, channels_last=channels_last) if is_image else inputs,
            targets=targets,
            indices=planned.indices.to(device, non_blocking=True),
            teacher=None if planned.answer is None else planned.answer.to(device, non_blocking=True),
            extras=extras,
            criterion=task.criterion,
            places=places,
        )

    return make


class _Queue(Sampler[tuple[tuple[int, ...], list[int]]]):
    """Asks the reader for batches, and keeps each plan until the reader delivers its batch.

    With `once`, a sample that occurs several times in a batch is read once, and the places of its copies are kept.
    """

    def __init__(self, plan: Plan, *, once: bool) -> None:
        self._plan, self._once, self._position = plan, once, (0, 0)
        self._planned: deque[tuple[PlannedBatch, Tensor | None]] = deque()

    def begin(self, number: int, start: int) -> deque[tuple[PlannedBatch, Tensor | None]]:
        # A new queue for each epoch: one that was left in its middle leaves plans behind.
        self._position, self._planned = (number, start), deque()
        return self._planned

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], list[int]]]:
        (number, start), planned = self._position, self._planned
        for batch in self._plan.epoch(number, start):
            wanted, places = _distinct(batch.indices) if self._once else (batch.indices, None)
            planned.append((batch, places))
            # The seeds of the dataset's own transforms. With the rank, so that processes do not all draw the same.
            yield (self._plan.seed, FOREIGN, number, batch.number, self._plan.rank), wanted.tolist()


def _distinct(indices: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the distinct entries, and the place of each entry among them; all entries and None if none repeats."""
    distinct, places = indices.unique(return_inverse=True)  # type: ignore[no-untyped-call]  # torch's
    return (indices, None) if len(distinct) == len(indices) else (distinct, places)


class _Reader(Dataset[Any]):
    """Reads a batch at a time. A user's error travels as a value: torch would bury its message in a traceback."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __getitem__(self, request: tuple[tuple[int, ...], list[int]]) -> tuple[Any, Tensor | None] | UserError:
        seeds, indices = request
        try:
            with seeded(*seeds):
                return self._samples.read_batch(indices)
        except UserError as error:
            return error


def make_loader(
    samples: Dataset[Any] | DataLoader[Any],
    task: Task,
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = False,
    augmentation: Augmentation = _NO_AUGMENTATION,
    drop_last: bool = False,
    batch_sampler: BatchSampler | None = None,
    device: Device = "cpu",
    channels_last: bool = False,
    workers: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    sections: int = 1,
    recorded: RecordedViews | None = None,
) -> Loader:
    """Return the loader that fits samples.

    Args:
        samples: Samples, any other map-style dataset, or a user's own DataLoader, which is used as it is.
        task: The task. It gives batches their losses, and moves targets with augmented images.
        batch_size: Samples per batch, over all processes.
        seed: Seed of all random numbers.
        shuffle: Whether each epoch has its own order.
        augmentation: The augmentation of the images.
        drop_last: Whether to leave out a last batch that is smaller.
        batch_sampler: Forms the batches, instead of `batch_size`, `shuffle` and `drop_last`.
        device: The device of the batches.
        channels_last: Whether inputs have the channels innermost in memory.
        workers: Number of processes that read samples. None means one for each processor, up to 8, for image files;
            and 0 for a user's own dataset, which may not work in copies.
        rank: The number of this process, from 0; it gets the samples `rank::world_size` of each batch.
        world_size: How many processes share each batch.
        sections: How many equal sections a batch of `batch_sampler` consists of.
        recorded: Recorded views to use instead of newly drawn ones.

    Raises:
        UserError: If there would be no batch, or a DataLoader is asked for another sampler or for recorded views.
    """
    if isinstance(samples, DataLoader):
        if batch_sampler is not None:
            raise UserError("This method forms its own batches: pass the dataset instead of a DataLoader.")
        if recorded is not None:
            raise UserError("Recorded views need samples by position: pass the dataset instead of a DataLoader.")
        return OwnLoader(
            samples,
            task,
            seed=seed,
            device=device,
            channels_last=channels_last,
            rank=rank,
            world_size=world_size,
            training=shuffle,
        )
    samples = as_samples(samples, task)
    assert isinstance(samples, Samples)
    if batch_sampler is None and samples.groups is not None:
        batch_sampler = GroupedBatches(samples.groups, batch_size=batch_size)
    if batch_sampler is None and shuffle and samples.lengths is not None:
        batch_sampler = LikeLengths(samples.lengths, batch_size=batch_size, drop_last=drop_last)
    plan = Plan(
        sampler=batch_sampler
        or ShuffledBatches(len(samples), batch_size=batch_size, shuffle=shuffle, drop_last=drop_last),
        seed=seed,
        # Recorded parameters mean something only to the augmentation that drew them.
        augmentation=augmentation if recorded is None else recorded.augmentation,
        size=samples.size,
        rank=rank,
        world_size=world_size,
        sections=sections,
        recorded=recorded,
    )
    make = _batch_maker(plan, task, device=device, channels_last=channels_last, world_size=world_size)
    if samples.is_resident:
        return ResidentLoader(samples, plan, make, device=device)
    if workers is None:
        workers = min(_MOST_WORKERS, os.cpu_count() or 1) if samples.is_decoded else 0
    return StreamedLoader(samples, plan, make, device=device, workers=workers)
