"""Images and their targets: resident in memory, or decoded when needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.decode import decode_all, read_image, to_pixels
from tutelage.data.samples import Indices, Samples
from tutelage.errors import UserError

if TYPE_CHECKING:
    import datasets

# Dimensions of targets that are a map for each sample: [sample, height, width].
_MAP = 3


def as_inputs(images: Tensor, *, channels_last: bool = False) -> Tensor:
    """Return images as float32 inputs of a network: uint8 divided by 255, floats unchanged.

    Args:
        images: `[batch, channel, height, width]`.
        channels_last: Whether to store the channels innermost in memory.
    """
    # Before the conversion, because uint8 images have a quarter of the bytes to move.
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    if images.is_floating_point():
        return images.float()
    # Converts and divides in one pass over memory.
    return torch.div(images, 255, out=torch.empty_like(images, dtype=torch.float32))


class ResidentImages(Samples):
    """All images of a split as one uint8 tensor: the fast way for small images.

    Args:
        images: uint8 `[sample, channel, height, width]`.
        targets: `[sample, ...]`, such as class indices `[sample]`; None for images without targets.

    Raises:
        UserError: If the shapes or dtypes are wrong.
    """

    is_resident = True

    def __init__(self, images: Tensor, targets: Tensor | None) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise UserError(
                f"Images are {images.dtype} {list(images.shape)}: give uint8 [sample, channel, height, width]."
            )
        if targets is not None and targets.shape[:1] != images.shape[:1]:
            raise UserError(
                f"There are targets of shape {list(targets.shape)} for {len(images)} images: give one for each."
            )
        self.images = images
        # Maps of classes stay as narrow as they are: eight bytes for each pixel would not fit.
        is_index = targets is not None and not targets.is_floating_point() and targets.ndim < _MAP
        self.targets = targets.long() if is_index and targets is not None else targets
        self.channels, self.size = images.shape[1], (images.shape[2], images.shape[3])

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.images[index], None if self.targets is None else _plain(self.targets[index])

    def read_batch(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the images at `indices` as one uint8 batch, and their targets, on the device of the images."""
        positions = indices.to(self.images.device, non_blocking=True)
        targets = None if self.targets is None else self.targets.index_select(0, positions)
        return self.images.index_select(0, positions), targets

    def select(self, indices: Indices) -> ResidentImages:
        """Return the samples at `indices` as a dataset of their own."""
        return ResidentImages(*self.read_batch(torch.as_tensor(np.asarray(indices, dtype=np.int64))))

    def with_targets(self, targets: Tensor | None) -> ResidentImages:
        """Return the same images with other targets, or with none."""
        return ResidentImages(self.images, None if targets is None else targets.to(self.images.device))

    def to(self, device: torch.device | str) -> ResidentImages:
        """Return the same samples on another device."""
        return ResidentImages(self.images.to(device), None if self.targets is None else self.targets.to(device))


class StreamedImages(Samples):
    """Images that are decoded when they are needed, all resized to one size.

    Attributes:
        fits: Whether they can all lie in memory in one size, without a loss for measuring.

    Args:
        rows: A Hugging Face dataset whose image column is not decoded (`Image(decode=False)`).
        targets: `[sample, ...]`, such as class indices `[sample]`; None for images without targets.
        image: The name of the image column.
        split: The split's name, for messages.
        channels: 1 for grey, 3 for colour.
        size: Height and width in pixels.
    """

    is_decoded = True
    fits = True

    def __init__(
        self,
        rows: datasets.Dataset,
        targets: Tensor | None,
        *,
        image: str,
        split: str,
        channels: int,
        size: tuple[int, int],
    ) -> None:
        self._rows, self._image, self._split = rows, image, split
        self.targets, self.channels = targets, channels
        self.size: tuple[int, int] = size

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        images, targets = self.read_batch([index])
        return images[0], None if targets is None else _plain(targets[0])

    def place(self, index: int) -> str:
        """Return where an image came from: its file, or else its row."""
        return str(self._rows[int(index)][self._image].get("path") or f"row {index} of split {self._split!r}")

    def pixels(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield the images at `indices` as uint8 `[channel, height, width]`."""
        cells = self._rows[indices][self._image] if len(indices) else []
        for index, cell in zip(indices, cells):
            image = read_image(cell, f"row {index} of split {self._split!r}")
            yield to_pixels(image, channels=self.channels, size=self.size)

    def select(self, indices: Indices) -> StreamedImages:
        """Return the samples at `indices` as a dataset of their own."""
        chosen = np.asarray(indices, dtype=np.int64)
        return self._twin(self._rows.select(chosen), self._targets_at(chosen), self.channels, self.size)

    def with_targets(self, targets: Tensor | None) -> StreamedImages:
        """Return the same images with other targets, or with none."""
        return self._twin(self._rows, targets, self.channels, self.size)

    def shaped(self, channels: int, size: tuple[int, int]) -> StreamedImages:
        """Return the same samples, decoded to other channels and another size."""
        return self._twin(self._rows, self.targets, channels, size)

    def _twin(
        self, rows: datasets.Dataset, targets: Tensor | None, channels: int, size: tuple[int, int]
    ) -> StreamedImages:
        return StreamedImages(rows, targets, image=self._image, split=self._split, channels=channels, size=size)

    def _targets_at(self, indices: Indices) -> Tensor | None:
        return None if self.targets is None else self.targets[torch.as_tensor(indices, dtype=torch.int64)]

    def read_batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Return the images at `indices` as one uint8 batch, and their targets."""
        # Filled image by image: a list of all images and their stack would take the memory twice.
        pixels = np.empty((len(indices), self.channels, *self.size), dtype=np.uint8)
        for position, image in enumerate(self.pixels(indices)):
            pixels[position] = image
        return torch.from_numpy(pixels), self._targets_at(indices)

    def resident(self) -> ResidentImages:
        """Decode all images into memory."""
        pixels = decode_all(self.pixels, (len(self), self.channels, *self.size), f"{self._split} images")
        return ResidentImages(torch.from_numpy(pixels), self.targets)


def _plain(target: Tensor) -> Any:
    """Return the target of one sample as a plain number, or as a tensor if it has several values."""
    return target.item() if target.ndim == 0 else target
