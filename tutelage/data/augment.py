"""Augmentation of batches of images: read from a text, drawn as parameters, applied to pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Generator, Tensor

from tutelage.data.randaugment import RandAugment
from tutelage.data.scaling import Scale
from tutelage.data.tones import Colour
from tutelage.data.transforms import Crop, Cutout, Flip, RandomCutout, ResizedCrop, Rotate, Transform, Zooming
from tutelage.errors import UserError, unknown

_NONE = "none"


@dataclass(frozen=True)
class Augmentation:
    """Transforms in the order in which they are applied; `Augmentation()` does not change images."""

    transforms: tuple[Transform, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Read an augmentation such as `"crop:4,flip,rotate:15"`.

        Args:
            text: Transforms in order, separated by commas. A transform's numbers follow it after colons. `"none"` is
                the empty augmentation.

        Raises:
            UserError: If a transform does not exist or its numbers are not valid.
        """
        parts = [part.strip() for part in text.split(",")]
        return cls() if parts in ([_NONE], [""]) else cls(tuple(_transform(part) for part in parts))

    @property
    def width(self) -> int:
        """Number of parameters of one image."""
        return sum(transform.width for transform in self.transforms)

    def sample(self, generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
        """Draw the parameters of `n` images.

        Args:
            generator: The CPU generator from which all random numbers are drawn.
            n: The number of images.
            size: Their height and width in pixels.

        Returns:
            float32 `[n, width]`, on the CPU.
        """
        drawn = [transform.sample(generator, n, size) for transform in self.transforms]
        return torch.cat(drawn, dim=1) if drawn else torch.empty(n, 0)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Return the images, changed by the parameters: bit-identical each time, independent of the rest of the batch.

        Args:
            images: `[batch, channel, height, width]`, uint8 or float.
            parameters: `[batch, width]` from `sample`, on any device.

        Raises:
            UserError: If the parameters were drawn by another augmentation.
        """
        for transform, own in self._shares(len(images), parameters.to(images.device, non_blocking=True)):
            images = transform.apply(images, own)
        return images

    def apply_to_maps(self, maps: Tensor, parameters: Tensor, *, outside: float) -> Tensor:
        """Return maps that belong to the images, such as masks, moved by the same parameters. Values are never blended.

        Args:
            maps: `[batch, height, width]` or `[batch, channel, height, width]`, of any dtype.
            parameters: The parameters that changed the images, `[batch, width]`.
            outside: Value of places from outside the map, such as the class that is ignored.

        Raises:
            UserError: If the parameters were drawn by another augmentation.
        """
        # Transforms expect a channel axis.
        moved = maps if maps.ndim == 4 else maps[:, None]
        for transform, own in self._shares(len(maps), parameters.to(maps.device, non_blocking=True)):
            moved = transform.apply_to_maps(moved, own, outside)
        return moved.view(maps.shape)

    def zoom(self, parameters: Tensor) -> Tensor:
        """Return how much larger things are in each image than before, `[batch]`; the product over the transforms.

        Args:
            parameters: `[batch, width]` from `sample`.

        Raises:
            UserError: If the parameters were drawn by another augmentation.
        """
        found = parameters.new_ones(len(parameters))
        for transform, own in self._shares(len(parameters), parameters):
            if isinstance(transform, Zooming):
                found = found * transform.zoom(own)
        return found

    def _shares(self, samples: int, parameters: Tensor) -> Iterator[tuple[Transform, Tensor]]:
        """Yield each transform with its own columns of the parameters."""
        if parameters.shape != (samples, self.width):
            raise UserError(
                f"The view parameters have shape {list(parameters.shape)}, but {str(self)!r} on {samples} "
                f"images takes {[samples, self.width]}: use the augmentation that drew them."
            )
        # The parameters of all transforms stand side by side, in the order of the transforms.
        ends = list(accumulate(transform.width for transform in self.transforms))
        for transform, end in zip(self.transforms, ends):
            yield transform, parameters[:, end - transform.width : end]

    def __str__(self) -> str:
        return ",".join(map(str, self.transforms)) or _NONE

    def __bool__(self) -> bool:
        return bool(self.transforms)


def _resized_crop(*numbers: float) -> ResizedCrop:
    match numbers:
        case ():
            return ResizedCrop()
        case (low,):
            return ResizedCrop((low, 1.0))
        case (low, high):
            return ResizedCrop((low, high))
        case (low, high, flat, wide):
            return ResizedCrop((low, high), (flat, wide))
    # Becomes the message of `_transform`, as do the errors of constructors that are given too many numbers.
    raise TypeError("resized-crop takes 0, 1, 2 or 4 numbers")


def _whole(make: Callable[[int], Transform]) -> Callable[..., Transform]:
    def checked(*numbers: float) -> Transform:
        if any(number != int(number) for number in numbers):
            raise TypeError("these are whole numbers")
        return make(*map(int, numbers))

    return checked


_TRANSFORMS: Mapping[str, Callable[..., Transform]] = {
    "crop": _whole(Crop),
    "flip": Flip,
    "rotate": Rotate,
    "resized-crop": _resized_crop,
    "scale": Scale,
    "colour": Colour,
    "cutout": _whole(Cutout),
    "random-cutout": RandomCutout,
    "randaugment": _whole(RandAugment),
}


def _transform(text: str) -> Transform:
    name, *numbers = text.split(":")
    if name not in _TRANSFORMS:
        raise unknown("augmentation", name, [*_TRANSFORMS, _NONE])
    try:
        return _TRANSFORMS[name](*map(float, numbers))
    # A transform's own message says more than the general one below.
    except UserError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"The augmentation {text!r} cannot be read. Write for example crop:4, flip, rotate:15, "
            f"resized-crop:0.2:1 (smallest and largest area), scale:0.5:2 (smallest and largest factor), colour:0.3, "
            "cutout:8, random-cutout:0.5 or randaugment:2."
        ) from error
