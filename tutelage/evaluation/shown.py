"""A few images, their maps and what networks answer, as small files in base64: what a report shows of maps."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tutelage.data.dataset import Data
from tutelage.data.samplers import GroupedBatches
from tutelage.data.samples import Samples

COUNT = 4
"""How many samples are shown."""
NOTHING = 255
"""The number of a pixel without a class in a shown map."""
_LONGEST = 320


class Shown:
    """Keeps a few maps, the last four of those at positions 0, 1, 2, 4, 8 and so on.

    So the samples are spread out, the same for every network, and nobody need know how many there will be.

    Args:
        draw: Returns a map as a small file in base64; by default, of classes.
    """

    def __init__(self, draw: Callable[[Tensor], str] | None = None) -> None:
        self._draw = draw or map_png
        self._seen = 0
        self._kept: deque[tuple[int, str]] = deque(maxlen=COUNT)

    def update(self, maps: Tensor) -> None:
        """Take in the maps of a batch in its order, `[batch, height, width]`; of classes, -1 where there is none."""
        for position in range(self._seen, self._seen + len(maps)):
            if is_shown(position):
                self._kept.append((position, self._draw(maps[position - self._seen])))
        self._seen += len(maps)

    def merge(self, later: Shown) -> None:
        """Take in what another saw, as if it had been seen after; of its kept maps, those whose position is shown."""
        self._kept.extend((self._seen + at, png) for at, png in later._kept if is_shown(self._seen + at))
        self._seen += later._seen

    def images(self) -> dict[str, str]:
        """Return the maps as PNG in base64, by their position."""
        return {str(position): png for position, png in self._kept}


def is_shown(position: int) -> bool:
    """Return whether a position is 0 or a power of two."""
    return position & (position - 1) == 0


def shown_samples(data: Data) -> list[dict[str, Any]]:
    """Return the samples that are shown of the last measured split: position, image (JPEG) and truth (PNG), in base64.

    Args:
        data: The data; their targets are maps.
    """
    if not data.measured or not isinstance(samples := data.split(data.measured[-1]), Samples):
        return []
    samples = samples.measured()
    order = list(range(len(samples)))
    if samples.groups is not None:
        batches = GroupedBatches(samples.groups, batch_size=len(samples)).epoch(0, torch.Generator())
        order = torch.cat(list(batches)).tolist()
    found = []
    for position in [position for position in range(len(order)) if is_shown(position)][-COUNT:]:
        inputs, targets = samples.read_batch(torch.tensor([order[position]]))
        assert targets is not None
        found.append(
            {"position": str(position), "image": image_jpeg(inputs[0]), "truth": data.task.picture_of(targets[0])}
        )
    return found


def map_png(classes: Tensor) -> str:
    """Return a map of classes `[height, width]` as a small PNG in base64, 255 where there is none."""
    values = classes.detach().cpu().numpy().astype(np.int64)
    small = thinned(np.where(values < 0, NOTHING, values % NOTHING).astype(np.uint8))
    return encoded(Image.fromarray(small), "PNG", optimize=True)


def image_jpeg(image: Tensor) -> str:
    """Return an image `[channel, height, width]` as a small JPEG in base64; floats are stretched to their range."""
    pixels = image.detach().cpu()
    if pixels.is_floating_point():
        low, high = pixels.min().clamp(max=0.0), pixels.max().clamp(min=1.0)
        pixels = (255 * (pixels - low) / (high - low)).round().byte()
    small = thinned(pixels[:3].permute(1, 2, 0).numpy() if len(pixels) >= 3 else pixels[0].numpy())
    return encoded(Image.fromarray(np.ascontiguousarray(small)), "JPEG", quality=85)


def thinned(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return every so many of the rows and columns, so that the picture stays small."""
    step = -(-max(pixels.shape[:2]) // _LONGEST)
    return pixels[::step, ::step]


def encoded(image: Image.Image, form: str, **options: Any) -> str:
    """Return an image as a file in base64."""
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return base64.b64encode(buffer.getvalue()).decode()
