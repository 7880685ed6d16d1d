"""A Python user's own dataset or DataLoader of (image, label), as the driver reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from tutelage.data.batch import Batch
from tutelage.data.images import as_inputs
from tutelage.data.plan import FOREIGN, ORDER
from tutelage.errors import UserError
from tutelage.system.chance import derive, seeded

# Reading every sample for its label alone is bearable up to here.
_MOST_SCANNED = 20_000
_COLOURS = (1, 3, 4)


class ForeignImages(Dataset[tuple[Tensor, int]]):
    """A map-style dataset of (image, label). Float tensors pass as they are; everything else becomes [0, 1].

    Args:
        dataset: Anything with `__len__` and `__getitem__`; an image is a tensor, a PIL image or a numpy array.
        targets: The class indices `[sample]` if known; else they are taken from the dataset, or read from it.

    Raises:
        UserError: If the dataset is empty, or does not hold pairs of image and label.
    """

    def __init__(self, dataset: Any, targets: Tensor | None = None) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise UserError(
                f"A {type(dataset).__name__} cannot be indexed: pass a dataset with __len__ and __getitem__."
            )
        if not len(dataset):
            raise UserError("The dataset is empty: it needs one sample at least.")
        self._dataset = dataset
        with seeded(0):
            first = self[0][0]
            self.targets = find_targets(dataset) if targets is None else targets
        self.channels, self.size = first.shape[0], (first.shape[1], first.shape[2])

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = _pair(self._dataset[index])
        return as_image(image), int(label)

    @property
    def as_given(self) -> bool:
        """Whether the images are the user's own floats, whose normalisation is the user's."""
        with seeded(0):
            image, _ = _pair(self._dataset[0])
        if isinstance(image, np.ndarray):
            return bool(np.issubdtype(image.dtype, np.floating))
        return isinstance(image, Tensor) and image.is_floating_point()

    def read_batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the images at `indices` as one float32 batch, and their targets."""
        samples = [self[index] for index in indices]
        if len({image.shape for image, _ in samples}) > 1:
            shapes = sorted({tuple(image.shape) for image, _ in samples})
            raise UserError(f"The dataset's images have the shapes {shapes}: bring them to one in its transform.")
        images = torch.stack([image for image, _ in samples]) if samples else torch.empty(0, self.channels, *self.size)
        return images, torch.tensor([label for _, label in samples], dtype=torch.int64)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> ForeignImages:
        """Return the samples at `indices` as a dataset of their own."""
        chosen = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        return ForeignImages(Subset(self._dataset, chosen.tolist()), self.targets[chosen])


def foreign_images(dataset: Any) -> ForeignImages:
    """Return a map-style dataset as `ForeignImages`, which it may be already."""
    return dataset if isinstance(dataset, ForeignImages) else ForeignImages(dataset)


class ForeignLoader:
    """A user's DataLoader, used as it is: its batches, its order, its workers.

    Its chance is seeded by (seed, epoch), and a resumed epoch reads over the batches before its start.
    Positions in the dataset are not known, so batches have no indices.

    Args:
        loader: Yields pairs of images and labels.
        seed: Decides its order.
        device: Where the batches go.
        channels_last: Whether inputs have the channels innermost in memory.
        rank: Which process this is; it gets the samples `rank::world_size` of each batch.
        world_size: How many processes share each batch.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._loader, self._seed, self._device, self._channels_last = loader, seed, device, channels_last
        self._mine = slice(rank, None, world_size)

    def __len__(self) -> int:
        return len(self._loader)

    def sizes(self) -> tuple[int, ...]:
        """Return how many samples a whole batch has; () where only the user's own batch sampler knows."""
        samples = self._loader.batch_size
        return () if samples is None else (len(range(samples)[self._mine]),)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch `number` from batch `start` on."""
        if hasattr(self._loader.sampler, "set_epoch"):
            self._loader.sampler.set_epoch(number)
        for generator in _generators(self._loader):
            generator.manual_seed(derive(self._seed, ORDER, number))
        with seeded(self._seed, ORDER, number):
            batches = iter(self._loader)
        for position in range(len(self)):
            with seeded(self._seed, FOREIGN, number, position):
                batch = next(batches, None)
            if batch is None:
                return
            if position >= start:
                yield self._batch(*_pair(batch))

    def _batch(self, images: Any, labels: Any) -> Batch:
        if not isinstance(images, Tensor):
            raise UserError("The DataLoader's images are no tensor: let its transform or collate_fn make one.")
        images = images[self._mine].to(self._device, non_blocking=True)
        targets = torch.as_tensor(labels)[self._mine].to(self._device, dtype=torch.int64, non_blocking=True)
        return Batch(inputs=as_inputs(images, channels_last=self._channels_last), targets=targets)


def as_image(image: Any) -> Tensor:
    """Return an image as float32 `[channel, height, width]`; all but float tensors are brought to [0, 1].

    Raises:
        UserError: If it is no image.
    """
    if isinstance(image, Image.Image):
        image = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[-1] in _COLOURS and image.shape[0] not in _COLOURS:
            image = image.transpose(2, 0, 1)
        image = torch.from_numpy(np.array(image))
    if not isinstance(image, Tensor) or image.ndim not in (2, 3):
        what = f"a tensor {list(image.shape)}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise UserError(f"An image of the dataset is {what}: give a tensor [channel, height, width], PIL or numpy.")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise UserError(f"An image of the dataset is {image.dtype}: give uint8 in 0 to 255, or floats.")
    return as_inputs(image if image.ndim == 3 else image[None])


def find_targets(dataset: Any) -> Tensor:
    """Return the class indices of a map-style dataset: from its attributes, or by reading it.

    Raises:
        UserError: If there are none, or reading them would take too long.
    """
    if isinstance(dataset, Subset):
        return find_targets(dataset.dataset)[torch.as_tensor(list(dataset.indices))]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1].long()
    for name in ("targets", "labels"):
        values = getattr(dataset, name, None)
        if values is not None and len(values) == len(dataset):
            return torch.as_tensor(values).long()
    if len(dataset) > _MOST_SCANNED:
        raise UserError(
            f"The labels of a {type(dataset).__name__} would have to be read from {len(dataset)} samples: give it an "
            "attribute `targets` with the class indices."
        )
    return torch.tensor([int(_pair(dataset[index])[1]) for index in range(len(dataset))])


def _pair(sample: Any) -> tuple[Any, Any]:
    if not (isinstance(sample, tuple | list) and len(sample) == 2):
        raise UserError(f"A sample of the data is a {type(sample).__name__}: let each be a pair (image, label).")
    return sample[0], sample[1]


def _generators(loader: DataLoader[Any]) -> list[Generator]:
    """Return the generators that the user gave, which the global seed does not reach."""
    found = [getattr(owner, "generator", None) for owner in (loader, loader.sampler, loader.batch_sampler)]
    return [generator for generator in found if isinstance(generator, Generator)]
