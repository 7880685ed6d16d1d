"""Mean and standard deviation of the channels, over images in [0, 1]."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tutelage.data.images import ResidentImages
from tutelage.data.own import OwnSamples
from tutelage.data.samples import Samples
from tutelage.system.chance import seeded

_CHUNK = 4096
# Enough for three digits. Reading every image would take as long as an epoch.
_SAMPLED = 1000
_NOTHING = torch.zeros((), dtype=torch.int64)

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def mean_and_std(images: Samples) -> Statistics:
    """Return mean and standard deviation per channel: exact for resident images, else over up to 1,000 of them.

    A user's own float images count as normalised: mean 0, standard deviation 1.

    Args:
        images: The training images.
    """
    if isinstance(images, ResidentImages):
        return _from_histogram(_histogram(images.images))
    if isinstance(images, OwnSamples) and images.as_given:
        return (0.0,) * images.channels, (1.0,) * images.channels
    # Each image alone: on a canvas for images of all sizes, the black beside it would count.
    images = images.measured()
    positions = np.unique(np.linspace(0, len(images) - 1, _SAMPLED).round().astype(int)).tolist()
    # Images of several sizes make no batch.
    parts = [positions] if images.groups is None else [[position] for position in positions]
    # Seeded, because a user's own transform may draw random numbers.
    with seeded(0):
        return _from_histogram(sum((_counted(images.read_batch(part)[0]) for part in parts), _NOTHING))


def _counted(pixels: Tensor) -> Tensor:
    """Count the values of images of one size; floats in [0, 1] become bytes."""
    return _histogram(pixels.mul(255).round().byte() if pixels.is_floating_point() else pixels)


def _histogram(images: Tensor) -> Tensor:
    """Count the 256 values of each channel, `[channel, 256]`. Counts are exact, where sums of floats would round."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64, device=images.device)
    for chunk in torch.split(images, _CHUNK):
        for channel in range(images.shape[1]):
            counts[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256)
    return counts.cpu()


def _from_histogram(counts: Tensor) -> Statistics:
    values = torch.arange(256, dtype=torch.float64) / 255
    share = counts / counts.sum(dim=1, keepdim=True).double()
    mean = share @ values
    std = ((values - mean[:, None]).square() * share).sum(dim=1).sqrt()
    # A constant channel would make the normalisation divide by zero.
    return tuple(mean.tolist()), tuple(torch.where(std > 0, std, 1.0).tolist())
