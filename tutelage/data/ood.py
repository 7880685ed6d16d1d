"""Images of another dataset, which a network's uncertainty should distinguish from those that it has learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tutelage.data.dataset import TRAIN, Data, ForeignData
from tutelage.data.images import ResidentImages, StreamedImages
from tutelage.data.own import OwnSamples
from tutelage.data.samples import Samples
from tutelage.data.sources import load_data
from tutelage.data.texts import RawTexts
from tutelage.data.wrap import as_data
from tutelage.errors import UserError

# What PIL makes of red, green and blue.
_LUMA = (0.299, 0.587, 0.114)


def foreign_data(source: str | Data | Dataset[Any] | DataLoader[Any], data: Data) -> ForeignData:
    """Return images of another dataset in the size and the channels of the data's own.

    Args:
        source: Data by name or path, or `Data`, whose test split is taken; or a dataset of (image, label), which is
            taken whole. A DataLoader is used as it is.
        data: The data that the networks learn.

    Raises:
        UserError: If they have no test split, or the data's own images are normalised by their user and these are not.
    """
    if TRAIN in data.splits and isinstance(data.train, RawTexts):
        raise UserError("Foreign data are images, and these data are texts: leave out --foreign.")
    if isinstance(source, str):
        # Only the test split is used, so nothing needs to be held out.
        source = load_data(source, validation=0)
    if not isinstance(source, Data):
        source = as_data(source, test=source, hold_out=0, name="foreign", task=data.task.name, for_training=False)
    if source.test is None:
        raise UserError(f"{source.name} has no test split to measure foreign images on: pass the dataset itself.")
    images = source.test
    if isinstance(images, DataLoader):
        return ForeignData(name=source.name, images=images, fingerprint=source.fingerprint)
    check_scale(images, data)
    return ForeignData(name=source.name, images=shaped(images, data), fingerprint=source.fingerprint)


def fit_images(images: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    """Return images in other channels and another size, of the same dtype; as they are where both are right.

    Args:
        images: uint8 or float `[sample, channel, height, width]`.
        channels: 1 takes the brightness of colours, 3 repeats a grey.
        size: Height and width in pixels.

    Raises:
        UserError: If one number of channels cannot become the other.
    """
    if images.shape[1] == 3 and channels == 1:
        grey = (images.float() * images.new_tensor(_LUMA, dtype=torch.float32)[:, None, None]).sum(1, keepdim=True)
        images = grey.round().to(images.dtype) if images.dtype == torch.uint8 else grey.to(images.dtype)
    elif images.shape[1] == 1:
        images = images.expand(-1, channels, -1, -1)
    elif images.shape[1] != channels:
        raise UserError(
            f"Foreign images of {images.shape[1]} channels cannot be converted to the {channels} channels of the "
            "data's images."
        )
    if tuple(images.shape[2:]) != tuple(size):
        # Smoothed, because patterns from skipped pixels would make these images easy to tell apart.
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    return images.contiguous()


class _Fitted:
    """A user's own images in other channels and another size."""

    def __init__(self, images: OwnSamples, channels: int, size: tuple[int, int]) -> None:
        self._images, self._channels, self._size = images, channels, size

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        image, target = self._images[index]
        return fit_images(image[None], self._channels, self._size)[0], target


def shaped(images: Samples, data: Data) -> Samples:
    """Return images in the size and the channels of the data's own.

    Args:
        images: The images of another dataset.
        data: The data.

    Raises:
        UserError: If one number of channels cannot become the other.
    """
    channels, (height, width) = data.in_channels, data.image_size
    if (images.channels, tuple(images.size)) == (channels, (height, width)):
        return images
    if isinstance(images, ResidentImages):
        return ResidentImages(fit_images(images.images, channels, (height, width)), images.targets)
    if isinstance(images, StreamedImages):
        return images.shaped(channels, (height, width))
    assert isinstance(images, OwnSamples)
    return OwnSamples(_Fitted(images, channels, (height, width)), data.task, images.targets)


def check_scale(images: Any, data: Data) -> None:
    """Refuse images in [0, 1] beside images that their user has normalised: any network could distinguish those."""
    if not (isinstance(data.train, OwnSamples) and data.train.as_given):
        return
    given = isinstance(images, OwnSamples) and images.as_given
    lowest, highest = _range([data.train[index][0] for index in range(min(8, len(data.train)))])
    if not given and (lowest < 0 or highest > 1):
        raise UserError(
            f"The images of {data.name} are normalised already and go from {lowest:.2g} to {highest:.2g}, but the "
            "foreign images are in [0, 1]: pass a dataset whose images are normalised in the same way."
        )


def _range(images: Sequence[Tensor]) -> tuple[float, float]:
    return min(float(image.min()) for image in images), max(float(image.max()) for image in images)
