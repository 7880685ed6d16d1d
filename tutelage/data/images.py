"""Images with class indices: resident in memory, or decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tutelage.data.decode import decode_all, read_image, to_pixels
from tutelage.errors import UserError

if TYPE_CHECKING:
    import datasets


def as_inputs(images: Tensor, *, channels_last: bool = False) -> Tensor:
    """Return images as a network takes them: uint8 divided by 255; floats as they are, in float32.

    Args:
        images: `[batch, channel, height, width]`.
        channels_last: Whether to lay the channels innermost in memory.
    """
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    if images.is_floating_point():
        return images.float()
    # Converted and divided in one pass.
    return torch.div(images, 255, out=torch.empty_like(images, dtype=torch.float32))


class ResidentImages(Dataset[tuple[Tensor, int]]):
    """All images of a split as one uint8 tensor: the fast way for small images.

    Args:
        images: uint8 `[sample, channel, height, width]`.
        targets: Class indices, int64 `[sample]`.

    Raises:
        UserError: If the shapes or dtypes are others.
    """

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise UserError(
                f"Images are {images.dtype} {list(images.shape)}: give uint8 [sample, channel, height, width]."
            )
        if targets.shape != images.shape[:1]:
            raise UserError(f"Targets {list(targets.shape)} for {len(images)} images: give one class index for each.")
        self.images, self.targets = images, targets.long()

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.targets[index])

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    def gather(self, indices: Tensor) -> Tensor:
        """Return the images at `indices` as one uint8 batch, on the device of the images."""
        return self.images.index_select(0, indices.to(self.images.device, non_blocking=True))

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> ResidentImages:
        """Return the samples at `indices` as a dataset of their own."""
        chosen = torch.as_tensor(np.asarray(indices, dtype=np.int64), device=self.images.device)
        return ResidentImages(self.images.index_select(0, chosen), self.targets.index_select(0, chosen))

    def to(self, device: torch.device | str) -> ResidentImages:
        """Return the same samples on another device."""
        return ResidentImages(self.images.to(device), self.targets.to(device))


class StreamedImages(Dataset[tuple[Tensor, int]]):
    """Images that are decoded when they are asked for, all brought to one size.

    Args:
        rows: A Hugging Face dataset whose image column is not decoded (`Image(decode=False)`).
        targets: Class indices, int64 `[sample]`.
        image: The name of the image column.
        split: The split's name, for messages.
        channels: 1 for grey, 3 for colour.
        size: Height and width in pixels.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        targets: Tensor,
        *,
        image: str,
        split: str,
        channels: int,
        size: tuple[int, int],
    ) -> None:
        self._rows, self._image, self._split = rows, image, split
        self.targets, self.channels, self.size = targets, channels, size

    def __len__(self) -> int:
        return self.targets.shape[0]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, targets = self.read_batch([index])
        return images[0], int(targets[0])

    def pixels(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield the images at `indices` as uint8 `[channel, height, width]`."""
        cells = self._rows[indices][self._image] if len(indices) else []
        for index, cell in zip(indices, cells):
            image = read_image(cell, f"row {index} of split {self._split!r}")
            yield to_pixels(image, channels=self.channels, size=self.size)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> StreamedImages:
        """Return the samples at `indices` as a dataset of their own."""
        chosen = np.asarray(indices, dtype=np.int64)
        return StreamedImages(
            self._rows.select(chosen),
            self.targets[torch.from_numpy(chosen)],
            image=self._image,
            split=self._split,
            channels=self.channels,
            size=self.size,
        )

    def shaped(self, channels: int, size: tuple[int, int]) -> StreamedImages:
        """Return the same samples, decoded to other channels and another size."""
        names = {"image": self._image, "split": self._split}
        return StreamedImages(self._rows, self.targets, **names, channels=channels, size=size)

    def read_batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the images at `indices` as one uint8 batch, and their targets."""
        pixels = np.empty((len(indices), self.channels, *self.size), dtype=np.uint8)
        for position, image in enumerate(self.pixels(indices)):
            pixels[position] = image
        return torch.from_numpy(pixels), self.targets[torch.as_tensor(indices, dtype=torch.int64)]

    def resident(self) -> ResidentImages:
        """Decode all images into memory."""
        pixels = decode_all(self.pixels, (len(self), self.channels, *self.size), f"{self._split} images")
        return ResidentImages(torch.from_numpy(pixels), self.targets)
