"""A Python user's own dataset or DataLoader, in the form that training reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, default_collate

from tutelage.data.batch import Batch
from tutelage.data.decode import on_background
from tutelage.data.fields import input_and_target
from tutelage.data.images import as_inputs
from tutelage.data.own_targets import find_targets
from tutelage.data.plan import FOREIGN, ORDER
from tutelage.data.samples import Indices, Samples
from tutelage.data.task import Task
from tutelage.errors import UserError
from tutelage.system.chance import derive, seeded

_COLOURS = (1, 3, 4)


class OwnSamples(Samples):
    """A map-style dataset of inputs and targets. Float tensors pass as they are; other images become [0, 1].

    Args:
        dataset: Anything with `__len__` and `__getitem__`. A sample is a pair (input, target), a mapping or named tuple
            with both, or an input alone. An input is an image (a tensor, a PIL image or a numpy array), or a mapping of
            tensors, such as text.
        task: The task, which reads the targets.
        targets: The targets `[sample, ...]` if known; otherwise they are found in the dataset.

    Raises:
        UserError: If the dataset is empty, or its samples cannot be understood.
    """

    is_steady = False

    def __init__(self, dataset: Any, task: Task, targets: Tensor | None = None) -> None:
        if isinstance(dataset, tuple | list) and len(dataset) == 2 and all(hasattr(part, "shape") for part in dataset):
            raise UserError(
                "The data are a pair of arrays: pass torch.utils.data.TensorDataset(inputs, targets), made of tensors."
            )
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise UserError(
                f"A {type(dataset).__name__} cannot be indexed: pass a dataset with __len__ and __getitem__."
            )
        if not len(dataset):
            raise UserError("The dataset is empty: it needs at least one sample.")
        self._dataset, self._task = dataset, task
        # The dataset's own transforms may draw random numbers, and a look must neither depend on chance nor change it.
        with seeded(0):
            first, target = input_and_target(dataset[0])
            first = as_input(first)
            self._is_labelled = target is not None
            self.targets = find_targets(dataset, task) if targets is None and self._is_labelled else targets
        if isinstance(first, Tensor) and not task.ragged:
            self.channels, self.size = first.shape[0], (first.shape[1], first.shape[2])
        if task.has_maps and self.targets is not None and tuple(self.targets.shape[-2:]) != self.size:
            raise UserError(
                f"The dataset's images have the size {list(self.size)} and its maps {list(self.targets.shape[-2:])}: "
                "bring both to one size (height, width) in its transform."
            )

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        given, target = input_and_target(self._dataset[index])
        return as_input(given), target

    @property
    def as_given(self) -> bool:
        """Whether the images are the user's own floats, which count as normalised."""
        with seeded(0):
            image, _ = input_and_target(self._dataset[0])
        if isinstance(image, np.ndarray):
            return bool(np.issubdtype(image.dtype, np.floating))
        return isinstance(image, Tensor) and image.is_floating_point()

    def read_batch(self, indices: Sequence[int]) -> tuple[Any, Tensor | None]:
        """Return the inputs at `indices` as one batch, images as float32, and their targets."""
        samples = [self[int(index)] for index in indices]
        targets = [target for _, target in samples]
        given = [given for given, _ in samples]
        if self._task.ragged:
            inputs: Any = given
        else:
            inputs = together(given) if given else torch.empty(0, self.channels, *self.size)
        if self.targets is None:
            return inputs, None
        if not samples:
            return inputs, self.targets[:0]
        if any(target is None for target in targets):
            raise UserError(
                "Some samples of the dataset have a target and some do not: give -1 to those without a label."
            )
        return inputs, self._task.read_targets(targets, where="the dataset")

    def select(self, indices: Indices) -> OwnSamples:
        """Return the samples at `indices` as a dataset of their own."""
        chosen = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        targets = None if self.targets is None else self.targets[chosen]
        # With the targets, so that they need not be read from the samples again.
        return OwnSamples(Subset(self._dataset, chosen.tolist()), self._task, targets)

    def with_targets(self, targets: Tensor | None) -> OwnSamples:
        """Return the same inputs with other targets, or with none."""
        return OwnSamples(_Retargeted(self._dataset, targets), self._task, targets)


def as_samples(dataset: Any, task: Task) -> Samples | DataLoader[Any]:
    """Return a dataset as samples, which it may be already; a DataLoader stays what it is."""
    return dataset if isinstance(dataset, Samples | DataLoader) else OwnSamples(dataset, task)


class _Retargeted:
    """A map-style dataset with other targets, or with none."""

    def __init__(self, dataset: Any, targets: Tensor | None) -> None:
        self._dataset, self._targets = dataset, targets

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        given, _ = input_and_target(self._dataset[index])
        return given, None if self._targets is None else self._targets[index]


class OwnLoader:
    """A user's DataLoader, used as it is: its batches, its order, its workers.

    Its random numbers are seeded by (seed, epoch), and a resumed epoch reads the batches before its start and skips
    them. Positions in the dataset are not known, so batches have no indices.

    Args:
        loader: Yields inputs and targets, as a pair or a mapping, or inputs alone.
        task: The task, which reads the targets and gives batches their losses.
        seed: Seed of its order and of its transforms.
        device: The device of the batches.
        channels_last: Whether inputs have the channels innermost in memory.
        rank: The number of this process, from 0; it gets the samples `rank::world_size` of each batch.
        world_size: How many processes share each batch.
        training: Whether it is trained on. A last batch is then left out if it has one sample for a process, or none:
            batch norm cannot normalise it.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        task: Task,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        training: bool = False,
    ) -> None:
        self._loader, self._task, self._seed = loader, task, seed
        self._batches = len(loader) - (training and _ends_short(loader, world_size))
        self._device, self._channels_last = device, channels_last
        self._mine = slice(rank, None, world_size)

    def __len__(self) -> int:
        return self._batches

    def sizes(self) -> tuple[int, ...]:
        """Return the number of samples of a whole batch; () if only the user's own batch sampler knows it."""
        samples = self._loader.batch_size
        return () if samples is None else (len(range(samples)[self._mine]),)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch `number` from batch `start` on."""
        # Samplers for several processes shuffle by the number of the epoch.
        if hasattr(self._loader.sampler, "set_epoch"):
            self._loader.sampler.set_epoch(number)
        # The order is drawn when the iteration begins; a generator of the user's is not reached by the seed below.
        for generator in _generators(self._loader):
            generator.manual_seed(derive(self._seed, ORDER, number))
        with seeded(self._seed, ORDER, number):
            batches = iter(self._loader)
        for position in range(len(self)):
            # A seed for each batch: without worker processes, transforms draw here, and a resumed epoch must draw the
            # same.
            with seeded(self._seed, FOREIGN, number, position):
                batch = next(batches, None)
            if batch is None:
                return
            if position >= start:
                yield self._batch(*input_and_target(batch))

    def _batch(self, inputs: Any, targets: Any) -> Batch:
        is_list = self._task.ragged and isinstance(inputs, list | tuple) and all(isinstance(i, Tensor) for i in inputs)
        if not (is_list or isinstance(inputs, Tensor | Mapping)):
            raise UserError(
                f"The DataLoader's inputs are a {type(inputs).__name__}: its transform or collate_fn must make a "
                "tensor [batch, channel, height, width], or a mapping of tensors."
            )
        inputs = self._placed(inputs)
        if targets is not None:
            read = self._task.read_targets(targets, where="the DataLoader")
            targets = read[self._mine].to(self._device, non_blocking=True)
            targets = targets if targets.is_floating_point() else targets.long()
        return Batch(inputs=inputs, targets=targets, criterion=self._task.criterion)

    def _placed(self, inputs: Any) -> Any:
        """Return this process's share of the inputs on the device."""
        if isinstance(inputs, Mapping):
            return {name: self._placed(value) for name, value in inputs.items()}
        if not isinstance(inputs, Tensor):
            # A list: each entry is the image of one sample.
            return [as_inputs(image.to(self._device, non_blocking=True)) for image in inputs[self._mine]]
        mine = inputs[self._mine].to(self._device, non_blocking=True)
        is_image = mine.ndim == 4
        return as_inputs(mine, channels_last=self._channels_last) if is_image else mine


def _ends_short(loader: DataLoader[Any], world_size: int) -> bool:
    """Return whether the last batch has less than two samples for a process, unlike the others."""
    size = loader.batch_size
    # How many samples other loaders yield, only they themselves know.
    if size is None or loader.drop_last or isinstance(loader.dataset, IterableDataset):
        return False
    samples = len(loader.sampler)  # type: ignore[arg-type]  # a sampler without a length has no epochs either
    return 0 < samples % size < 2 * world_size <= size < samples


def as_input(given: Any) -> Any:
    """Return the input of a sample as tensors: an image as float32 `[channel, height, width]`, or a mapping of tensors.

    Raises:
        UserError: If it is neither.
    """
    if isinstance(given, Mapping):
        return {name: torch.as_tensor(value) for name, value in given.items()}
    return as_image(given)


def together(inputs: Sequence[Any]) -> Any:
    """Return the inputs of several samples as those of a batch.

    Raises:
        UserError: If they differ in shape.
    """
    if isinstance(inputs[0], Mapping):
        try:
            return default_collate([dict(one) for one in inputs])
        except RuntimeError as error:
            raise UserError(
                f"The dataset's samples differ in length ({error}): pad them to one length in its transform, or pass a "
                "DataLoader whose collate_fn does."
            ) from error
    if len({image.shape for image in inputs}) > 1:
        shapes = sorted({tuple(image.shape) for image in inputs})
        raise UserError(f"The dataset's images have the shapes {shapes}: resize them to one shape in its transform.")
    return torch.stack(list(inputs))


def as_image(image: Any) -> Tensor:
    """Return an image as float32 `[channel, height, width]`; all images but float tensors are scaled to [0, 1].

    Raises:
        UserError: If it is not an image.
    """
    if isinstance(image, Image.Image):
        pixels = np.asarray(image if image.mode in ("L", "RGB") else on_background(image).convert("RGB"))
        # A copy, because the memory of PIL is read-only, of which PyTorch warns.
        image = torch.from_numpy(pixels.copy() if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
    if isinstance(image, np.ndarray):
        # Channels last, as in most libraries but PyTorch. If both ends could be channels, PyTorch's order is taken.
        if image.ndim == 3 and image.shape[-1] in _COLOURS and image.shape[0] not in _COLOURS:
            image = image.transpose(2, 0, 1)
        # A copy here too: arrays may be read-only, or have negative strides, which PyTorch does not take.
        image = torch.from_numpy(np.array(image))
    if not isinstance(image, Tensor) or image.ndim not in (2, 3):
        what = f"a tensor {list(image.shape)}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise UserError(f"An image of the dataset is {what}: give a tensor [channel, height, width], PIL or numpy.")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise UserError(f"An image of the dataset is {image.dtype}: give uint8 in 0 to 255, or floats.")
    return as_inputs(image if image.ndim == 3 else image[None])


def _generators(loader: DataLoader[Any]) -> list[Generator]:
    """Return the generators that the user gave, which the global seed does not reach."""
    found = [getattr(owner, "generator", None) for owner in (loader, loader.sampler, loader.batch_sampler)]
    return [generator for generator in found if isinstance(generator, Generator)]
