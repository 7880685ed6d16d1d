"""Random scales: an image and its map are enlarged or shrunk alike, and keep their size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from tutelage.data.transforms import box_grid, exact, nearest, resample
from tutelage.errors import UserError


@dataclass(frozen=True)
class Scale:
    """Enlarge or shrink by a random factor and keep the size, as is done for segmentation.

    Of an enlarged image a random part is left. A shrunk image lies at a random place, and black is around it.
    Parameters: the box's centre (x, y) and half size, in units of the half image.

    Args:
        low: The smallest factor.
        high: The largest factor.
    """

    low: float = 0.5
    high: float = 2.0
    width = 3

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise UserError(f"scale goes from {self.low:g} to {self.high:g}: give factors above 0, small one first.")

    def sample(self, generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
        """Draw the boxes, `[n, 3]`."""
        factor, x, y = torch.rand((n, 3), generator=generator, dtype=torch.float32).unbind(1)
        half = 1 / (self.low + (self.high - self.low) * factor)
        # Below 1 the box lies in the image; above 1 the image lies in the box.
        room = (1 - half).abs()
        return torch.stack([(2 * x - 1) * room, (2 * y - 1) * room, half], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Scale each image, bilinearly."""
        return resample(images, self._grid(images, parameters), padding_mode="zeros")

    def apply_to_maps(self, maps: Tensor, parameters: Tensor, outside: float) -> Tensor:
        """Scale each map as its image."""
        return nearest(maps, self._grid(maps, parameters), outside)

    def zoom(self, parameters: Tensor) -> Tensor:
        """Return how much larger things are: the inverse of the box's half size."""
        return parameters[:, 2].reciprocal()

    def _grid(self, images: Tensor, parameters: Tensor) -> Tensor:
        return box_grid(images, parameters[:, [0, 1, 2, 2]])

    def __str__(self) -> str:
        return "scale" if self == Scale() else f"scale:{exact(self.low)}:{exact(self.high)}"
