"""Augmentations as two functions: draw the parameters, apply the parameters. Whole batches, no loop over samples.

Parameters hold everything that was drawn (angles as cosine and sine, boxes as fractions). Applying them takes only
multiplication, addition and copying, so a sample's result is bit-identical in any batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from tutelage.errors import UserError

# The mean colour of CIFAR-10 in red, green and blue; the middle value is that of grey images.
_GREY = (125, 123, 114)


class Transform(Protocol):
    """One augmentation. `str(transform)` is what `Augmentation.parse` reads."""

    @property
    def width(self) -> int:
        """Number of parameters of one image."""

    def sample(self, generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
        """Draw the parameters of `n` images of `size` (height, width): float32 `[n, width]`, on the CPU."""

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Return the images `[batch, channel, height, width]` under the parameters `[batch, width]`, same dtype."""

    def apply_to_maps(self, maps: Tensor, parameters: Tensor, outside: float) -> Tensor:
        """Return maps that belong to the images, such as masks, moved as the images are. Tones are not changed.

        Args:
            maps: `[batch, channel, height, width]`; values are copied, never blended.
            parameters: The parameters that changed the images, `[batch, width]`.
            outside: Value of places from outside the map.
        """


@runtime_checkable
class Zooming(Protocol):
    """A transform after which things in the image are larger or smaller."""

    def zoom(self, parameters: Tensor) -> Tensor:
        """Return how much larger they are in each image, `[batch]`; of other factors in width and height, their mean.

        Args:
            parameters: `[batch, width]`.
        """


@dataclass(frozen=True)
class Crop:
    """Shift by up to `padding` pixels each way: pad with black, then crop to the old size. Parameters: row, column."""

    padding: int = 4
    width = 2

    def __post_init__(self) -> None:
        if self.padding < 1:
            raise UserError(
                f"crop must pad by one pixel or more, not {self.padding}: write crop:4 for 4, or leave it out."
            )

    def sample(self, generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
        """Draw the crop's upper left corner in the padded image, `[n, 2]` in pixels."""
        return torch.randint(0, 2 * self.padding + 1, (n, 2), generator=generator).float()

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Crop each image at its corner."""
        return self.apply_to_maps(images, parameters, 0)

    def apply_to_maps(self, maps: Tensor, parameters: Tensor, outside: float) -> Tensor:
        """Crop each map at the corner of its image."""
        height, width = maps.shape[-2:]
        corners = parameters.long()
        # All possible crops as a view without copies; indexing then copies whole rows in one pass.
        windows = F.pad(maps, (self.padding,) * 4, value=outside).unfold(2, height, 1).unfold(3, width, 1)
        sample = torch.arange(maps.shape[0], device=maps.device)
        return windows[sample, :, corners[:, 0], corners[:, 1]]

    def __str__(self) -> str:
        return f"crop:{self.padding}"


@dataclass(frozen=True)
class Flip:
    """Mirror left and right with the given probability. Parameter: 1 where mirrored."""

    probability: float = 0.5
    width = 1

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise UserError(f"flip's probability is {self.probability:g}: give a number between 0 and 1.")

    def sample(self, generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
        """Draw which images are mirrored, `[n, 1]`."""
        # The type is named, because other numbers would be drawn if a user's default type is float64.
        return (torch.rand((n, 1), generator=generator, dtype=torch.float32) < self.probability).float()

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Mirror the chosen images."""
        return torch.where(parameters[:, :, None, None] > 0.5, images.flip(-1), images)

    def apply_to_maps(self, maps: Tensor, parameters: Tensor, outside: float) -> Tensor:
        """Mirror the maps of the chosen images."""
        return self.apply(maps, parameters)

    def __str__(self) -> str:
        return "flip" if self.probability == 0.5 else f"flip:{exact(self.probability)}"


@dataclass(frozen=True)
class Rotate:
    """Rotate by up to `degrees` either way about the centre; corners become black. Parameters: cosine, sine.

    A positive angle turns the image counter-clockwise, as in torchvision.
    """

    degrees: float = 15.0
    width = 2

    def __post_init__(self) -> None:
        if not 0 < self.degrees <= 180:
            raise UserError(f"rotate turns by {self.degrees:g} degrees: give more than 0 and at most 180.")

    def sample(self, generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
        """Draw the angles, `[n, 2]` as cosine and sine."""
        angle = (2 * torch.rand((n, 1), generator=generator, dtype=torch.float64) - 1) * math.radians(self.degrees)
        return torch.cat([angle.cos(), angle.sin()], dim=1).float()

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Rotate each image by its angle, bilinearly."""
        return resample(images, self._grid(images, parameters), padding_mode="zeros")

    def apply_to_maps(self, maps: Tensor, parameters: Tensor, outside: float) -> Tensor:
        """Rotate each map by the angle of its image."""
        return nearest(maps, self._grid(maps, parameters), outside)

    def _grid(self, images: Tensor, parameters: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        rows, columns = centres(height, images.device), centres(width, images.device)
        cosine, sine = (value[:, None, None] for value in parameters.unbind(1))
        # Rotated in pixels rather than in [-1, 1], which would shear images that are not square.
        x, y = columns[None, None, :] * (width / 2), rows[None, :, None] * (height / 2)
        return torch.stack([(cosine * x - sine * y) / (width / 2), (sine * x + cosine * y) / (height / 2)], dim=-1)

    def __str__(self) -> str:
        return f"rotate:{exact(self.degrees)}"


@dataclass(frozen=True)
class ResizedCrop:
    """Cut out a random box and enlarge it to the full size, as ImageNet networks are trained.

    Differences from torchvision: the box has fractional corners, and a box that does not fit is clamped, not redrawn.
    Parameters: the box's centre (x, y) and half size (x, y), in units of the half image.

    Args:
        scale: Smallest and largest area of the box, as a fraction of the image.
        ratio: Smallest and largest width divided by height of the box, relative to the image's own.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    width = 4

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(
                f"resized-crop's area goes from {self.scale[0]:g} to {self.scale[1]:g}: choose two numbers above 0 and "
                "at most 1, the smaller one first."
            )
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(
                f"resized-crop's ratio goes from {self.ratio[0]:g} to {self.ratio[1]:g}: choose two positive numbers, "
                "the smaller one first."
            )

    def sample(self, generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
        """Draw the boxes, `[n, 4]`."""
        area, ratio, x, y = torch.rand((n, 4), generator=generator, dtype=torch.float32).unbind(1)
        area = self.scale[0] + (self.scale[1] - self.scale[0]) * area
        # Uniform in the logarithm, so that wide and tall boxes are equally likely.
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = torch.exp(low + (high - low) * ratio)
        half_x, half_y = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        return torch.stack([(2 * x - 1) * (1 - half_x), (2 * y - 1) * (1 - half_y), half_x, half_y], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Enlarge each image's box, bilinearly."""
        # The box lies inside the image, so only half of an edge pixel is ever read beyond it: its own colour goes on.
        return resample(images, box_grid(images, parameters), padding_mode="border")

    def apply_to_maps(self, maps: Tensor, parameters: Tensor, outside: float) -> Tensor:
        """Enlarge the box of each map that was cut out of its image."""
        return nearest(maps, box_grid(maps, parameters), outside)

    def zoom(self, parameters: Tensor) -> Tensor:
        """Return how much larger things are: the geometric mean of the factors in width and height."""
        return (parameters[:, 2] * parameters[:, 3]).rsqrt()

    def __str__(self) -> str:
        default = ResizedCrop()
        if self == default:
            return "resized-crop"
        values = self.scale if self.ratio == default.ratio else (*self.scale, *self.ratio)
        return "resized-crop:" + ":".join(map(exact, values))


@dataclass(frozen=True)
class Cutout:
    """Black out a square of `size` pixels, its centre anywhere in the image. Parameters: the centre's row, column."""

    size: int = 8
    width = 2

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(
                f"cutout must black out one pixel or more, not {self.size}: write cutout:8 for 8, or leave it out."
            )

    def sample(self, generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
        """Draw the centres, `[n, 2]` in pixels."""
        return _positions(generator, n, size)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Black out each image's square; the part outside the image is lost."""
        return images.masked_fill(_squares(images, parameters, self.size), 0)

    def apply_to_maps(self, maps: Tensor, parameters: Tensor, outside: float) -> Tensor:
        """Return the maps as they are: what is hidden is still there."""
        return maps

    def __str__(self) -> str:
        return f"cutout:{self.size}"


@dataclass(frozen=True)
class RandomCutout:
    """Grey out a square of random size, its centre anywhere in the image, as is done after RandAugment.

    Float images are taken to be in [0, 1]. Parameters: the centre's row and column, the square's side.

    Args:
        largest: The largest side, as a share of the image's shorter one.
    """

    largest: float = 0.5
    width = 3

    def __post_init__(self) -> None:
        if not 0 < self.largest <= 1:
            raise UserError(
                f"random-cutout greys out up to {self.largest:g} of a side: give more than 0 and at most 1."
            )

    def sample(self, generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
        """Draw the squares, `[n, 3]` in pixels."""
        sides = torch.rand((n, 1), generator=generator, dtype=torch.float32) * (self.largest * min(size))
        return torch.cat([_positions(generator, n, size), sides.round()], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Grey out each image's square; the part outside the image is lost."""
        hole = _squares(images, parameters[:, :2], parameters[:, 2:].long())
        grey = torch.tensor(_GREY if images.shape[1] == 3 else _GREY[1:2], device=images.device)[:, None, None]
        return torch.where(hole, (grey / 255 if images.is_floating_point() else grey).to(images.dtype), images)

    def apply_to_maps(self, maps: Tensor, parameters: Tensor, outside: float) -> Tensor:
        """Return the maps as they are: what is hidden is still there."""
        return maps

    def __str__(self) -> str:
        return "random-cutout" if self.largest == 0.5 else f"random-cutout:{exact(self.largest)}"


def _positions(generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
    """Draw pixels, `[n, 2]` as row and column."""
    return torch.cat([torch.randint(0, side, (n, 1), generator=generator) for side in size], dim=1).float()


def _squares(images: Tensor, positions: Tensor, sides: Tensor | int) -> Tensor:
    """Return the mask of the squares: bool `[batch, 1, height, width]`.

    Args:
        images: `[batch, channel, height, width]`.
        positions: The squares' centres, `[batch, 2]` as row and column.
        sides: Their sides in pixels, `[batch, 1]` or one for all.
    """
    inside = []
    for length, centre in zip(images.shape[-2:], positions.unbind(1)):
        offset = torch.arange(length, device=images.device) - (centre[:, None].long() - sides // 2)
        inside.append((offset >= 0) & (offset < sides))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]


def box_grid(images: Tensor, boxes: Tensor) -> Tensor:
    """Return where to read the pixels of boxes, `[batch, height, width, (x, y)]`.

    Args:
        images: `[batch, channel, height, width]`.
        boxes: Their centre (x, y) and half size (x, y), in units of the half image, `[batch, 4]`.
    """
    height, width = images.shape[-2:]
    rows, columns = centres(height, images.device), centres(width, images.device)
    centre_x, centre_y, half_x, half_y = (value[:, None, None] for value in boxes.unbind(1))
    x = (half_x * columns[None, None, :] + centre_x).expand(-1, height, -1)
    y = (half_y * rows[None, :, None] + centre_y).expand(-1, -1, width)
    return torch.stack([x, y], dim=-1)


def centres(side: int, device: torch.device) -> Tensor:
    """Return the positions of the pixels' centres, if the image spans [-1, 1]."""
    return (2 * torch.arange(side, device=device, dtype=torch.float32) + 1) / side - 1


def resample(images: Tensor, grid: Tensor, *, padding_mode: str) -> Tensor:
    """Read the images at `grid` (`[batch, height, width, (x, y)]`) bilinearly, keeping their dtype."""
    # Always contiguous: another memory layout could select another kernel, with other rounding.
    pixels = images.contiguous().float()
    pixels = F.grid_sample(pixels, grid, mode="bilinear", padding_mode=padding_mode, align_corners=False)
    return pixels if images.is_floating_point() else pixels.round().clamp(0, 255).to(images.dtype)


def nearest(maps: Tensor, grid: Tensor, outside: float) -> Tensor:
    """Read maps at `grid` (`[batch, height, width, (x, y)]`) from the nearest places, keeping their dtype.

    Args:
        maps: `[batch, channel, height, width]`, numbers that float64 holds exactly, such as class indices.
        grid: The positions to read, from -1 to 1 over the map.
        outside: Value of positions beyond the map.
    """
    # `grid_sample` fills with zeros only, so a map of ones shows which places lie inside.
    values = maps.double()
    inside = torch.ones_like(values[:, :1])
    options: Any = {"mode": "nearest", "padding_mode": "zeros", "align_corners": False}
    read, known = (F.grid_sample(what, grid.double(), **options) for what in (values, inside))
    return torch.where(known > 0.5, read, outside).to(maps.dtype)


def exact(number: float) -> str:
    """Return the shortest text that reads back as this very number."""
    return repr(float(number)).removesuffix(".0")
