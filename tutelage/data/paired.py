"""Images with maps, such as masks: both are read when needed, and keep their places on each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tutelage.data.decode import on_background, read_image, watched
from tutelage.data.images import ResidentImages
from tutelage.data.map_files import place_of
from tutelage.data.samples import Indices, Samples

if TYPE_CHECKING:
    import datasets

Size = tuple[int, int]
# Of a place of a map: depths are float32, and classes take half of that.
_MAP_BYTES = 4


class MapReader(Protocol):
    """Turns the numbers in a file into a task's targets, place by place."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each number that a network answers a place with."""

    def read(self, values: NDArray[Any], where: str) -> NDArray[Any]:
        """Return the targets of a map, `[height, width]`."""


@dataclass(frozen=True)
class Frame:
    """How images of different sizes become one batch.

    In training each image lies in the upper left corner of a canvas, where the rest is black and has no target. When a
    network is measured, each image has its own size, and its map is whole.

    Attributes:
        canvas: Height and width of the canvas in pixels.
        longest: The longer side in pixels to which an image is resized; None keeps its size.
    """

    canvas: Size
    longest: int | None = None

    @classmethod
    def of(cls, sizes: NDArray[np.int64], longest: int | None) -> Frame:
        """Return the smallest frame that holds the training images.

        Args:
            sizes: Their height and width, `[sample, 2]`.
            longest: The longer side in pixels to which images are resized; None keeps their sizes.
        """
        bare = cls((0, 0), longest)
        seen = np.array([bare.seen((int(height), int(width))) for height, width in np.unique(sizes, axis=0)])
        height, width = seen.max(axis=0).tolist()
        return cls((height, width), longest)

    def seen(self, size: Size) -> Size:
        """Return the size in which a network sees an image of this size."""
        if self.longest is None:
            return size
        height, width = (max(1, round(side * self.longest / max(size))) for side in size)
        return height, width


class PairedImages(Samples):
    """Images and their maps, read when they are needed.

    Args:
        rows: A Hugging Face dataset whose columns of images and maps are not decoded.
        reader: Turns the numbers in a map's file into targets; None for images without maps.
        opened: Opens the file of a map: its numbers, from a cell of the table and the place to name.
        sizes: Height and width of each image in pixels, `[sample, 2]`.
        frame: How images of different sizes become one batch.
        image: The column of the images.
        label: The column of the maps; None for images without maps.
        split: The split's name, for messages.
        channels: 1 for grey, 3 for colour.
        missing: The target of places without one.
        whole: Whether each image has its own size and its map is whole, as it is measured; or lies on the canvas.
        keep: Whether what was read once stays in memory, so that an image is decoded in the first epoch alone.
    """

    targets = None

    def __init__(
        self,
        rows: datasets.Dataset,
        reader: MapReader | None,
        opened: Callable[[Any, str], NDArray[Any]],
        sizes: NDArray[np.int64],
        frame: Frame,
        *,
        image: str,
        label: str | None,
        split: str,
        channels: int,
        missing: float,
        whole: bool = False,
        keep: bool = False,
    ) -> None:
        self._rows, self._reader, self._opened, self._sizes, self._frame = rows, reader, opened, sizes, frame
        self._image, self._label, self._split, self._missing = image, label, split, missing
        self._whole, self._keep = whole, keep
        self._kept: dict[int, tuple[NDArray[np.uint8], NDArray[Any]]] = {}
        self._measured: PairedImages | None = None
        # Worker processes would each keep images of their own, so this one reads what is kept.
        self.is_decoded = not keep
        self.channels, self.size = channels, frame.canvas

    @property
    def has_targets(self) -> bool:
        """Whether the images have maps."""
        return self._label is not None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        images, targets = self.read_batch([index])
        return images[0], None if targets is None else targets[0]

    def place(self, index: int) -> str:
        """Return where an image came from: its file, or else its row."""
        return place_of(self._rows[int(index)][self._image], self._where(int(index)))

    def size_at(self, index: int) -> Size:
        """Return the height and width of an image's file in pixels."""
        height, width = self._sizes[index].tolist()
        return height, width

    @property
    def mib(self) -> float:
        """What all images and maps take in memory as they are trained on or measured, in MiB; the larger of the two."""
        height, width = self._frame.canvas
        trained = len(self) * height * width * (self.channels + _MAP_BYTES)
        seen = np.array([self._frame.seen((int(high), int(wide))) for high, wide in self._sizes]).reshape(-1, 2)
        measured = seen.prod(1).sum() * self.channels + self._sizes.prod(1).sum() * _MAP_BYTES
        return max(float(trained), float(measured)) / 2**20

    @property
    def fits(self) -> bool:
        """Whether every image fills the canvas as it is, so that it is measured as it is trained on."""
        return bool((self._sizes == np.array(self._frame.canvas)).all()) and self._frame.longest is None

    @property
    def groups(self) -> Sequence[int] | None:
        """A number for each sample; only samples of one number can be in a batch. None if all can."""
        if not self._whole:
            return None
        _, numbers = np.unique(self._sizes, axis=0, return_inverse=True)
        return numbers.reshape(-1).tolist()

    def measured(self) -> Samples:
        """Return the samples as they are measured: each in its own size, with its whole map."""
        if self.fits:
            return self
        # The same twin each time, so that what it keeps serves every epoch.
        self._measured = self._measured or self._twin(whole=True)
        return self._measured

    def read_batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Return the images at `indices` as one uint8 batch, and their maps as they are stored."""
        numbers = [int(index) for index in indices]
        images, maps = zip(*(self._remembered(index) for index in numbers)) if numbers else ((), ())
        if not numbers:
            return torch.empty(0, self.channels, *self.size, dtype=torch.uint8), None
        inputs = torch.from_numpy(np.stack(images))
        return inputs, torch.from_numpy(np.stack(maps)) if self.has_targets else None

    def select(self, indices: Indices) -> PairedImages:
        """Return the samples at `indices` as a dataset of their own."""
        chosen = np.asarray(indices, dtype=np.int64)
        twin = self._twin(whole=self._whole)
        twin._rows, twin._sizes = self._rows.select(chosen), self._sizes[chosen]
        return twin

    def with_targets(self, targets: Tensor | None) -> Samples:
        """Return the same images without maps.

        Raises:
            TypeError: If there are other maps: these come from files.
        """
        if targets is not None:
            raise TypeError("The maps of these images come from files, and cannot be replaced by others.")
        twin = self._twin(whole=self._whole)
        twin._label = None
        return twin

    def kept(self) -> PairedImages:
        """Return the same samples, which stay in memory once they were read."""
        return self._twin(whole=self._whole, keep=True)

    def resident(self) -> ResidentImages:
        """Read all images and maps into memory; each must fill the canvas."""
        assert self.fits
        read = [self._read(index) for index in watched(range(len(self)), len(self), f"{self._split} images")]
        images, maps = zip(*read)
        return ResidentImages(
            torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(maps)) if self.has_targets else None
        )

    def _remembered(self, index: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        if not self._keep:
            return self._read(index)
        if index not in self._kept:
            self._kept[index] = self._read(index)
        return self._kept[index]

    def _read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        cells, where = self._rows[index], self._where(index)
        image = on_background(read_image(cells[self._image], where)).convert("L" if self.channels == 1 else "RGB")
        size = (image.height, image.width)
        seen = self._frame.seen(size)
        if seen != size:
            image = image.resize(seen[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        maps = np.full(size, self._missing, dtype=np.int16)
        if self._label is not None:
            assert self._reader is not None
            maps = self._reader.read(self._opened(cells[self._label], where), place_of(cells[self._label], where))
        if not self._whole:
            maps = _placed(_nearest(maps, seen), self._frame.canvas, self._missing)
            pixels = _placed(pixels, self._frame.canvas, 0)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)), maps

    def _where(self, index: int) -> str:
        return f"row {index} of split {self._split!r}"

    def _twin(self, *, whole: bool, keep: bool | None = None) -> PairedImages:
        return PairedImages(
            self._rows,
            self._reader,
            self._opened,
            self._sizes,
            self._frame,
            image=self._image,
            label=self._label,
            split=self._split,
            channels=self.channels,
            missing=self._missing,
            whole=whole,
            keep=self._keep if keep is None else keep,
        )


def _nearest(maps: NDArray[Any], size: Size) -> NDArray[Any]:
    """Return a map in another size; each place takes the number of the place that its centre falls on."""
    if maps.shape == size:
        return maps
    rows, columns = (
        ((np.arange(side) + 0.5) * before / side).astype(np.int64) for side, before in zip(size, maps.shape)
    )
    found: NDArray[Any] = maps[rows[:, None], columns[None, :]]
    return found


def _placed(pixels: NDArray[Any], canvas: Size, outside: float) -> NDArray[Any]:
    """Return pixels in the upper left corner of a canvas; larger ones are cut."""
    if pixels.shape[:2] == canvas:
        return pixels
    found = np.full((*canvas, *pixels.shape[2:]), outside, dtype=pixels.dtype)
    inner = pixels[: canvas[0], : canvas[1]]
    found[: inner.shape[0], : inner.shape[1]] = inner
    return found
